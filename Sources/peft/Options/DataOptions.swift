import ArgumentParser
import Foundation
import Support
import Training

struct TemplateOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "What the model reads, with {fields} of the row; \\n is a line break.", valueName: "template"))
    var prompt: String?

    @Option(help: ArgumentHelp("What it is to write, with {fields} of the row.", valueName: "template"))
    var target: String?

    @Option(
        help: ArgumentHelp(
            "Most tokens of a prompt (512); longer ones lose their end. Targets are never cut.", valueName: "tokens"))
    var maxInput: Int?

    static let defaultMaxInput = 512

    func prompt(default fallback: String? = nil) throws -> Template {
        try template(prompt, fallback, option: "prompt", example: "'Summarize: {dialogue}'")
    }

    func target(default fallback: String? = nil) throws -> Template {
        try template(target, fallback, option: "target", example: "'{summary}'")
    }

    private func template(_ given: String?, _ fallback: String?, option: String, example: String) throws -> Template {
        if let given { return try Template(Self.unescape(given)) }
        if let fallback { return try Template(fallback) }
        throw PEFTError("--\(option) is missing", remedy: "give a template such as --\(option) \(example)")
    }

    /// `\n`, `\t` and `\\` as a shell's plain quotes leave them.
    static func unescape(_ text: String) -> String {
        var result = ""
        var characters = text.makeIterator()
        while let character = characters.next() {
            guard character == "\\" else { result.append(character); continue }
            switch characters.next() {
            case "n": result.append("\n")
            case "t": result.append("\t")
            case "\\": result.append("\\")
            case let other?: result.append("\\"); result.append(other)
            case nil: result.append("\\")
            }
        }
        return result
    }
}

enum Rows {
    /// The rows of a file as examples, at most `limit`.
    static func read(_ path: String, prompt: Template, target: Template, limit: Int? = nil) throws -> [Example] {
        if let limit, limit < 1 {
            throw PEFTError("a limit of \(limit) rows was asked for", remedy: "at least 1 has to be")
        }
        let url = URL(fileURLWithPath: NSString(string: path).expandingTildeInPath)
        return try examples(from: DataSet.read(url, limit: limit), prompt: prompt, target: target)
    }
}
