import Foundation
import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Compositions of AdapterHub's program, as `save_adapter_setup` writes them: `adapter_setup.json` beside a folder of each adapter and of
/// each fusion.
enum AdapterHubComposition {
    static let fusionSettings = "adapter_fusion_config.json"
    static let fusionTensors = "model_adapter_fusion.safetensors"
    private static let fusionPickle = "pytorch_model_adapter_fusion.bin"

    // MARK: Reading

    /// The configuration and the tensors of a stack or a fusion of bottleneck adapters.
    static func read(_ folder: URL, on model: any LanguageModel) throws -> (
        configuration: [String: JSON], tensors: [String: Tensor]
    ) {
        let file = folder.appendingPathComponent(AdapterHubAdapter.setup)
        let setup = try JSON.read(file)["adapter_setup"] ?? .null
        var configuration = BottleneckComposition.Configuration()
        let levels = try levels(of: setup, file: file.path)
        var tensors: [String: Tensor] = [:]
        var fusions: [FusionConfiguration] = []
        for (index, names) in levels.enumerated() {
            configuration.levels.append(
                try names.map { name in
                    let source = try AdapterHubAdapter.source(subfolder(name, of: folder), on: model)
                    guard source.settings["architecture"]?.string == nil else {
                        throw PEFTError(
                            "\(source.file) is no bottleneck adapter, which compositions consist of",
                            remedy: "convert the folder of each adapter")
                    }
                    let (settings, own) = try source.bottlenecks()
                    for (key, tensor) in own {
                        guard
                            let site = ModelOutline(model).outputs.first(where: {
                                key.hasPrefix("\(AdapterKeys.prefix)\($0.path).")
                            })
                        else { continue }
                        let place = "\(AdapterKeys.prefix)\(site.path)."
                        tensors["\(place)\(name).\(key.dropFirst(place.count))"] = tensor
                    }
                    return BottleneckComposition.Member(name: name, settings: settings)
                })
            guard names.count > 1 else { continue }
            let fusion = try self.fusion(
                names.joined(separator: ","), of: folder, level: index, on: model, &tensors)
            fusions.append(fusion)
        }
        if let first = fusions.first {
            guard fusions.allSatisfy({ $0.json == first.json }) else {
                throw PEFTError("\(file.path) has fusions of different settings, which can't be converted")
            }
            configuration.fusion = first
        }
        do { try configuration.validate() } catch let error as PEFTError {
            throw PEFTError("\(file.path): \(error.problem)", remedy: error.remedy)
        }
        var json = configuration.json
        json["peft_type"] = .string(BottleneckComposition.peftType ?? "")
        return (json, tensors)
    }

    /// The names of the adapters of each level.
    private static func levels(of setup: JSON, file: String) throws -> [[String]] {
        func names(_ block: JSON) throws -> [String] {
            try (block["children"]?.array ?? []).map { child in
                guard child["type"] == "single", let name = child["children"]?.array?.first?.string else {
                    throw PEFTError(
                        "\(file) has a '\(child["type"]?.string ?? "")' within a '\(block["type"]?.string ?? "")', which can't be converted",
                        remedy: "convert the folder of an adapter in it")
                }
                return name
            }
        }
        let result: [[String]]
        switch setup["type"]?.string {
        case "Fuse": result = [try names(setup)]
        case "Stack":
            result = try (setup["children"]?.array ?? []).map { child in
                switch child["type"]?.string {
                case "single": try names(["children": [child]])
                case "Fuse": try names(child)
                default: try names(setup)
                }
            }
        case let kind:
            throw PEFTError(
                "\(file) is a composition of adapters ('\(kind ?? "")') that can't be converted",
                remedy: "stacks and fusions are; convert the folder of an adapter in it")
        }
        guard !result.isEmpty, result.allSatisfy({ !$0.isEmpty }) else {
            throw PEFTError("\(file) names no adapters", remedy: "save the adapters again")
        }
        return result
    }

    /// A folder in a composition's, whose name is from a file.
    private static func subfolder(_ name: String, of folder: URL) throws -> URL {
        guard !name.isEmpty, !name.contains("/"), !name.hasPrefix(".") else {
            throw PEFTError(
                "\(folder.path) names the adapter '\(name)'", remedy: "use a name without dots and slashes")
        }
        let result = folder.appendingPathComponent(name)
        guard FileManager.default.fileExists(atPath: result.path) else {
            throw PEFTError("\(folder.path) lacks the folder '\(name)'", remedy: "download all of its folders")
        }
        return result
    }

    /// Reads a fusion's tensors into `tensors`.
    private static func fusion(
        _ name: String, of folder: URL, level: Int, on model: any LanguageModel, _ tensors: inout [String: Tensor]
    ) throws -> FusionConfiguration {
        let folder = try subfolder(name, of: folder)
        let file = folder.appendingPathComponent(fusionSettings)
        guard var settings = try JSON.read(file)["config"]?.object else {
            throw PEFTError("\(file.path) has no 'config' object", remedy: "download the folder again")
        }
        guard settings.removeValue(forKey: "temperature")?.bool != true else {
            throw PEFTError(
                "\(file.path) has 'temperature': true, with which outputs depend on the number of forward passes before",
                remedy: "save it without the temperature")
        }
        // V is linear, so its place makes no difference.
        for key in ["value_before_softmax", "value_initialized"] { settings[key] = nil }
        if settings["dropout_prob"] ?? .null == .null {
            settings["dropout_prob"] = model.configuration["attention_probs_dropout_prob"] ?? 0
        }
        let known = Set(FusionConfiguration.fields.map(\.key))
        if let other = settings.keys.sorted().first(where: { !known.contains($0) }) {
            throw PEFTError("\(file.path) has '\(other)', which can't be converted")
        }
        let fusion = try FusionConfiguration(json: settings)
        let safe = folder.appendingPathComponent(fusionTensors)
        let weights: any TensorFile =
            FileManager.default.fileExists(atPath: safe.path)
            ? try SafetensorsFile(safe) : try TorchFile(folder.appendingPathComponent(fusionPickle))
        let source = AdapterHubFile(settings: [:], version: "", file: file.path, weights: weights, model: model)
        let outline = ModelOutline(model)
        let mark = ".adapter_fusion_layer.\(name)."
        for key in weights.entries.keys.sorted() {
            guard let range = key.range(of: mark) else {
                throw PEFTError("\(weights.url.path) contains '\(key)', which is not part of the fusion '\(name)'")
            }
            let (module, part) = (String(key[..<range.lowerBound]), String(key[range.upperBound...]))
            let site = try source.sublayer(module, in: outline)
            guard let spec = fusion.tensors(size: site.size).first(where: { $0.key == part }) else {
                throw PEFTError("\(weights.url.path) contains '\(part)' of \(module), which can't be converted")
            }
            tensors["\(AdapterKeys.prefix)\(site.path).fusion.\(level).\(part)"] = try source.part(
                part, of: [part: weights.tensor(key)], module, spec.shape)
        }
        return fusion
    }
}
