import Foundation
import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Adapters of AdapterHub's program `adapters`: `pytorch_adapter.bin` or `adapter.safetensors` with tensors named
/// `MODULE.loras.NAME.lora_A` or `MODULE.adapters.NAME.adapter_down.0.weight`, and its own `adapter_config.json`.
///
/// LoRA, (IA)³ and bottleneck adapters whose computation this package has are converted. Bottleneck adapters that read
/// the residual stream (`original_ln_before`, as Pfeiffer's there) compute something else, and are rejected by name.
package enum AdapterHubAdapter {
    private static let files = ["adapter.safetensors", "pytorch_adapter.bin"]

    private static func weights(in folder: URL) -> URL? {
        files.map { folder.appendingPathComponent($0) }.first { FileManager.default.fileExists(atPath: $0.path) }
    }

    /// Whether the folder is an adapter of AdapterHub.
    package static func isOne(_ folder: URL) -> Bool { weights(in: folder) != nil }

    /// Reads an adapter and converts it to Hugging Face's layout.
    ///
    /// - Parameter model: the base model, of which only the configuration and a trained head are used.
    /// - Returns: `adapter_config.json` without the base's name, and the tensors.
    /// - Throws: ``PEFTError`` that names what can't be converted.
    package static func read(_ folder: URL, on model: any LanguageModel) throws -> (
        configuration: [String: JSON], tensors: [String: Tensor]
    ) {
        let file = folder.appendingPathComponent(AdapterFiles.configuration)
        guard let json = try JSON.read(file).object, let settings = json["config"]?.object,
            let url = weights(in: folder)
        else {
            throw PEFTError("\(file.path) has no 'config' object", remedy: "download the folder again")
        }
        let weights: any TensorFile =
            url.pathExtension == "safetensors" ? try SafetensorsFile(url) : try TorchFile(url)
        let source = Source(settings: settings, file: file.path, weights: weights, model: model)
        var (configuration, tensors) =
            switch settings["architecture"]?.string {
            case "lora": try settings["composition_mode"] == "scale" ? source.scales() : source.lora()
            case nil: try source.bottlenecks()
            case let other?:
                throw PEFTError(
                    "\(file.path) has the architecture '\(other)', which can't be converted",
                    remedy: "supported are LoRA, (IA)³ and bottleneck adapters")
            }
        configuration["task_type"] = .string(model.head.task.taskType)
        configuration["inference_mode"] = true
        // Hugging Face's adapters contain the head; AdapterHub's act beneath the base's own.
        for parameter in model.parameters()
        where model.newModules.contains(where: { parameter.path.hasPrefix($0 + ".") }) {
            tensors[AdapterKeys.prefix + parameter.path] = parameter.parameter.tensor.detached()
        }
        return (configuration, tensors)
    }
}

/// An adapter's settings and tensors.
private struct Source {
    let settings: [String: JSON]
    let file: String
    let weights: any TensorFile
    let model: any LanguageModel

    /// Checks that settings have values that change nothing.
    private func require(_ neutral: [String: [JSON]]) throws {
        for (key, values) in neutral.sorted(by: { $0.key < $1.key }) {
            guard let value = settings[key], value != .null, !values.contains(value) else { continue }
            throw PEFTError(
                "\(file) has '\(key)': \(value.text(indent: nil)), which can't be converted",
                remedy: "it must be \(values.map { $0.text(indent: nil) }.joined(separator: " or "))")
        }
    }

    /// The tensors of modules `MODULE.KIND.NAME.PART` by module and part.
    private func parts(_ kind: String) throws -> [String: [String: Tensor]] {
        var result: [String: [String: Tensor]] = [:]
        for name in weights.entries.keys.sorted() {
            guard let range = name.range(of: ".\(kind).") else {
                throw PEFTError(
                    "\(weights.url.path) contains '\(name)', which is not part of \(kind) of a module",
                    remedy: "save the adapter without its invertible part and its fusion")
            }
            let rest = name[range.upperBound...]
            guard let dot = rest.firstIndex(of: ".") else {
                throw PEFTError("\(weights.url.path) contains '\(name)', which names no part of an adapter")
            }
            result[String(name[..<range.lowerBound]), default: [:]][String(rest[dot...].dropFirst())] =
                try weights.tensor(name)
        }
        guard !result.isEmpty else {
            throw PEFTError("\(weights.url.path) contains no tensors", remedy: "download the folder again")
        }
        return result
    }

    /// A projection of the model by its name in the file.
    private func projection(_ module: String, in outline: ModelOutline) throws -> ModelOutline.LinearSite {
        let path = String(model.canonicalName(module + ".weight").dropLast(".weight".count))
        guard let site = outline.linears.first(where: { $0.path == path }) else {
            throw PEFTError(
                "\(weights.url.path) adapts '\(module)', which is not a projection of this \(model.family) model",
                remedy: "use the base model that the adapter was trained on")
        }
        return site
    }

    private func part(_ name: String, of parts: [String: Tensor], _ module: String, _ shape: [Int?]) throws -> Tensor
    {
        guard let tensor = parts[name] else {
            throw PEFTError("\(weights.url.path) lacks '\(name)' of \(module)", remedy: "download the folder again")
        }
        guard tensor.shape.count == shape.count, zip(tensor.shape, shape).allSatisfy({ $1 == nil || $0 == $1 }) else {
            let wanted = shape.map { $0.map(String.init) ?? "r" }.joined(separator: ", ")
            throw PEFTError(
                "'\(name)' of \(module) has shape \(tensor.shape), expected [\(wanted)]",
                remedy: "use the base model that the adapter was trained on")
        }
        return tensor
    }

    private func only(_ names: Set<String>, in parts: [String: Tensor], _ module: String) throws {
        guard let other = parts.keys.sorted().first(where: { !names.contains($0) }) else { return }
        throw PEFTError("\(weights.url.path) contains '\(other)' of \(module), which can't be converted")
    }

    // MARK: Methods

    func lora() throws -> ([String: JSON], [String: Tensor]) {
        try require([
            "use_gating": [false], "use_dora": [false], "vera_d": [], "vera_b": [], "composition_mode": ["add"],
        ])
        guard let rank = settings["r"]?.int, rank > 0, let alpha = settings["alpha"]?.double, alpha > 0,
            alpha.isFinite
        else { throw PEFTError("\(file) has no positive 'r' and 'alpha'", remedy: "download the file again") }
        let outline = ModelOutline(model)
        var (paths, tensors): ([String], [String: Tensor]) = ([], [:])
        for (module, parts) in try parts("loras") {
            let site = try projection(module, in: outline)
            try only(["lora_A", "lora_B"], in: parts, module)
            paths.append(site.path)
            let key = AdapterKeys.prefix + site.path
            tensors[key + ".lora_A.weight"] = try part("lora_A", of: parts, module, [rank, site.inputs])
            tensors[key + ".lora_B.weight"] = try part("lora_B", of: parts, module, [site.outputs, rank])
        }
        let configuration = LoRA.Configuration(
            rank: rank, alpha: alpha, dropout: settings["dropout"]?.double ?? 0,
            targets: ExactTargets.names(of: paths, in: outline))
        var json = configuration.json
        json["peft_type"] = .string(LoRA.peftType ?? "LORA")
        return (json, tensors)
    }

    func scales() throws -> ([String: JSON], [String: Tensor]) {
        try require([
            "use_gating": [false], "use_dora": [false], "r": [1], "dropout": [0], "vera_d": [], "vera_b": [],
        ])
        let alpha = settings["alpha"]?.double ?? 1
        let outline = ModelOutline(model)
        var (paths, tensors): ([String], [String: Tensor]) = ([], [:])
        for (module, parts) in try parts("loras") {
            let site = try projection(module, in: outline)
            try only(["lora_B"], in: parts, module)
            paths.append(site.path)
            let vector = try part("lora_B", of: parts, module, [site.outputs, 1])
            tensors[AdapterKeys.prefix + site.path + ".ia3_l"] = try withTorchErrors { vector * alpha }
        }
        var configuration = IA3.Configuration()
        configuration.selection = TargetSelection(targets: ExactTargets.names(of: paths, in: outline))
        var json = configuration.json
        json["peft_type"] = .string(IA3.peftType ?? "IA3")
        // All of them scale outputs.
        json["feedforward_modules"] = []
        return (json, tensors)
    }

    func bottlenecks() throws -> ([String: JSON], [String: Tensor]) {
        try require([
            "original_ln_before": [false], "original_ln_after": [true], "residual_before_ln": [true],
            "adapter_residual_before_ln": [false], "ln_before": [false], "ln_after": [false], "use_gating": [false],
            "phm_layer": [false], "inv_adapter": [], "stochastic_depth": [0],
        ])
        guard let scale = settings["scaling"]?.double else {
            throw PEFTError("\(file) has no number as 'scaling'", remedy: "learned scales can't be converted")
        }
        let isParallel = settings["is_parallel"] == true
        guard !isParallel || ["bert", "roberta", "xlm-roberta", "distilbert"].contains(model.family) else {
            throw PEFTError(
                "\(file) has parallel adapters, which read the residual stream before its norm there",
                remedy: "they can be converted for BERT and its relatives, whose sublayers read the stream itself")
        }
        let names = ["swish": "silu", "relu": "relu", "gelu": "gelu", "silu": "silu", "gelu_new": "gelu_new"]
        let given = settings["non_linearity"]?.string ?? ""
        guard let activation = names[given] else {
            throw PEFTError(
                "\(file) has the activation '\(given)', which is not supported",
                remedy: "use one of \(names.keys.sorted().joined(separator: ", "))")
        }
        let outline = ModelOutline(model)
        var (kinds, ranks, tensors): (Set<SublayerKind>, Set<Int>, [String: Tensor]) = ([], [], [:])
        for (module, parts) in try parts("adapters") {
            let site = try sublayer(module, in: outline)
            try only(
                ["adapter_down.0.weight", "adapter_down.0.bias", "adapter_up.weight", "adapter_up.bias"], in: parts,
                module)
            let down = try part("adapter_down.0.weight", of: parts, module, [nil, site.size])
            let rank = down.dim(0)
            kinds.insert(site.kind)
            ranks.insert(rank)
            let key = AdapterKeys.prefix + site.path
            tensors[key + ".down.weight"] = down
            tensors[key + ".down.bias"] = try part("adapter_down.0.bias", of: parts, module, [rank])
            tensors[key + ".up.weight"] = try part("adapter_up.weight", of: parts, module, [site.size, rank])
            tensors[key + ".up.bias"] = try part("adapter_up.bias", of: parts, module, [site.size])
        }
        guard let rank = ranks.first, ranks.count == 1 else {
            throw PEFTError(
                "\(file) has adapters of sizes \(ranks.sorted()), which can't be converted",
                remedy: "all layers must have one size")
        }
        let missing = outline.outputs.first {
            kinds.contains($0.kind) && tensors[AdapterKeys.prefix + $0.path + ".up.bias"] == nil
        }
        if let missing {
            throw PEFTError(
                "\(weights.url.path) has no adapter at \(missing.path), while other layers have one there",
                remedy: "all layers must have the same adapters")
        }
        var configuration = BottleneckConfiguration()
        (configuration.rank, configuration.activation, configuration.scale) = (rank, activation, scale)
        configuration.isParallel = isParallel
        configuration.sublayers = SublayerKind.allCases.filter { kinds.contains($0) }
        var json = configuration.json
        json["peft_type"] = "BOTTLENECK"
        return (json, tensors)
    }

    /// The sublayer that an adapter of a module follows: by the module's name there (BERT, Llama, GPT-2), or by its place
    /// among the sublayers of a block (T5).
    private func sublayer(_ module: String, in outline: ModelOutline) throws -> ModelOutline.SublayerSite {
        let unknown = PEFTError(
            "\(weights.url.path) has an adapter at '\(module)', which is no sublayer of this \(model.family) model",
            remedy: "use the base model that the adapter was trained on")
        // One that is followed by `output_site` has the same name as the adapter's module.
        if let site = outline.outputs.first(where: { $0.path == module + ".output_site" }) { return site }
        let ends: [(String, SublayerKind)] = [
            (".attention.output", .attention), (".attention_adapters", .attention),
            (".output_adapters", .feedForward),
            (".output", .feedForward),
        ]
        guard let (end, kind) = ends.first(where: { module.hasSuffix($0.0) }) else { throw unknown }
        let block = module.dropLast(end.count) + "."
        guard let site = outline.outputs.first(where: { $0.kind == kind && $0.path.hasPrefix(block) }) else {
            throw unknown
        }
        return site
    }
}
