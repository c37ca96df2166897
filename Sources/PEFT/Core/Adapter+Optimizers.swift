import LanguageModels
import PEFTSupport
import Torch
import TorchNN

// What optimizers that treat some parameters specially need to know.
extension Adapter {
    /// Whether each of ``parameters`` is a hidden matrix, which Muon, GaLore and APOLLO treat as one: a matrix of a
    /// projection, and not a table of vectors, the output layer, a soft prompt or a new head.
    package var areHiddenMatrices: [Bool] {
        let sites = zip(attached, siteKinds).filter { $1 == .linear || $1 == .output }.map(\.0)
        let projected = Set(sites.flatMap { $0.adapter.adapterParameters.map { ObjectIdentifier($0.parameter) } })
        let tables = [model.inputEmbedding, model.outputLayer] + model.newModules
        let modules = Dictionary(model.namedModules().map { ($0.path, $0.module) }, uniquingKeysWith: { $1 })
        return parameters.map { parameter in
            guard parameter.tensor.rank == 2 else { return false }
            guard let own = trained.first(where: { $0.parameter === parameter }) else {
                return projected.contains(ObjectIdentifier(parameter))
            }
            let owner = own.path.split(separator: ".").dropLast().joined(separator: ".")
            return modules[owner] is Linear && !tables.contains { owner == $0 || owner.hasPrefix($0 + ".") }
        }
    }

    /// The factors of the adapter's LoRA branches.
    /// - Throws: ``PEFTError`` if something else than plain LoRA over projections is attached.
    package func loraFactors() throws -> [LoRAFA.Factors] {
        guard !attached.isEmpty else {
            throw PEFTError(
                "the optimizer lora-fa trains LoRA over projections, not \(choice.label)",
                remedy: "use --method lora, or another --optimizer")
        }
        return try attached.map { path, _, adapter in
            let named = Dictionary(
                adapter.adapterParameters.map { ($0.key, $0.parameter) }, uniquingKeysWith: { first, _ in first })
            guard let branch = adapter as? LoRAAdapter, branch.isDelta, let a = named["lora_A.weight"],
                let b = named["lora_B.weight"]
            else {
                throw PEFTError(
                    "the optimizer lora-fa trains LoRA over projections, not \(choice.label) at \(path)",
                    remedy: "use --method lora without variants, or another --optimizer")
            }
            return LoRAFA.Factors(a: a, b: b, scale: branch.scale)
        }
    }
}
