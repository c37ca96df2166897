import ArgumentParser
import Foundation
import Support
import Training

/// The layout of a data file's rows.
struct FormatOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Layout of the rows, if --prompt and --target aren't given: \(RowFormat.allCases.map(\.rawValue).joined(separator: ", ")) (recognized by their fields).",
            valueName: "layout"))
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

/// A format that stands for `--prompt` and `--target`.
struct RecognizedFormat {
    let format: RowFormat
    let templates: (prompt: String, target: String)?

    /// One line that says how rows are read.
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
    /// The options with the templates of the rows' format, where none are given.
    ///
    /// - Parameters:
    ///   - data: the file whose first row tells the format.
    ///   - chat: what was said about chats; rows of messages need no templates.
    ///   - writes: whether the model writes; others need to be told what is a label.
    ///   - record: what an adapter was trained with, whose templates are used.
    /// - Throws: ``UsageError`` where `--format` contradicts other options, ``PEFTError`` where it contradicts the rows.
    func recognizing(
        _ data: [String], _ chat: ChatOptions?, writes: Bool = true, record: TrainingRecord? = nil
    ) throws -> (templates: TemplateOptions, format: RecognizedFormat?) {
        let choice = try layout.choice()
        let isTold = prompt != nil || target != nil || chat?.messages != nil
        if choice != nil, isTold {
            let option = prompt != nil ? "prompt" : target != nil ? "target" : "messages"
            throw UsageError("--format and --\(option) were both given", remedy: "leave one of them out")
        }
        let isOther = pair != nil || negative != nil || task != nil || record != nil || !writes
        guard !isTold, choice != nil || !isOther else { return (self, nil) }
        guard let row = try Rows.first(data) else { return (self, nil) }
        if let choice, !choice.fits(row) {
            throw PEFTError(
                "--format \(choice.rawValue) needs \(choice.requiredFields.joined(separator: " and ")), and \(row.location) has \(row.fields.keys.sorted().joined(separator: ", "))",
                remedy: "use another format, or give --prompt and --target")
        }
        guard let format = choice ?? RowFormat.recognized(in: row) else { return (self, nil) }
        if format == .text, chat?.chat == true {
            throw PEFTError(
                "rows of text have no turns for --chat", remedy: "leave --chat out, or give --prompt and --target")
        }
        var copy = self
        let templates = format.templates(asTurns: chat?.chat == true)
        if let templates { (copy.prompt, copy.target) = (templates.prompt, templates.target) }
        return (copy, RecognizedFormat(format: format, templates: templates))
    }

    /// The same, said in one line where templates were chosen.
    func recognized(_ data: [String], _ chat: ChatOptions?, writes: Bool = true, record: TrainingRecord? = nil) throws
        -> TemplateOptions
    {
        let (templates, format) = try recognizing(data, chat, writes: writes, record: record)
        if let format, format.templates != nil { Console.note(format.note) }
        return templates
    }
}
