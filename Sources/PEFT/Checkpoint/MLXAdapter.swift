import Foundation
import LanguageModels
import PEFTSupport
import Torch

/// LoRA adapters of Apple's mlx-lm: `adapters.safetensors` with transposed factors `NAME.lora_a` `[in, r]` and
/// `NAME.lora_b` `[r, out]` and DoRA magnitudes `NAME.m`, and mlx-lm's own `adapter_config.json`.
package enum MLXAdapter {
    /// Reads an mlx-lm adapter and converts it to Hugging Face's layout.
    ///
    /// - Parameter model: the base model, of which only the configuration is used.
    /// - Returns: `adapter_config.json` without the base's name, and the tensors.
    /// - Throws: ``PEFTError`` that names what isn't a LoRA of this model.
    package static func read(_ folder: URL, on model: any LanguageModel) throws -> (
        configuration: [String: JSON], tensors: [String: Tensor]
    ) {
        let file = folder.appendingPathComponent(AdapterFiles.configuration)
        guard let settings = try JSON.read(file).object else {
            throw PEFTError("\(file.path) is not a JSON object", remedy: "download the file again")
        }
        let kind = settings["fine_tune_type"]?.string ?? (settings["use_dora"] == true ? "dora" : "lora")
        guard ["lora", "dora"].contains(kind) else {
            throw PEFTError(
                "\(file.path) has 'fine_tune_type' '\(kind)', which trains the weights themselves",
                remedy: "fuse it into the model with mlx_lm.fuse")
        }
        let parameters = settings["lora_parameters"] ?? .object(settings)
        // Earlier versions also stored alpha, but multiplied by the scale.
        guard let scale = parameters["scale"]?.double, scale > 0, scale.isFinite else {
            throw PEFTError(
                "\(file.path) has no positive 'scale' in 'lora_parameters'",
                remedy: "add the scale of the LoRA branch")
        }
        let weights = try SafetensorsFile(folder.appendingPathComponent(AdapterFiles.mlx))
        let outline = ModelOutline(model)
        var (ranks, tensors): ([String: Int], [String: Tensor]) = ([:], [:])
        for name in weights.entries.keys.sorted() {
            let canonical = model.canonicalName(AdapterNames.unwrapped(name))
            let dot = canonical.lastIndex(of: ".") ?? canonical.startIndex
            let (path, part) = (String(canonical[..<dot]), String(canonical[dot...].dropFirst()))
            let isTable = outline.embeddings.contains { $0.path == path }
            guard ["lora_a", "lora_b", "m"].contains(part),
                isTable || outline.linears.contains(where: { $0.path == path })
            else {
                throw PEFTError(
                    "\(weights.url.path) contains '\(name)', which is not a LoRA tensor of this \(model.family) model",
                    remedy: "use the base model that the adapter was trained on")
            }
            guard part != "m" || !isTable && kind == "dora" else {
                throw PEFTError(
                    "\(weights.url.path) contains '\(name)'\(isTable ? ", DoRA magnitudes of an embedding, which are not supported" : ", but 'fine_tune_type' is \(kind)")",
                    remedy: "fuse the adapter into the model with mlx_lm.fuse")
            }
            let stored = try weights.tensor(name)
            guard stored.rank == (part == "m" ? 1 : 2) else {
                throw PEFTError(
                    "'\(name)' has shape \(stored.shape), expected a matrix", remedy: "download the file again")
            }
            let key = "\(AdapterKeys.prefix)\(path)."
            try withTorchErrors {
                let transposed = part == "m" ? stored : stored.T.contiguous()
                switch part {
                case "lora_a":
                    ranks[path] = stored.dim(1)
                    // `[entries, r]` of an embedding and `[in, r]` of a projection are both transposed.
                    tensors[key + (isTable ? "lora_embedding_A" : "lora_A.weight")] = transposed
                case "lora_b": tensors[key + (isTable ? "lora_embedding_B" : "lora_B.weight")] = transposed
                default: tensors[key + "lora_magnitude_vector"] = stored
                }
            }
        }
        guard let rank = ranks.values.mostFrequent else {
            throw PEFTError("\(weights.url.path) contains no tensors named lora_a", remedy: "download the file again")
        }
        var configuration = LoRA.Configuration(
            rank: rank, alpha: scale * Double(rank), dropout: parameters["dropout"]?.double ?? 0,
            targets: ExactTargets.names(of: ranks.keys, in: outline))
        configuration.variants[DoRA.self].isEnabled = kind == "dora"
        // A tied output layer uses the embedding's LoRA branch.
        configuration.extras.tiesEmbeddings = outline.isTied && ranks[outline.inputEmbedding] != nil
        for (path, own) in ranks where own != rank {
            let pattern = NSRegularExpression.escapedPattern(for: path)
            configuration.rankPattern[pattern] = Double(own)
            configuration.alphaPattern[pattern] = scale * Double(own)
        }
        var json = configuration.json
        json["peft_type"] = .string(LoRA.peftType ?? "LORA")
        json["task_type"] = .string(model.head.task.taskType)
        json["inference_mode"] = true
        if configuration.extras.tiesEmbeddings {
            let (from, to) = (AdapterKeys.prefix + outline.inputEmbedding, AdapterKeys.prefix + outline.outputLayer)
            for (a, b) in [("lora_embedding_B", "lora_A.weight"), ("lora_embedding_A", "lora_B.weight")] {
                tensors["\(to).\(b)"] = tensors["\(from).\(a)"]?.T.contiguous()
            }
        }
        return (json, tensors)
    }
}
