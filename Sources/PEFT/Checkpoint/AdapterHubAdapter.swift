import Foundation
import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Adapters of AdapterHub's program `adapters`: `pytorch_adapter.bin` or `adapter.safetensors` with tensors named
/// `MODULE.loras.NAME.lora_A` or `MODULE.adapters.NAME.adapter_down.0.weight`, and its own `adapter_config.json`.
///
/// LoRA, (IA)³, bottleneck adapters, their stacks and fusions (``AdapterHubComposition``), and prefixes whose computation this package
/// has are converted; others are rejected by name.
package enum AdapterHubAdapter {
    /// The file with an adapter's tensors, if they aren't pickled.
    package static let safetensors = "adapter.safetensors"
    /// The file of a composition of adapters, which are in subfolders.
    static let setup = "adapter_setup.json"

    private static func weights(in folder: URL) -> URL? {
        [safetensors, "pytorch_adapter.bin"].map { folder.appendingPathComponent($0) }.first {
            FileManager.default.fileExists(atPath: $0.path)
        }
    }

    /// Whether the folder is an adapter of AdapterHub.
    package static func isOne(_ folder: URL) -> Bool {
        weights(in: folder) != nil
            || FileManager.default.fileExists(atPath: folder.appendingPathComponent(setup).path)
    }

    /// Reads an adapter and converts it to Hugging Face's layout.
    ///
    /// - Parameter model: the base model, of which only the configuration and a trained head are used.
    /// - Returns: `adapter_config.json` without the base's name, and the tensors.
    /// - Throws: ``PEFTError`` that names what can't be converted.
    package static func read(_ folder: URL, on model: any LanguageModel) throws -> (
        configuration: [String: JSON], tensors: [String: Tensor]
    ) {
        var (configuration, tensors) =
            try weights(in: folder) == nil
            ? AdapterHubComposition.read(folder, on: model) : source(folder, on: model).converted()
        configuration["task_type"] = .string(model.head.task.taskType)
        configuration["inference_mode"] = true
        // Hugging Face's adapters contain the head; AdapterHub's act beneath the base's own.
        for parameter in model.parameters()
        where model.newModules.contains(where: { parameter.path.hasPrefix($0 + ".") }) {
            tensors[AdapterKeys.prefix + parameter.path] = parameter.parameter.tensor.detached()
        }
        return (configuration, tensors)
    }

    /// The adapter in a folder.
    static func source(_ folder: URL, on model: any LanguageModel) throws -> AdapterHubFile {
        let file = folder.appendingPathComponent(AdapterFiles.configuration)
        guard let json = try JSON.read(file).object, let settings = json["config"]?.object,
            let url = weights(in: folder)
        else {
            throw PEFTError("\(file.path) has no 'config' object", remedy: "download the folder again")
        }
        return AdapterHubFile(
            settings: settings, version: json["version"]?.string ?? "", file: file.path,
            weights: try url.pathExtension == "safetensors" ? SafetensorsFile(url) : TorchFile(url), model: model)
    }
}

/// An adapter's settings and tensors.
struct AdapterHubFile {
    let settings: [String: JSON]
    /// The program that wrote it, such as `adapters.1.3.0`.
    let version: String
    let file: String
    let weights: any TensorFile
    let model: any LanguageModel

    func converted() throws -> ([String: JSON], [String: Tensor]) {
        switch settings["architecture"]?.string {
        case "lora": return try settings["composition_mode"] == "scale" ? scales() : lora()
        case "prefix_tuning": return try prefix()
        case nil:
            let (configuration, tensors) = try bottlenecks()
            var json = configuration.json
            json["peft_type"] = "BOTTLENECK"
            return (json, tensors)
        case let other?:
            throw PEFTError(
                "\(file) has the architecture '\(other)', which can't be converted",
                remedy: "supported are LoRA, (IA)³, bottleneck adapters and prefix tuning")
        }
    }

    /// Checks that settings have values that change nothing.
    func require(_ neutral: [String: [JSON]]) throws {
        for (key, values) in neutral.sorted(by: { $0.key < $1.key }) {
            guard let value = settings[key], value != .null, !values.contains(value) else { continue }
            throw PEFTError(
                "\(file) has '\(key)': \(value.text(indent: nil)), which can't be converted",
                remedy: "it must be \(values.map { $0.text(indent: nil) }.joined(separator: " or "))")
        }
    }

    /// The tensors of modules `MODULE.KIND.NAME.PART` by module and part.
    /// - Parameter kinds: names of the same kind of part in all versions of the program.
    func parts(_ kinds: String...) throws -> [String: [String: Tensor]] {
        let kind = kinds[0]
        var result: [String: [String: Tensor]] = [:]
        for name in weights.entries.keys.sorted()
        where settings["phm_layer"] != true || !name.contains(".\(Self.shared).") {
            guard let range = kinds.lazy.compactMap({ name.range(of: ".\($0).") }).first else {
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

    func part(_ name: String, of parts: [String: Tensor], _ module: String, _ shape: [Int?]) throws -> Tensor {
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

    func only(_ names: Set<String>, in parts: [String: Tensor], _ module: String) throws {
        guard let other = parts.keys.sorted().first(where: { !names.contains($0) }) else { return }
        throw PEFTError("\(weights.url.path) contains '\(other)' of \(module), which can't be converted")
    }

    /// Whether an earlier version of `adapters` wrote the file.
    private func isBefore(_ major: Int, _ minor: Int) -> Bool {
        let parts = version.split(separator: ".").dropFirst().prefix(2).compactMap { Int($0) }
        return version.hasPrefix("adapters.") && parts.count == 2 && (parts[0], parts[1]) < (major, minor)
    }

    // MARK: Methods

    func lora() throws -> ([String: JSON], [String: Tensor]) {
        try require([
            "use_gating": [false], "use_dora": [false], "vera_d": [], "vera_b": [], "composition_mode": ["add"],
        ])
        guard let rank = settings["r"]?.int, rank > 0, let alpha = settings["alpha"]?.double, alpha > 0,
            alpha.isFinite
        else { throw PEFTError("\(file) has no positive 'r' and 'alpha'", remedy: "download the file again") }
        // Before version 1.1 the program divided α by itself instead of by r.
        let scaled = isBefore(1, 1) ? Double(rank) : alpha
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
            rank: rank, alpha: scaled, dropout: settings["dropout"]?.double ?? 0,
            targets: ExactTargets.names(of: paths, in: outline))
        var json = configuration.json
        json["peft_type"] = .string(LoRA.peftType ?? "LORA")
        return (json, tensors)
    }

    func scales() throws -> ([String: JSON], [String: Tensor]) {
        try require([
            "use_gating": [false], "use_dora": [false], "r": [1], "dropout": [0], "vera_d": [], "vera_b": [],
        ])
        let alpha = isBefore(1, 1) ? 1 : settings["alpha"]?.double ?? 1
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
}
