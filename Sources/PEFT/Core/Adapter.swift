import LanguageModels
import Support
import Torch
import TorchNN

/// A method attached to a model: its tensors, and switching, merging and taking it off.
public final class Adapter {
    public let name: String
    public let choice: MethodChoice
    public let model: any LanguageModel
    /// Added tensors, named as in Hugging Face's files below `base_model.model.`, and the model's own that are
    /// trained, by their path.
    public private(set) var added: [(key: String, parameter: Parameter)] = []
    public private(set) var trained: [(path: String, parameter: Parameter)] = []
    private var linears: [(linear: Linear, adapter: any LinearAdapter)] = []
    /// The weights as they were before merging, kept so that unmerging restores the bits.
    private var unmerged: [(linear: Linear, weight: any LinearWeight, merged: any LinearWeight)] = []
    public private(set) var isActive = false
    public var isMerged: Bool { !unmerged.isEmpty }

    /// Attaches a method to a model; the base is frozen but for what the method trains.
    ///
    /// - Parameters:
    ///   - choice: the method with its configuration.
    ///   - name: the adapter's name, `default` as in Hugging Face PEFT.
    ///   - seed: for the initial values.
    /// - Throws: ``PEFTError`` if the plan doesn't fit the model, which is then unchanged.
    public init(_ choice: MethodChoice, on model: any LanguageModel, name: String = "default", seed: UInt64 = 0)
        throws
    {
        let outline = ModelOutline(model)
        (self.choice, self.model, self.name) = (choice.resolved(for: outline), model, name)
        let plan = try choice.plan(for: outline)
        let modules = Dictionary(model.namedModules().map { ($0.path, $0.module) }, uniquingKeysWith: { $1 })
        let parameters = Dictionary(model.parameters().map { ($0.path, $0.parameter) }, uniquingKeysWith: { $1 })
        var random = SeededRandom(seed: seed, stream: 0xADA9)
        try withTorchErrors {
            for attachment in plan {
                switch attachment {
                case .linear(let path, _, let make):
                    guard let linear = modules[path] as? Linear else { continue }
                    let adapter = try make(linear, &random)
                    linears.append((linear, adapter))
                    added += adapter.keyedParameters.map { ("\(path).\($0.key)", $0.parameter) }
                case .train(let path):
                    if let parameter = parameters[path] { trained.append((path, parameter)) }
                }
            }
        }
        model.freeze()
        activate()
        setTrainable(true)
    }

    /// All that training changes.
    public var parameters: [Parameter] { added.map(\.parameter) + trained.map(\.parameter) }
    public var trainableCount: Int { parameters.reduce(0) { $0 + $1.tensor.count } }
    public var addedCount: Int { added.reduce(0) { $0 + $1.parameter.tensor.count } }

    /// Whether gradients are computed for the adapter's tensors.
    public func setTrainable(_ value: Bool) {
        for parameter in parameters { parameter.tensor.requiresGrad = value }
    }

    /// Puts the adapter over its projections; the last to be activated goes on top.
    public func activate() {
        guard !isActive else { return }
        for (linear, adapter) in linears { linear.adapters.append(adapter) }
        isActive = true
    }

    /// Takes it off; the model is as it was.
    public func deactivate() throws {
        if isMerged { try unmerge() }
        guard isActive else { return }
        for (linear, adapter) in linears { linear.adapters.removeAll { $0 === adapter } }
        isActive = false
    }

    /// Works the update into the weights, so that nothing is computed beside them.
    /// - Throws: ``PEFTError`` if another adapter lies beneath: merge order is forward order.
    public func merge() throws {
        guard !isMerged, isActive else { return }
        for (linear, adapter) in linears where linear.adapters.first !== adapter {
            throw PEFTError("adapter '\(name)' lies over another one", remedy: "merge the lower one first")
        }
        try withTorchErrors {
            try withoutGradients {
                let merged = try linears.map { linear, adapter in
                    // Rounded once, to the weight's own type.
                    let dense = linear.weight.dense(as: .float64)
                    return try linear.weight.replacing(with: adapter.merged(into: dense))
                }
                for ((linear, adapter), weight) in zip(linears, merged) {
                    unmerged.append((linear, linear.weight, weight))
                    linear.weight = weight
                    linear.adapters.removeAll { $0 === adapter }
                }
            }
        }
    }

    /// Undoes ``merge()``, bit for bit.
    /// - Throws: ``PEFTError`` if another adapter was merged since, which has to be undone first.
    public func unmerge() throws {
        guard isMerged else { return }
        for (linear, _, merged) in unmerged {
            guard linear.weight.parameters.first?.parameter === merged.parameters.first?.parameter else {
                throw PEFTError("another adapter was merged after '\(name)'", remedy: "unmerge the last one first")
            }
        }
        for (linear, weight, _) in unmerged { linear.weight = weight }
        unmerged = []
        for (linear, adapter) in linears { linear.adapters.insert(adapter, at: 0) }
    }
}
