import Foundation
import LanguageModels
import PEFTSupport
import Torch

/// LoRA adapters in llama.cpp's GGUF format: for each weight `NAME.lora_a` `[r, in]` and `NAME.lora_b` `[out, r]`,
/// with one α for all modules: ΔW = α / r · B A.
package enum GGUFAdapter {
    /// Writes a LoRA adapter as GGUF.
    ///
    /// - Parameters:
    ///   - model: the base model, of which only the configuration is used.
    ///   - type: storage type: F32, F16 or BF16.
    /// - Throws: ``PEFTError`` that names what the format can't represent.
    package static func write(
        _ folder: AdapterFolder, on model: any LanguageModel, type: GGUFFormat = .f32, to url: URL,
        replacing: Bool = true
    ) throws {
        let names = try GGUFNames(of: model)
        guard let configuration = folder.choice.configuration as? LoRA.Configuration,
            configuration.variants.isPlain
        else {
            throw PEFTError(
                "\(folder.url.path) is \(folder.choice.label), but GGUF adapters support only plain LoRA",
                remedy: "merge it into its model with peft merge")
        }
        let outline = ModelOutline(model)
        let vocabulary = try StoredVocabulary(folder, on: model)
        let choice = folder.choice.resolved(for: outline)
        guard vocabulary.problem == nil, vocabulary.matrices(on: model) == nil,
            !choice.separatesOutputLayer(of: outline)
        else {
            throw PEFTError(
                "\(folder.url.path) replaces the base's embeddings or output layer, which a GGUF adapter can't store",
                remedy: "merge it into its model with peft merge, which can write GGUF too")
        }
        if let problem = try folder.match(choice.plan(for: outline), model: model, vocabulary: vocabulary.keys)
            .problems.first
        {
            throw problem.error(folder.url.path)
        }
        let alpha = configuration.alpha
        var contents: [GGUFFile.Content] = []
        // Exact copies of the base's matrices need not be stored.
        for (key, shape) in folder.tensorShapes
        where !key.hasSuffix(".base_layer.weight") && !vocabulary.keys.contains(key) {
            guard let (path, part) = part(of: key), let target = names.tensor(of: path + ".weight") else {
                throw PEFTError(
                    "\(folder.url.path) contains '\(key)', which a GGUF adapter can't store",
                    remedy: "merge it into its model with peft merge")
            }
            func read() throws -> Tensor { try folder.tensors.tensor(key).to(.float32) }
            switch part {
            case .a: contents.append(.init(target + ".lora_a", shape, type.type, make: read))
            case .embeddingA:
                // An embedding is looked up by row, so llama.cpp expects its factors transposed.
                contents.append(
                    .init(target + ".lora_a", shape.reversed(), type.type) { try read().T.contiguous() })
            case .b, .embeddingB:
                // llama.cpp scales by α / r; fold any other scale into B.
                let branch = try LoRA.branch(configuration, at: path)
                let factor = branch.scale * Double(branch.rank) / alpha
                contents.append(
                    .init(target + ".lora_b", shape, type.type) {
                        let b = try part == .b ? names.stored(read(), at: path + ".weight") : read()
                        return abs(factor - 1) < 1e-12 ? b : b * factor
                    })
            }
        }
        guard !contents.isEmpty else {
            throw PEFTError("\(folder.url.path) contains no tensors", remedy: "download the folder again")
        }
        try GGUFFile.write(
            [
                ("general.architecture", .string(names.name)), ("general.type", .string("adapter")),
                ("general.name", .string(folder.url.lastPathComponent)),
                ("general.file_type", .integer(type.number)), ("adapter.type", .string("lora")),
                ("adapter.lora.alpha", .number(Float(alpha))),
            ], contents.sorted { $0.name < $1.name }, to: url, replacing: replacing)
    }

    private enum Part: String, CaseIterable {
        case a = "lora_A.weight"
        case b = "lora_B.weight"
        case embeddingA = "lora_embedding_A"
        case embeddingB = "lora_embedding_B"
    }

    /// The module path and the factor (A or B) of a LoRA tensor name.
    private static func part(of key: String) -> (path: String, part: Part)? {
        guard key.hasPrefix(AdapterKeys.prefix) else { return nil }
        let rest = key.dropFirst(AdapterKeys.prefix.count)
        guard let part = Part.allCases.first(where: { rest.hasSuffix("." + $0.rawValue) }) else { return nil }
        return (String(rest.dropLast(part.rawValue.count + 1)), part)
    }

    /// Reads a GGUF adapter and converts it to Hugging Face's layout.
    ///
    /// - Parameter model: the base model, of which only the configuration is used.
    /// - Returns: `adapter_config.json` without the base's name, and the tensors.
    /// - Throws: ``PEFTError`` if the file isn't a LoRA adapter for this model.
    package static func read(_ url: URL, on model: any LanguageModel) throws -> (
        configuration: [String: JSON], tensors: [String: Tensor]
    ) {
        let file = try GGUFFile(url)
        guard file.settings["general.type"]?.string == "adapter", file.settings["adapter.type"]?.string == "lora"
        else {
            throw PEFTError(
                "\(url.path) is not a LoRA adapter (see 'general.type' and 'adapter.type')",
                remedy: "pass a GGUF model to --model instead")
        }
        let names = try GGUFNames(of: model)
        let architecture = file.settings["general.architecture"]?.string ?? ""
        guard architecture == names.name else {
            throw PEFTError(
                "\(url.path) is for the architecture '\(architecture)', but the model's is '\(names.name)'",
                remedy: "use the base model that the adapter was trained on")
        }
        guard let alpha = file.settings["adapter.lora.alpha"]?.number, alpha >= 0, alpha.isFinite else {
            throw PEFTError(
                "\(url.path) has no 'adapter.lora.alpha'", remedy: "the file is damaged; download it again")
        }
        var ranks: [String: Int] = [:]
        var tensors: [String: Tensor] = [:]
        for name in file.entries.keys.sorted() {
            guard let stem = [".lora_a", ".lora_b"].first(where: { name.hasSuffix($0) }),
                let weight = names.path(of: String(name.dropLast(stem.count))), weight.hasSuffix(".weight"),
                let shape = file.entries[name]?.shape, shape.count == 2
            else {
                throw PEFTError(
                    "\(url.path) contains '\(name)', which is not a LoRA tensor of this model",
                    remedy: "use the base model that the adapter was trained on")
            }
            let path = String(weight.dropLast(".weight".count))
            let isTable = path == model.inputEmbedding
            let tensor = try withTorchErrors { () -> Tensor in
                let stored = try file.tensor(name).to(.float32)
                if stem == ".lora_a" { return isTable ? stored.T.contiguous() : stored }
                return try isTable ? stored : names.own(stored, at: weight)
            }
            let isA = stem == ".lora_a"
            let part: Part = isTable ? (isA ? .embeddingA : .embeddingB) : isA ? .a : .b
            tensors["\(AdapterKeys.prefix)\(path).\(part.rawValue)"] = tensor
            if !isA { ranks[path] = tensor.dim(1) }
        }
        guard let rank = ranks.values.mostFrequent else {
            throw PEFTError("\(url.path) contains no tensors named lora_b", remedy: "download the file again")
        }
        // Without an α, llama.cpp doesn't scale.
        var configuration = LoRA.Configuration(
            rank: rank, alpha: alpha > 0 ? alpha : Double(rank), targets: ranks.keys.sorted())
        for (path, own) in ranks where own != rank {
            let pattern = NSRegularExpression.escapedPattern(for: path)
            configuration.rankPattern[pattern] = Double(own)
            if alpha == 0 { configuration.alphaPattern[pattern] = Double(own) }
        }
        var json = configuration.json
        json["peft_type"] = .string(LoRA.peftType ?? "LORA")
        json["task_type"] = .string(model.head.task.taskType)
        json["inference_mode"] = true
        return (json, tensors)
    }
}
