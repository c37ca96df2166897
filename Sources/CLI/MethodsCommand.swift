import ArgumentParser
import PEFT
import Support

struct MethodsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "methods",
        abstract: "List the methods, or the options of one.",
        discussion: """
            peft methods
            peft methods lora
            """)

    @Argument(help: "A method.") var name: String?
    @Flag(help: "Print the result as JSON.") var json = false

    func run() throws {
        let methods = try name.map { [try PEFTMethods.named($0)] } ?? PEFTMethods.all
        if json {
            print(JSON.array(methods.map(Self.json)).text())
        } else if name != nil {
            print(methods.map(Self.options).joined(separator: "\n"))
        } else {
            print(MethodArguments.summary + "\n\npeft methods NAME shows the options of one.")
        }
    }

    private static func options(_ method: any PEFTMethod.Type) -> String {
        let options = MethodChoice.options(of: method)
        let width = options.map { $0.name.count + 2 }.max() ?? 0
        let margin = String(repeating: " ", count: width + 4)
        let lines = options.map {
            HelpPage.wrap($0.help, first: "  --\($0.name)".padded(to: width + 4), rest: margin)
        }
        return (["\(method.name): \(method.summary)"] + (lines.isEmpty ? ["  no options"] : lines))
            .joined(separator: "\n")
    }

    private static func json(_ method: any PEFTMethod.Type) -> JSON {
        [
            "name": .string(method.name), "summary": .string(method.summary),
            "peftType": method.peftType.map { .string($0) } ?? .null,
            "huggingFaceReads": .bool(method.isHuggingFaces), "mergeable": .bool(method.isMergeable),
            "learningRate": .number(method.defaultLearningRate),
            "options": .array(
                MethodChoice.options(of: method).map {
                    ["name": .string($0.name), "help": .string($0.help), "flag": .bool($0.isFlag)]
                }),
        ]
    }
}

extension String {
    /// Spaces at the end, up to so many characters.
    func padded(to width: Int) -> String { self + String(repeating: " ", count: max(0, width - count)) }
}
