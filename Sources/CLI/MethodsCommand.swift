import ArgumentParser
import PEFT
import PEFTSupport

struct MethodsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "methods",
        abstract: "List the fine-tuning methods, or the options of one.",
        discussion: """
            peft methods
            peft methods lora
            """)

    @Argument(help: "Method whose options to print.") var name: String?
    @Flag(help: "Print the result as JSON.") var json = false

    func run() throws {
        let methods = try checkingOptions { try name.map { [try PEFTMethods.named($0)] } ?? PEFTMethods.all }
        if json {
            print(JSON.array(methods.map(Self.json)).text())
        } else if name != nil {
            print(methods.map(Self.options).joined(separator: "\n"))
        } else {
            print(Self.table + "\n\nRun peft methods NAME for the options of a method.")
        }
    }

    /// All methods with their default rank, if they have one, and their summary.
    private static var table: String {
        let width = PEFTMethods.all.map { $0.name.count }.max() ?? 0
        let margin = String(repeating: " ", count: width + 10)
        let lines = PEFTMethods.all.map { method -> String in
            let rank = MethodChoice(method).configuration.named["rank"]?.int.map { String($0) } ?? "–"
            let column = String(repeating: " ", count: max(0, 4 - rank.count)) + rank
            let first = "  " + method.name.padded(to: width + 2) + column + "  "
            return HelpPage.wrap(method.summary, first: first, rest: margin)
        }
        let heading = "  " + "Method".padded(to: width + 2) + "Rank  Summary"
        return ([heading] + lines).joined(separator: "\n")
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

    private static func json(_ method: any PEFTMethod.Type) -> JSON {
        [
            "name": .string(method.name), "summary": .string(method.summary),
            "peftType": method.peftType.map { .string($0) } ?? .null,
            "huggingFaceReads": .bool(method.isReadableByHuggingFace), "mergeable": .bool(method.isMergeable),
            "learningRate": .number(method.defaultLearningRate),
            "options": .array(
                MethodChoice.options(of: method).map {
                    ["name": .string($0.name), "help": .string($0.help), "flag": .bool($0.isFlag)]
                }),
        ]
    }
}

extension String {
    /// Pads with trailing spaces to at least `width` characters.
    func padded(to width: Int) -> String { self + String(repeating: " ", count: max(0, width - count)) }
}
