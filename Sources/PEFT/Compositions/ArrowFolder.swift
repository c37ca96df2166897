import Foundation
import LanguageModels
import PEFTSupport
import Torch

/// LoRA adapters with Arrow's routing: folders of Hugging Face PEFT, and new ones.
///
/// Hugging Face PEFT saves `arrow_router`, which holds the settings and an unused LoRA, beside a folder of each adapter (`task_0`, …,
/// and `gks_0`, … for general ones). Here all of them are one folder.
package enum ArrowFolder {
    /// The folder of the settings.
    static let router = "arrow_router"

    /// Whether this is the configuration of Hugging Face PEFT's router.
    static func isRouter(_ configuration: [String: JSON]) -> Bool {
        configuration["peft_type"] == "LORA" && configuration["arrow_config"]?.object != nil
    }

    /// Reads a router with the adapters beside it.
    static func read(_ url: URL, _ configuration: [String: JSON]) throws -> (
        configuration: [String: JSON], tensors: any TensorFile
    ) {
        var settings = ArrowRouting.Configuration()
        let file = url.appendingPathComponent(AdapterFiles.configuration).path
        do { try settings.read(settings: configuration["arrow_config"] ?? .null) } catch let error as PEFTError {
            throw PEFTError("\(file): 'arrow_config': \(error.problem)", remedy: error.remedy)
        }
        guard !settings.tasks.isEmpty else {
            throw PEFTError("\(file) names no adapters in 'arrow_config'", remedy: "save the whole model again")
        }
        let parent = url.deletingLastPathComponent()
        func folders(_ names: [String]) throws -> [(name: String, folder: AdapterFolder)] {
            try names.map { name in
                // A name is a folder beside the router, never a path.
                guard !name.isEmpty, !name.contains("/"), !name.hasPrefix(".") else {
                    throw PEFTError(
                        "\(file) names the adapter '\(name)'", remedy: "use a name without dots and slashes")
                }
                let folder = parent.appendingPathComponent(name)
                guard FileManager.default.fileExists(atPath: folder.path) else {
                    throw PEFTError(
                        "\(url.path) routes among adapters that its file doesn't hold, and \(parent.path) has no '\(name)'",
                        remedy: "download the folders of all its adapters too")
                }
                return (name, try AdapterFolder(folder))
            }
        }
        var (result, tensors) = try joined(folders(settings.tasks), general: folders(settings.general), settings)
        result["base_model_name_or_path"] = configuration["base_model_name_or_path"]
        return (result, try JoinedTensorFile(tensors, url: url))
    }

    /// Combines LoRA adapters.
    ///
    /// - Parameters:
    ///   - tasks: the adapters with different names.
    ///   - general: adapters whose mean is subtracted from each of them.
    ///   - topK: number of adapters that a token gets.
    ///   - temperature: of the softmax over them.
    ///   - seed: of the routing directions' power iteration.
    /// - Returns: `adapter_config.json`, with the first adapter's base, and the tensors.
    /// - Throws: ``PEFTError`` for adapters that are not plain LoRAs of one rank over the same projections.
    package static func combined(
        _ tasks: [(name: String, folder: AdapterFolder)], general: [(name: String, folder: AdapterFolder)], topK: Int,
        temperature: Double, seed: Int
    ) throws -> (configuration: [String: JSON], tensors: [String: Tensor]) {
        var settings = ArrowRouting.Configuration()
        (settings.topK, settings.temperature, settings.seed) = (topK, temperature, seed)
        let (configuration, files) = try joined(tasks, general: general, settings)
        return (
            configuration,
            try withTorchErrors {
                try files.reduce(into: [:]) { tensors, file in
                    for name in file.entries.keys { tensors[name] = try file.tensor(name) }
                }
            }
        )
    }

    private static func joined(
        _ tasks: [(name: String, folder: AdapterFolder)], general: [(name: String, folder: AdapterFolder)],
        _ given: ArrowRouting.Configuration
    ) throws -> (configuration: [String: JSON], tensors: [any TensorFile]) {
        var settings = given
        (settings.tasks, settings.general) = (tasks.map(\.name), general.map(\.name))
        let members = try (tasks + general).map { try Member($0.folder, named: $0.name) }
        guard let first = members.first else {
            throw PEFTError("the routing has no adapters", remedy: "name at least one LoRA adapter")
        }
        for member in members {
            guard member.rank == first.rank else {
                throw PEFTError(
                    "the adapters '\(first.name)' and '\(member.name)' have ranks \(first.rank) and \(member.rank)",
                    remedy: "route among adapters of one rank")
            }
            guard member.paths == first.paths else {
                let other = member.paths.symmetricDifference(first.paths).sorted()[0]
                throw PEFTError(
                    "one of the adapters '\(first.name)' and '\(member.name)' alone adapts '\(other)'",
                    remedy: "route among adapters over the same projections")
            }
            settings.scales[member.name] = member.scale
        }
        settings.rank = first.rank
        settings.targets = first.paths.sorted()
        try settings.validate()
        var configuration = settings.json
        configuration["peft_type"] = .string(ArrowRouting.peftType ?? "ARROW")
        for key in ["base_model_name_or_path", "task_type"] {
            configuration[key] = tasks[0].folder.configuration[key]
        }
        configuration["inference_mode"] = true
        return (configuration, members.map(\.tensors))
    }

    /// One of the adapters.
    private struct Member {
        let name: String
        let rank: Int
        let scale: Double
        /// The projections that it adapts.
        let paths: Set<String>
        /// Its tensors, with its name in theirs.
        let tensors: any TensorFile

        init(_ folder: AdapterFolder, named name: String) throws {
            self.name = name
            let place = folder.url.path
            guard let lora = folder.choice.configuration as? LoRA.Configuration, lora.variants.isPlain,
                lora.rankPattern.isEmpty, lora.alphaPattern.isEmpty
            else {
                throw PEFTError(
                    "\(place) is \(folder.choice.label), but Arrow routes among plain LoRA adapters of one rank and scale",
                    remedy: "leave it out")
            }
            let branch = try LoRA.branch(lora, at: "")
            (rank, scale) = (branch.rank, branch.scale)
            var (paths, names): (Set<String>, [String: String]) = ([], [:])
            for key in folder.tensors.entries.keys {
                guard let end = [".lora_A.weight", ".lora_B.weight"].first(where: { key.hasSuffix($0) }) else {
                    throw PEFTError(
                        "\(place) contains '\(key)', which Arrow can't route",
                        remedy: "use LoRAs over projections alone")
                }
                let module = String(key.dropLast(end.count))
                paths.insert(
                    module.hasPrefix(AdapterKeys.prefix) ? String(module.dropFirst(AdapterKeys.prefix.count)) : module
                )
                names["\(module).\(name)\(end)"] = key
            }
            self.paths = paths
            tensors = RenamedTensorFile(folder.tensors, names)
        }
    }
}
