import ArgumentParser
import Foundation
import Support
import Training

/// The format of a dataset's rows.
struct FormatOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Dataset format, in place of --prompt and --target: \(RowFormat.allCases.map(\.rawValue).joined(separator: ", ")) (default: detected from the fields).",
            valueName: "format"))
    var format: String?

    /// - Throws: ``UsageError`` for an unknown name.
    func choice() throws -> RowFormat? {
        guard let format else { return nil }
        if let choice = RowFormat(rawValue: format.lowercased()) { return choice }
        let all = RowFormat.allCases.map(\.rawValue)
        let hint = nearestName(to: format, in: all).map { "did you mean '\($0)'? " } ?? ""
        throw UsageError("unknown --format '\(format)'", remedy: hint + "use one of \(all.joined(separator: ", "))")
    }
}

/// A format that implies `--prompt` and `--target`.
struct RecognizedFormat {
    let format: RowFormat
    let templates: (prompt: String, target: String)?

    /// One line about how rows are read.
    var note: String {
        let shown = templates.map { templates in
            let prompt = templates.prompt.isEmpty ? "" : "--prompt \(Self.quoted(templates.prompt)) "
            return "; the same as \(prompt)--target \(Self.quoted(templates.target))"
        }
        return "reading rows as \(format.title): \(format.summary)\(shown ?? "")"
    }

    private static func quoted(_ text: String) -> String {
        "'\(text.replacingOccurrences(of: "\n", with: "\\n"))'"
    }
}

extension TemplateOptions {
    /// The options with the templates of the data format, unless templates were given.
    ///
    /// - Parameters:
    ///   - data: the file whose first row tells the format.
    ///   - chat: the chat options; rows of messages need no templates.
    ///   - generates: whether the model generates text; for others the label field must be given.
    ///   - record: the settings an adapter was trained with, whose templates are used.
    /// - Throws: ``UsageError`` if `--format` conflicts with other options, ``PEFTError`` if it conflicts with the rows.
    func recognizing(
        _ data: [String], _ chat: ChatOptions?, generates: Bool = true, record: TrainingRecord? = nil
    ) throws -> (templates: TemplateOptions, format: RecognizedFormat?) {
        let choice = try layout.choice()
        let isTold = prompt != nil || target != nil || chat?.messages != nil
        if choice != nil, isTold {
            let option = prompt != nil ? "prompt" : target != nil ? "target" : "messages"
            throw UsageError("--format and --\(option) are mutually exclusive", remedy: "use one of them")
        }
        let isOther = pair != nil || negative != nil || task != nil || record != nil || !generates
        guard !isTold, choice != nil || !isOther else { return (self, nil) }
        guard let row = try Rows.first(data) else { return (self, nil) }
        if let choice, !choice.fits(row) {
            throw PEFTError(
                "--format \(choice.rawValue) requires \(choice.requiredFields.joined(separator: " and ")), but \(row.location) has \(row.fields.keys.sorted().joined(separator: ", "))",
                remedy: "use another format, or --prompt and --target")
        }
        guard let format = choice ?? RowFormat.recognized(in: row) else { return (self, nil) }
        if format == .text, chat?.chat == true {
            throw PEFTError(
                "--chat cannot be used with --format text, which has no turns",
                remedy: "remove --chat, or add --prompt and --target")
        }
        var copy = self
        let templates = format.templates(asTurns: chat?.chat == true)
        if let templates { (copy.prompt, copy.target) = (templates.prompt, templates.target) }
        return (copy, RecognizedFormat(format: format, templates: templates))
    }

    /// The same, with a note if templates were chosen.
    func recognized(
        _ data: [String], _ chat: ChatOptions?, generates: Bool = true, record: TrainingRecord? = nil
    ) throws -> TemplateOptions {
        let (templates, format) = try recognizing(data, chat, generates: generates, record: record)
        if let format, format.templates != nil { Console.note(format.note) }
        return templates
    }
}
