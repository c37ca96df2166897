import ArgumentParser
import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Torch
import Training

struct CombineCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "combine",
        abstract: "Combine several adapters into one.",
        discussion: """
            peft combine news-adapter=0.7 mail-adapter=0.3 --method svd --output both
            peft combine news mail notes --method arrow --top-k 2 --output routed
            peft combine news mail --method fusion --output fused
            peft train --from-adapter fused --data train.jsonl --output trained

            Methods: linear, cat, svd, ties, ties_svd, dare_linear, dare_ties, dare_linear_svd, dare_ties_svd,
            magnitude_prune, magnitude_prune_svd, as in add_weighted_adapter of Hugging Face PEFT. cat is the exact
            weighted sum of the deltas; its rank is the sum of the ranks.

            arrow routes each token to the LoRA adapters whose directions its input is most aligned with. stack puts
            bottleneck adapters (houlsby, pfeiffer, parallel) one upon the other; fusion (AdapterFusion) adds an attention
            over them, which peft train --from-adapter trains. Both may be levels of another stack. Adapters of these
            three methods are given without =WEIGHT.
            """)

    @Argument(help: "Adapter folders with weights, such as folder=0.7 (default: 1).") var adapters: [String]
    @OptionGroup var model: ModelOptions
    @Option(help: "Combination method.") var method = "linear"
    @Option(help: ArgumentHelp("Fraction of values that pruning keeps (default: 0.5).", valueName: "fraction"))
    var density: Double?
    @Option(help: "Sign election of TIES: total or frequency (default: total).") var majoritySign: String?
    @Option(help: ArgumentHelp("Rank of the SVD methods (default: the largest of the adapters).", valueName: "r"))
    var rank: Int?
    @Option(help: ArgumentHelp("Quantile at which SVD factors are clamped (default: none).", valueName: "fraction"))
    var clamp: Double?
    @Option(
        help: ArgumentHelp(
            "Number of adapters that arrow gives a token (default: 3, or all if fewer).", valueName: "k"))
    var topK: Int?
    @Option(help: ArgumentHelp("Softmax temperature of arrow.", valueName: "t")) var temperature = 1.0
    @Option(
        help: ArgumentHelp(
            "Adapter whose mean with other such ones arrow subtracts from the rest. Repeatable.", valueName: "folder")
    )
    var general: [String] = []
    @Option(help: "Random seed of DARE, of arrow's directions and of a new fusion.") var seed: UInt64 = 0
    @Flag(help: "Print the result as JSON.") var json = false
    @Option(name: .shortAndLong, help: ArgumentHelp("Output folder for the adapter.", valueName: "folder"))
    var output: String

    func run() throws {
        let device = try model.prepare()
        guard name == "arrow" || topK == nil && temperature == 1 && general.isEmpty else {
            throw UsageError("--top-k, --temperature and --general belong to --method arrow")
        }
        try requireUsedOptions(AdapterCombination.Method(rawValue: name))
        if name == "arrow" { return try route() }
        if let kind = BottleneckComposition.Kind(rawValue: name) { return try compose(kind, device: device) }
        let known =
            AdapterCombination.Method.allCases.map(\.rawValue) + ["arrow"]
            + BottleneckComposition.Kind.allCases.map(\.rawValue)
        guard let kind = AdapterCombination.Method(rawValue: name) else {
            let hint = nearestName(to: method, in: known).map { "did you mean '\($0)'? " } ?? ""
            throw UsageError(
                "unknown combination method '\(method)'", remedy: hint + "use one of \(known.joined(separator: ", "))"
            )
        }
        let election = majoritySign ?? "total"
        guard ["total", "frequency"].contains(election) else {
            throw UsageError("unknown --majority-sign '\(election)'", remedy: "use total or frequency")
        }
        let target = try Output.folder(output)
        let parts = try adapters.map { text -> (folder: AdapterFolder, weight: Double) in
            // A folder's name may contain the sign.
            let equals = FileManager.default.fileExists(atPath: text) ? nil : text.lastIndex(of: "=")
            let path = equals.map { String(text[..<$0]) } ?? text
            guard let weight = equals.map({ Double(text[text.index(after: $0)...]) }) ?? 1, weight.isFinite else {
                throw UsageError("'\(text)' has no weight after the =", remedy: "use a form such as my-adapter=0.7")
            }
            return (try AdapterFolder(HubFetch.adapter(path)), weight)
        }
        let first = try checkedBase(parts.map(\.folder))
        let base = try first.name(model)
        for part in parts {
            for note in part.folder.notes { Console.note("\(part.folder.url.lastPathComponent): \(note)") }
        }
        let loaded = try first.folder(model).load(device: device)
        let set = AdapterSet(on: loaded)
        let attached = try parts.enumerated().map { index, part -> (adapter: Adapter, weight: Double) in
            // Errors name the folder, which may occur twice.
            let name = part.folder.url.lastPathComponent
            let isTaken = set.adapters[name] != nil
            return (
                adapter: try set.add(part.folder, name: isTaken ? "\(name) (\(index + 1))" : name),
                weight: part.weight
            )
        }
        let combination = AdapterCombination(
            method: kind, density: density ?? 0.5, electsByFrequency: election == "frequency", rank: rank,
            clamp: clamp,
            seed: seed)
        let result = try combination(attached)
        try AtomicFile.writeFolder(target, replacing: false) { folder in
            try result.write(into: folder, base: base)
            try ModelCard.write(into: folder, name: target.lastPathComponent)
        }
        let ranks = result.attached.compactMap { $0.adapter.storedTensors()["lora_A.weight"]?.dim(0) }
        if json {
            print(
                JSON.object([
                    "output": .string(output), "method": .string(kind.rawValue), "base": .string(base),
                    "adapters": .array(
                        parts.map { part in
                            ["folder": .string(part.folder.url.path), "weight": .number(part.weight)]
                        }),
                    "places": .integer(ranks.count), "rank": .integer(ranks.max() ?? 0),
                    "parameters": .integer(result.storedCount),
                ]).text())
            return
        }
        print(
            "LoRA of rank \(ranks.max() ?? 0) in \(counted(ranks.count, "module")), \(kind.rawValue) of \(counted(parts.count, "adapter")), saved to \(output)"
        )
    }

    /// - Parameter kind: how deltas are added; `nil` for adapters that stay apart.
    private func requireUsedOptions(_ kind: AdapterCombination.Method?) throws {
        let known = name == "arrow" || BottleneckComposition.Kind(rawValue: name) != nil
        guard kind != nil || known else { return }
        let options = [
            ("--rank", rank != nil, kind?.usesUpdates), ("--clamp", clamp != nil, kind?.usesUpdates),
            ("--density", density != nil, kind?.prunes), ("--majority-sign", majoritySign != nil, kind?.elects),
        ]
        for (option, isGiven, isUsed) in options where isGiven && isUsed != true {
            throw UsageError("\(option) has no effect on --method \(name)", remedy: "omit it, or use another method")
        }
    }

    private var name: String { method.lowercased() }

    // MARK: Adapters that stay apart

    /// The adapters of an argument or option with names of their own.
    private func members(_ paths: [String], beside taken: Set<String> = []) throws -> [(
        name: String, folder: AdapterFolder
    )] {
        var taken = taken
        return try paths.map { path in
            guard !path.contains("=") || FileManager.default.fileExists(atPath: path) else {
                throw UsageError("'\(path)' has a weight, which --method \(method) doesn't use", remedy: "omit it")
            }
            let folder = try AdapterFolder(HubFetch.adapter(path))
            for note in folder.notes { Console.note("\(folder.url.lastPathComponent): \(note)") }
            let name = folder.url.lastPathComponent.replacing(".", with: "-")
            var own = name
            var number = 1
            while taken.contains(own) {
                number += 1
                own = "\(name)-\(number)"
            }
            taken.insert(own)
            return (own, folder)
        }
    }

    private func checkedBase(_ folders: [AdapterFolder]) throws -> AdapterBase {
        let bases = folders.map { AdapterBase($0.configuration, of: $0.url) }
        guard let first = bases.first else {
            throw PEFTError("no adapter was given", remedy: "add at least two adapter folders")
        }
        if let other = bases.first(where: { $0.name != first.name }), model.model == nil {
            throw PEFTError(
                "the adapters name different base models, '\(first.name ?? "none")' and '\(other.name ?? "none")'",
                remedy: "add --model with the base of all")
        }
        return first
    }

    private func route() throws {
        let target = try Output.folder(output)
        let tasks = try members(adapters)
        let general = try members(self.general, beside: Set(tasks.map(\.name)))
        guard tasks.count > 1 else {
            throw PEFTError("got \(counted(tasks.count, "adapter"))", remedy: "route among at least 2")
        }
        guard let seed = Int(exactly: seed) else { throw UsageError("--seed \(seed) is too large for arrow") }
        let base = try checkedBase((tasks + general).map(\.folder)).name(model)
        var (configuration, tensors) = try ArrowFolder.combined(
            tasks, general: general, topK: topK ?? min(3, tasks.count), temperature: temperature, seed: seed)
        configuration["base_model_name_or_path"] = .string(base)
        try AtomicFile.writeFolder(target, replacing: false) { folder in
            try AtomicFile.write(
                JSON.object(configuration).text() + "\n", to: folder.appendingPathComponent("adapter_config.json"))
            try SafetensorsFile.write(
                tensors, metadata: ["format": "pt"], to: folder.appendingPathComponent("adapter_model.safetensors"))
            try ModelCard.write(into: folder, name: target.lastPathComponent)
        }
        report(
            try AdapterFolder(target).choice.label, of: tasks + general, base: base,
            parameters: tensors.values.reduce(0) { $0 + $1.count })
    }

    private func compose(_ kind: BottleneckComposition.Kind, device: Device) throws {
        let target = try Output.folder(output)
        let parts = try members(adapters)
        let first = try checkedBase(parts.map(\.folder))
        let base = try first.name(model)
        let plain = try first.folder(model)
        let loaded = try plain.with(parts.last?.folder.head(on: plain)).load(device: device)
        let result = try BottleneckComposition.combining(parts, kind, on: loaded, seed: seed)
        try AtomicFile.writeFolder(target, replacing: false) { folder in
            try result.write(into: folder, base: base)
            try ModelCard.write(into: folder, name: target.lastPathComponent)
        }
        report(result.choice.label, of: parts, base: base, parameters: result.storedCount)
        if kind == .fusion, !json {
            Console.note("the fusion is not trained yet: peft train --from-adapter \(output)")
        }
    }

    private func report(
        _ label: String, of parts: [(name: String, folder: AdapterFolder)], base: String, parameters: Int
    ) {
        guard json else { return print("\(label), saved to \(output)") }
        print(
            JSON.object([
                "output": .string(output), "method": .string(method.lowercased()), "base": .string(base),
                "adapters": .array(parts.map { ["name": .string($0.name), "folder": .string($0.folder.url.path)] }),
                "label": .string(label), "parameters": .integer(parameters),
            ]).text())
    }
}
