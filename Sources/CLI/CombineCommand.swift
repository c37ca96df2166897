import ArgumentParser
import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Training

struct CombineCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "combine",
        abstract: "Combine several LoRA adapters into one.",
        discussion: """
            peft combine news-adapter=0.7 mail-adapter=0.3 --method svd --output both

            Methods: linear, cat, svd, ties, ties_svd, dare_linear, dare_ties, dare_linear_svd, dare_ties_svd,
            magnitude_prune, magnitude_prune_svd, as in add_weighted_adapter of Hugging Face PEFT. cat is the exact
            weighted sum of the deltas; its rank is the sum of the ranks.
            """)

    @Argument(help: "Adapter folders with weights, such as folder=0.7 (default: 1).") var adapters: [String]
    @OptionGroup var model: ModelOptions
    @Option(help: "Combination method.") var method = "linear"
    @Option(help: ArgumentHelp("Fraction of values that pruning keeps.", valueName: "fraction")) var density = 0.5
    @Option(help: "Sign election of TIES: total or frequency.") var majoritySign = "total"
    @Option(help: ArgumentHelp("Rank of the SVD methods (default: the largest of the adapters).", valueName: "r"))
    var rank: Int?
    @Option(help: ArgumentHelp("Quantile at which SVD factors are clamped (default: none).", valueName: "fraction"))
    var clamp: Double?
    @Option(help: "Random seed of DARE.") var seed: UInt64 = 0
    @Flag(help: "Print the result as JSON.") var json = false
    @Option(name: .shortAndLong, help: ArgumentHelp("Output folder for the adapter.", valueName: "folder"))
    var output: String

    func run() throws {
        let device = try model.prepare()
        let known = AdapterCombination.Method.allCases.map(\.rawValue)
        guard let kind = AdapterCombination.Method(rawValue: method.lowercased()) else {
            let hint = nearestName(to: method, in: known).map { "did you mean '\($0)'? " } ?? ""
            throw UsageError(
                "unknown combination method '\(method)'", remedy: hint + "use one of \(known.joined(separator: ", "))"
            )
        }
        guard ["total", "frequency"].contains(majoritySign) else {
            throw UsageError("unknown --majority-sign '\(majoritySign)'", remedy: "use total or frequency")
        }
        let target = try Output.folder(output)
        let parts = try adapters.map { text -> (folder: AdapterFolder, weight: Double) in
            let equals = text.lastIndex(of: "=")
            let path = equals.map { String(text[..<$0]) } ?? text
            guard let weight = equals.map({ Double(text[text.index(after: $0)...]) }) ?? 1, weight.isFinite else {
                throw UsageError("'\(text)' has no weight after the =", remedy: "use a form such as my-adapter=0.7")
            }
            return (try AdapterFolder(HubFetch.adapter(path)), weight)
        }
        let bases = parts.map { AdapterBase($0.folder.configuration, of: $0.folder.url) }
        guard let first = bases.first else {
            throw PEFTError("no adapter was given", remedy: "add at least two adapter folders")
        }
        if let other = bases.first(where: { $0.name != first.name }), model.model == nil {
            throw PEFTError(
                "the adapters name different base models, '\(first.name ?? "none")' and '\(other.name ?? "none")'",
                remedy: "add --model with the base of all")
        }
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
            method: kind, density: density, electsByFrequency: majoritySign == "frequency", rank: rank, clamp: clamp,
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
}
