import LanguageModels
import PEFTSupport
import Torch
import TorchNN

extension AdapterHubAdapter {
    /// The version whose files are written.
    private static let version = "adapters.1.3.0"
    /// Families that AdapterHub's program adapts as this one does, with the names of what LoRA adapts there.
    private static let families: [String: [(suffix: String, place: String)]] = {
        typealias Places = [(suffix: String, place: String)]
        let bert: Places = [
            (".query", "q"), (".key", "k"), (".value", "v"), (".intermediate.dense", "intermediate_lora"),
            (".output.dense", "output_lora"),
        ]
        // The program's places of Llama's down and up are these.
        let llama: Places = [
            (".q_proj", "q"), (".k_proj", "k"), (".v_proj", "v"), (".down_proj", "intermediate_lora"),
            (".up_proj", "output_lora"),
        ]
        let distilbert: Places = [
            (".q_lin", "q"), (".k_lin", "k"), (".v_lin", "v"), (".lin1", "intermediate_lora"),
            (".lin2", "output_lora"),
        ]
        return [
            "bert": bert, "roberta": bert, "xlm-roberta": bert, "electra": bert, "distilbert": distilbert,
            "llama": llama,
            "mistral": llama, "gpt2": [], "t5": [], "mt5": [],
        ]
    }()

    /// Converts a LoRA or bottleneck adapter to AdapterHub's format.
    ///
    /// - Parameters:
    ///   - name: the adapter's name in the file.
    ///   - model: the base model, of which only the configuration is used.
    /// - Returns: `adapter_config.json` without the base's name, and the tensors. A trained head isn't among them.
    /// - Throws: ``PEFTError`` that names what the format can't represent.
    package static func converted(_ folder: AdapterFolder, named name: String, on model: any LanguageModel) throws
        -> (
            configuration: [String: JSON], tensors: [String: Tensor]
        )
    {
        let (stored, choice, places) = try stored(folder, named: name, on: model)
        let (settings, tensors) =
            switch choice.configuration {
            case let lora as LoRA.Configuration where lora.variants.isPlain: try stored.lora(lora, places)
            case let bottleneck as BottleneckConfiguration: try stored.bottlenecks(bottleneck)
            default:
                throw PEFTError(
                    "\(folder.url.path) is \(folder.choice.label), but only LoRA, bottleneck adapters and their compositions are written for AdapterHub",
                    remedy: "merge it into its model with peft merge")
            }
        return (stored.file("config", settings, named: name), tensors)
    }

    /// One folder of a composition in AdapterHub's format.
    package struct Part {
        /// The names of the folder and of its files.
        package let folder: String
        package let settingsFile: String
        package let tensorsFile: String
        /// The settings without the base's name.
        package let configuration: [String: JSON]
        package let tensors: [String: Tensor]
    }

    /// Converts a stack or a fusion of bottleneck adapters to AdapterHub's format.
    ///
    /// - Returns: `adapter_setup.json` and the folders beside it; `nil` if the folder is no composition.
    /// - Throws: ``PEFTError`` that names what the format can't represent.
    package static func convertedComposition(_ folder: AdapterFolder, on model: any LanguageModel) throws -> (
        setup: JSON, parts: [Part]
    )? {
        guard let composition = folder.choice.configuration as? BottleneckComposition.Configuration else {
            return nil
        }
        let (stored, _, _) = try stored(folder, named: "composition", on: model)
        var parts: [Part] = []
        func block(_ kind: String, _ names: [String]) -> JSON {
            ["type": .string(kind), "children": .array(names.map { ["type": "single", "children": [.string($0)]] })]
        }
        var levels: [JSON] = []
        for (index, level) in composition.levels.enumerated() {
            for member in level {
                let own = stored.part(named: member.name)
                let (settings, tensors) = try own.bottlenecks(member.settings)
                parts.append(
                    Part(
                        folder: member.name, settingsFile: AdapterFiles.configuration, tensorsFile: safetensors,
                        configuration: own.file("config", settings, named: member.name), tensors: tensors))
            }
            let names = level.map(\.name)
            guard names.count > 1 else {
                levels.append(["type": "single", "children": .array(names.map { .string($0) })])
                continue
            }
            let name = names.joined(separator: ",")
            var file = stored.file("config", composition.fusion.adapterHub, named: name)
            file["adapter_names"] = .array(names.map { .string($0) })
            parts.append(
                Part(
                    folder: name, settingsFile: AdapterHubComposition.fusionSettings,
                    tensorsFile: AdapterHubComposition.fusionTensors, configuration: file,
                    tensors: try stored.fusion(level: index, named: name)))
            levels.append(block("Fuse", names))
        }
        let isFusion = levels.count == 1 && composition.isFused
        return (
            [
                "adapter_setup": isFusion ? levels[0] : ["type": "Stack", "children": .array(levels)],
                "head_setup": .null, "version": .string(version),
            ], parts
        )
    }

    /// The tensors of an adapter that fit the model, with its method and the places of LoRA.
    private static func stored(_ folder: AdapterFolder, named name: String, on model: any LanguageModel) throws -> (
        Stored, MethodChoice, [(suffix: String, place: String)]
    ) {
        guard !name.isEmpty, !name.contains(".") else {
            throw PEFTError(
                "'\(name)' can't be an adapter's name in AdapterHub's files", remedy: "use a name without dots")
        }
        guard let places = families[model.family] else {
            throw PEFTError(
                "adapters of a \(model.family) model can't be converted for AdapterHub",
                remedy: "it has \(families.keys.sorted().joined(separator: ", "))")
        }
        let outline = ModelOutline(model)
        let vocabulary = try StoredVocabulary(folder, on: model)
        let choice = folder.choice.resolved(for: outline)
        guard vocabulary.problem == nil, vocabulary.matrices(on: model) == nil,
            !choice.separatesOutputLayer(of: outline)
        else {
            throw PEFTError(
                "\(folder.url.path) replaces the base's embeddings or output layer, which AdapterHub's adapters can't store",
                remedy: "merge it into its model with peft merge")
        }
        let (sources, problems) = try folder.match(
            choice.plan(for: outline), model: model, vocabulary: vocabulary.keys)
        if let problem = problems.first { throw problem.error(folder.url.path) }
        // A head is a file of its own there.
        let adapters = sources.filter { key, _ in
            !outline.newModules.contains { key.hasPrefix("\(AdapterKeys.prefix)\($0).") }
        }
        return (Stored(folder: folder, sources: adapters, name: name, outline: outline), choice, places)
    }

    /// A Hugging Face adapter that is converted.
    private struct Stored {
        let folder: AdapterFolder
        let sources: [String: String]
        let name: String
        let outline: ModelOutline

        /// One of the adapters of a composition.
        func part(named name: String) -> Stored {
            let own = sources.compactMap { key, source -> (String, String)? in
                let site = outline.outputs.first { key.hasPrefix("\(AdapterKeys.prefix)\($0.path).\(name).") }
                return site.map { site in
                    let place = "\(AdapterKeys.prefix)\(site.path)."
                    return (place + key.dropFirst(place.count + name.count + 1), source)
                }
            }
            return Stored(
                folder: folder, sources: Dictionary(own, uniquingKeysWith: { first, _ in first }), name: name,
                outline: outline)
        }

        /// A file of settings without the base's name.
        func file(_ key: String, _ settings: [String: JSON], named name: String) -> [String: JSON] {
            [
                key: .object(settings), "name": .string(name), "model_type": .string(outline.family),
                "hidden_size": .integer(outline.outputs.first?.size ?? 0), "version": .string(version),
            ]
        }

        /// The tensors of a composition's fusion.
        func fusion(level: Int, named name: String) throws -> [String: Tensor] {
            var tensors: [String: Tensor] = [:]
            for site in outline.outputs {
                let place = "\(AdapterKeys.prefix)\(site.path).fusion.\(level)."
                for key in sources.keys where key.hasPrefix(place) {
                    let part = key.dropFirst(place.count)
                    tensors["\(module(of: site)).adapter_fusion_layer.\(name).\(part)"] = try tensor(key)
                }
            }
            return tensors
        }

        private func tensor(_ key: String) throws -> Tensor {
            guard let source = sources[key] else {
                throw PEFTError(
                    "\(folder.url.path) lacks '\(key)'", remedy: "convert the adapter with peft convert first")
            }
            return try folder.tensors.tensor(source).to(.float32)
        }

        /// The module and the end of each tensor's name.
        private func split(_ ends: [String]) throws -> [(path: String, end: String, key: String)] {
            try sources.keys.sorted().map { key in
                let path = key.hasPrefix(AdapterKeys.prefix) ? String(key.dropFirst(AdapterKeys.prefix.count)) : key
                guard let end = ends.first(where: { path.hasSuffix($0) }) else {
                    throw PEFTError(
                        "\(folder.url.path) contains '\(key)', which AdapterHub's adapters can't store",
                        remedy: "merge it into its model with peft merge")
                }
                return (String(path.dropLast(end.count)), end, key)
            }
        }

        func lora(_ configuration: LoRA.Configuration, _ places: [(suffix: String, place: String)]) throws
            -> ([String: JSON], [String: Tensor])
        {
            var (tensors, used): ([String: Tensor], Set<String>) = ([:], [])
            for (path, end, key) in try split([".lora_A.weight", ".lora_B.weight"]) {
                let place = places.first { path.hasSuffix($0.suffix) && !path.hasSuffix("attention.output.dense") }
                guard let place else {
                    throw PEFTError(
                        "\(folder.url.path) adapts '\(path)', which AdapterHub's LoRA of a \(outline.family) model doesn't",
                        remedy: places.isEmpty
                            ? "convert a bottleneck adapter instead"
                            : "it adapts \(places.map { String($0.suffix.dropFirst()) }.joined(separator: ", "))")
                }
                let branch = try LoRA.branch(configuration, at: path)
                guard branch.rank == configuration.rank else {
                    throw PEFTError(
                        "\(folder.url.path) has ranks \(branch.rank) and \(configuration.rank), but AdapterHub's adapters have one",
                        remedy: "use an adapter without a rank pattern")
                }
                used.insert(place.place)
                let value = try tensor(key)
                let isA = end == ".lora_A.weight"
                // One α for all: any other scale is B's.
                let factor = branch.scale * Double(branch.rank) / configuration.alpha
                tensors["\(path).loras.\(name).lora_\(isA ? "A" : "B")"] = try withTorchErrors {
                    isA || abs(factor - 1) < 1e-12 ? value : value * factor
                }
            }
            let matrices = ["q", "k", "v"].filter(used.contains)
            return (
                [
                    "architecture": "lora", "r": .integer(configuration.rank), "alpha": .number(configuration.alpha),
                    "dropout": .number(configuration.dropout), "selfattn_lora": .bool(!matrices.isEmpty),
                    "attn_matrices": .array((matrices.isEmpty ? ["q"] : matrices).map { .string($0) }),
                    "intermediate_lora": .bool(used.contains("intermediate_lora")),
                    "output_lora": .bool(used.contains("output_lora")), "composition_mode": "add",
                    "init_weights": "lora",
                    "leave_out": [], "use_gating": false,
                ], tensors
            )
        }

        func bottlenecks(_ configuration: BottleneckConfiguration) throws -> ([String: JSON], [String: Tensor]) {
            guard
                !configuration.isParallel || configuration.readsStream
                    || ["bert", "roberta", "xlm-roberta", "distilbert"].contains(outline.family)
            else {
                throw PEFTError(
                    "\(folder.url.path) reads the sublayers' normalized inputs, but AdapterHub's parallel adapters read the residual "
                        + "stream", remedy: "train it with --reads-stream")
            }
            let ends = [
                ("down.weight", "adapter_down.0.weight"), ("down.bias", "adapter_down.0.bias"),
                ("up.weight", "adapter_up.weight"), ("up.bias", "adapter_up.bias"), ("scale", "scaling"),
            ]
            var (tensors, ranks, size): ([String: Tensor], Set<Int>, Int) = ([:], [], 1)
            for (path, end, key) in try split(ends.map { ".\($0.0)" }) {
                guard let site = outline.outputs.first(where: { $0.path == path }),
                    let part = ends.first(where: { ".\($0.0)" == end })
                else { continue }
                var value = try tensor(key)
                if part.0 == "down.bias" { ranks.insert(value.dim(0)) }
                size = site.size
                // The scale is that of U and its bias, as a file's number would have to have a fraction.
                if part.0.hasPrefix("up"), !configuration.learnsScale {
                    value = try withTorchErrors { value * configuration.scale }
                }
                tensors["\(module(of: site)).adapters.\(name).\(part.1)"] = value
            }
            guard let rank = ranks.first, ranks.count == 1 else {
                throw PEFTError(
                    "\(folder.url.path) has bottlenecks of sizes \(ranks.sorted())", remedy: "use one size")
            }
            let kinds = configuration.sublayers
            let activation = configuration.activation == "silu" ? "swish" : configuration.activation
            var settings: [String: JSON] = [
                "mh_adapter": .bool(kinds.contains(.attention)),
                "output_adapter": .bool(kinds.contains(.feedForward)),
                "cross_adapter": .bool(kinds.contains(.crossAttention)), "non_linearity": .string(activation),
                // The size is ⌊hidden size / factor⌋, also with a factor that is rounded.
                "reduction_factor": size % rank == 0
                    ? .integer(size / rank) : .number(Double(size) / (Double(rank) + 0.5)),
                "original_ln_before": .bool(configuration.readsStream && !configuration.isParallel),
                "original_ln_after": true, "residual_before_ln": true, "is_parallel": .bool(configuration.isParallel),
                "init_weights": "bert", "leave_out": [],
            ]
            if configuration.learnsScale { settings["scaling"] = "learned" }
            return (settings, tensors)
        }

        /// The module that holds a sublayer's adapters there.
        private func module(of site: ModelOutline.SublayerSite) -> String {
            let end = ".output_site"
            if site.path.hasSuffix(end) {
                // BERT's adapters belong to the modules `attention.output` and `output`, T5's to the sublayers themselves.
                let isT5 = ["t5", "mt5"].contains(outline.family)
                return String(site.path.dropLast(end.count)) + (isT5 ? "" : ".output")
            }
            let block = site.path.split(separator: ".").dropLast().joined(separator: ".")
            return block + (site.kind == .attention ? ".attention_adapters" : ".output_adapters")
        }
    }
}
