import Foundation
import LanguageModels
import PEFTSupport
import Torch

extension MLXAdapter {
    /// Converts a LoRA or DoRA adapter to mlx-lm's format.
    ///
    /// mlx-lm has one scale for all modules, so any other scale is folded into the factors B. It makes branches for the
    /// listed modules of all layers; those that the file lacks stay zero and have no effect.
    /// - Parameter model: the base model, of which only the configuration is used.
    /// - Returns: `adapter_config.json` without the base's name, and the tensors.
    /// - Throws: ``PEFTError`` that names what the format can't represent.
    package static func converted(_ folder: AdapterFolder, on model: any LanguageModel) throws -> (
        configuration: [String: JSON], tensors: [String: Tensor]
    ) {
        let remedy = "merge it into its model with peft merge, and convert the model with mlx_lm.convert"
        let configuration = folder.choice.configuration as? LoRA.Configuration
        var others = configuration?.variants
        others?[DoRA.self].isEnabled = false
        guard let configuration, others?.isPlain == true else {
            throw PEFTError(
                "\(folder.url.path) is \(folder.choice.label), but mlx-lm's adapters are LoRA or DoRA", remedy: remedy
            )
        }
        let outline = ModelOutline(model)
        let vocabulary = try StoredVocabulary(folder, on: model)
        let choice = folder.choice.resolved(for: outline)
        guard vocabulary.problem == nil, vocabulary.matrices(on: model) == nil,
            !choice.separatesOutputLayer(of: outline)
        else {
            throw PEFTError(
                "\(folder.url.path) replaces the base's embeddings or output layer, which mlx-lm's adapters can't store",
                remedy: remedy)
        }
        let (sources, problems) = try folder.match(
            choice.plan(for: outline), model: model, vocabulary: vocabulary.keys)
        if let problem = problems.first { throw problem.error(folder.url.path) }
        let isDoRA = configuration.variants[DoRA.self].isEnabled
        let branches = try branches(of: sources.keys.sorted(), folder, isDoRA, remedy)
        guard let first = branches.first else {
            throw PEFTError("\(folder.url.path) contains no tensors", remedy: "download the folder again")
        }
        let scale = try LoRA.branch(configuration, at: first.path).scale
        var (tensors, keys, ranks): ([String: Tensor], Set<String>, [Int]) = ([:], [], [])
        for branch in branches {
            let own = try LoRA.branch(configuration, at: branch.path)
            ranks.append(own.rank)
            keys.insert(try key(of: branch.path, outline, remedy))
            guard let source = sources[branch.key] else { continue }
            tensors["\(branch.path).\(branch.part.rawValue)"] = try withTorchErrors {
                let stored = try folder.tensors.tensor(source).to(.float32)
                if branch.part == .m { return stored }
                let factor = own.scale / scale
                // Both factors of projections and of embeddings are transposed.
                let transposed = stored.T.contiguous()
                return branch.part == .b && abs(factor - 1) > 1e-12 ? transposed * factor : transposed
            }
        }
        let lora: JSON = [
            "rank": .integer(ranks.max() ?? 0), "scale": .number(scale), "dropout": .number(configuration.dropout),
            "keys": .array(keys.sorted().map { .string($0) }),
        ]
        return (
            [
                "fine_tune_type": .string(isDoRA ? "dora" : "lora"), "num_layers": -1, "lora_parameters": lora,
            ], tensors
        )
    }

    /// A tensor's suffix in mlx-lm's files.
    private enum Part: String {
        case a = "lora_a"
        case b = "lora_b"
        case m
    }

    private static let parts: [(suffix: String, part: Part)] = [
        (".lora_A.weight", .a), (".lora_B.weight", .b), (".lora_embedding_A", .a), (".lora_embedding_B", .b),
        (".lora_magnitude_vector", .m),
    ]

    private static func branches(of keys: [String], _ folder: AdapterFolder, _ isDoRA: Bool, _ remedy: String) throws
        -> [(key: String, path: String, part: Part)]
    {
        try keys.map { key in
            guard key.hasPrefix(AdapterKeys.prefix), let found = parts.first(where: { key.hasSuffix($0.suffix) }),
                !(isDoRA && found.suffix.contains("embedding"))
            else {
                throw PEFTError(
                    "\(folder.url.path) contains '\(key)', which mlx-lm's adapters can't store", remedy: remedy)
            }
            return (key, String(key.dropFirst(AdapterKeys.prefix.count).dropLast(found.suffix.count)), found.part)
        }
    }

    /// A module's name in `keys`: within a layer, or that of a module outside of the layers.
    private static func key(of path: String, _ outline: ModelOutline, _ remedy: String) throws -> String {
        if path == outline.inputEmbedding || path == outline.outputLayer { return path }
        let parts = path.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count > 3, parts[0] == "model", parts[1] == "layers", Int(parts[2]) != nil else {
            throw PEFTError(
                "'\(path)' of this \(outline.family) model has another name in mlx-lm", remedy: remedy)
        }
        return parts.dropFirst(3).joined(separator: ".")
    }
}
