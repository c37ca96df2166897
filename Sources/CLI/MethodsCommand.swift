import ArgumentParser
import Foundation
import LanguageModels
import PEFT
import PEFTSupport

struct MethodsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "methods",
        abstract: "List, search and filter the fine-tuning methods, or show the options of one.",
        discussion: """
            peft methods
            peft methods lora
            peft methods rotation
            peft methods --mergeable --quantized --max-parameters 0.1% --model google/flan-t5-base

            Abilities and numbers of parameters are those with a method's default options.
            """)

    @Argument(help: "Method whose options to print, or words to search for in names and summaries.")
    var words: [String] = []
    @Flag(help: "Only methods that can be merged into the weights.") var mergeable = false
    @Flag(help: "Only methods that train over a quantized base.") var quantized = false
    @Flag(help: "Only methods whose adapters can share a batch with others.") var mixedBatch = false
    @Flag(help: "Only methods whose files Hugging Face PEFT reads.") var huggingFace = false
    @Option(
        help: ArgumentHelp(
            "Only methods that train at most so many parameters of --model: a number, or a percentage such as 0.1%.",
            valueName: "n"))
    var maxParameters: String?
    @Option(
        name: .shortAndLong,
        help: ArgumentHelp(
            "Only methods that fit this model folder, Hugging Face Hub name or config.json, with their parameters.",
            valueName: "model"))
    var model: String?
    @Flag(help: "Print the table of methods and abilities, or the facts about one, as Markdown.") var markdown = false
    @Flag(help: "Print the result as JSON.") var json = false

    private var isFiltered: Bool { mergeable || quantized || mixedBatch || huggingFace || maxParameters != nil }

    func run() throws {
        let name = words.first.flatMap { word in PEFTMethods.all.first { $0.name == word.lowercased() } }
        if words.count == 1, !isFiltered, model == nil, let method = name {
            if markdown { return print(MethodFacts(method).markdown) }
            return print(json ? JSON.array([MethodFacts(method).json]).text() : Self.options(method))
        }
        let limit = try maxParameters.map(Self.limit)
        let found = try search()
        let base = try model.map { try PlanSource($0, weights: nil, embeddings: nil) }
        let known = try base.map { try MethodTraits.all(found, on: $0.outline) } ?? MethodTraits.all(found)
        let traits = known.filter { traits in
            (!mergeable || traits.isMergeable) && (!quantized || traits.isForQuantized)
                && (!mixedBatch || traits.isForMixedBatches)
                && (!huggingFace || traits.method.isReadableByHuggingFace)
                && limit.map { traits.parameters <= $0(traits.total) } ?? true
        }
        guard !traits.isEmpty else {
            throw PEFTError("no method has all of these properties", remedy: "omit some, or see peft methods")
        }
        if markdown { return print(MethodTraits.markdown(traits)) }
        if json { return print(JSON.array(traits.map { Self.json($0.method, $0, counts: model != nil) }).text()) }
        print(Self.table(traits, counts: model != nil || limit != nil))
        print("\nRun peft methods NAME for the options of a method.")
    }

    /// The methods with all words in their names or summaries.
    private func search() throws -> [any PEFTMethod.Type] {
        guard !words.isEmpty else { return PEFTMethods.all }
        let found = PEFTMethods.all.filter { method in
            let text = "\(method.name) \(method.summary)".lowercased()
            return words.allSatisfy { text.contains($0.lowercased()) }
        }
        guard found.isEmpty else { return found }
        // The error names the nearest method.
        return [try checkingOptions { try PEFTMethods.named(words.joined(separator: " ")) }]
    }

    /// The largest number of trained parameters as a function of all of them.
    private static func limit(_ text: String) throws -> (Int) -> Int {
        let isShare = text.hasSuffix("%")
        guard let value = Double(isShare ? text.dropLast() : text[...]), value > 0, value.isFinite,
            !isShare || value <= 100, value < 1e15
        else {
            throw UsageError(
                "--max-parameters '\(text)' is neither a number nor a percentage",
                remedy: "use a value such as 200000 or 0.1%")
        }
        return { total in isShare ? Int(Double(total) * value / 100) : Int(value) }
    }

    /// Methods by family with their default rank, if they have one, and their summary.
    private static func table(_ methods: [MethodTraits], counts: Bool) -> String {
        let width = methods.map { $0.method.name.count }.max() ?? 0
        let shares = methods.map { counts ? share($0) : "" }
        let shareWidth = counts ? max(10, (shares.map(\.count).max() ?? 0)) + 2 : 0
        let margin = String(repeating: " ", count: width + 17 + shareWidth)
        var lines = [
            "  " + "Method".padded(to: width + 2) + "Rank  " + "M Q B  "
                + (counts ? "Parameters".padded(to: shareWidth) : "") + "Summary"
        ]
        for family in MethodFamily.allCases {
            let own = methods.indices.filter { methods[$0].family == family }
            guard !own.isEmpty else { continue }
            lines.append(family.rawValue.prefix(1).uppercased() + family.rawValue.dropFirst())
            for index in own {
                let traits = methods[index]
                let rank = MethodChoice(traits.method).configuration.named["rank"]?.int.map { String($0) } ?? "–"
                let column = String(repeating: " ", count: max(0, 4 - rank.count)) + rank
                let marks = [
                    traits.isMergeable ? "m" : "–", traits.isForQuantized ? "q" : "–",
                    traits.isForMixedBatches ? "b" : "–",
                ]
                let first =
                    "  " + traits.method.name.padded(to: width + 2) + column + "  " + marks.joined(separator: " ")
                    + "  "
                    + (counts ? shares[index].padded(to: shareWidth) : "")
                lines.append(HelpPage.wrap(traits.method.summary, first: first, rest: margin))
            }
        }
        lines += [
            "", "M: merges into the weights. Q: trains over a quantized base.",
            "B: shares batches with other adapters.",
        ]
        return lines.joined(separator: "\n")
    }

    private static func share(_ traits: MethodTraits) -> String {
        let percent = 100 * Double(traits.parameters) / Double(max(1, traits.total))
        return
            "\(Console.grouped(traits.parameters)) (\(percent < 0.01 ? "<0.01" : String(format: "%.2f", percent)) %)"
    }

    private static func options(_ method: any PEFTMethod.Type) -> String {
        let options = MethodChoice.options(of: method)
        let width = options.map { $0.name.count + 2 }.max() ?? 0
        let margin = String(repeating: " ", count: width + 4)
        let lines = options.map {
            HelpPage.wrap($0.help, first: "  --\($0.name)".padded(to: width + 4), rest: margin)
        }
        let heading = HelpPage.wrap("\(method.name): \(method.summary)", first: "", rest: "  ")
        let rate = "Default learning rate: \(method.defaultLearningRate)"
        return ([heading, rate] + (lines.isEmpty ? ["No options."] : ["Options:"] + lines))
            .joined(separator: "\n")
    }

    private static func json(_ method: any PEFTMethod.Type, _ traits: MethodTraits? = nil, counts: Bool = false)
        -> JSON
    {
        var json: [String: JSON] = [
            "name": .string(method.name), "summary": .string(method.summary),
            "peftType": method.peftType.map { .string($0) } ?? .null,
            "huggingFaceReads": .bool(method.isReadableByHuggingFace), "mergeable": .bool(method.isMergeable),
            "learningRate": .number(method.defaultLearningRate),
            "options": .array(
                MethodChoice.options(of: method).map {
                    ["name": .string($0.name), "help": .string($0.help), "flag": .bool($0.isFlag)]
                }),
        ]
        if let traits {
            json["family"] = .string(traits.family.rawValue)
            json["quantizedBase"] = .bool(traits.isForQuantized)
            json["mixedBatch"] = .bool(traits.isForMixedBatches)
            json["served"] = .bool(traits.isServed)
            if counts { json["parameters"] = .integer(traits.parameters) }
        }
        return .object(json)
    }
}

extension String {
    /// Pads with trailing spaces to at least `width` characters.
    func padded(to width: Int) -> String { self + String(repeating: " ", count: max(0, width - count)) }
}
