import PEFTSupport

/// A dataset format that implies the templates of prompt and target.
package struct RecognizedFormat: Sendable {
    package let format: RowFormat
    /// `nil` for rows of messages.
    package let templates: (prompt: String, target: String)?

    /// One line about how rows are read.
    package var note: String {
        let shown = templates.map { templates in
            let prompt = templates.prompt.isEmpty ? "" : "--prompt \(Self.quoted(templates.prompt)) "
            return "; the same as \(prompt)--target \(Self.quoted(templates.target))"
        }
        return "reading rows as \(format.title): \(format.summary)\(shown ?? "")"
    }

    /// ``note`` if templates were chosen.
    package var templatesNote: String? { templates == nil ? nil : note }

    private static func quoted(_ text: String) -> String {
        "'\(text.replacingOccurrences(of: "\n", with: "\\n"))'"
    }
}

extension DataSettings {
    /// The settings with the templates of the data format, unless templates are set.
    ///
    /// - Parameters:
    ///   - data: names of data sources (``DataSource/all(_:)``); the first row of the first one tells the format.
    ///   - generates: whether the model generates text; for others the label field must be set.
    ///   - record: the settings that an adapter was trained with, whose templates are used.
    /// - Throws: ``PEFTError`` if ``format`` conflicts with other settings or with the rows.
    package func recognizing(_ data: [String], generates: Bool = true, record: TrainingRecord? = nil) throws -> (
        settings: DataSettings, format: RecognizedFormat?
    ) {
        let isTold = prompt != nil || target != nil || chat.messages != nil
        if format != nil, isTold {
            let option = prompt != nil ? "prompt" : target != nil ? "target" : "messages"
            throw PEFTError(
                "--format and --\(option) are mutually exclusive", remedy: "use one of them", isUsage: true)
        }
        let isOther =
            pair != nil || negative != nil || task.task != nil || record != nil || !generates
        guard !isTold, format != nil || !isOther else { return (self, nil) }
        guard let row = try Self.firstRow(of: data) else { return (self, nil) }
        if let format, !format.fits(row) {
            throw PEFTError(
                "--format \(format.rawValue) requires \(format.requiredFields.joined(separator: " and ")), but \(row.location) has \(row.fields.keys.sorted().joined(separator: ", "))",
                remedy: "use another format, or --prompt and --target")
        }
        guard let format = format ?? RowFormat.recognized(in: row) else { return (self, nil) }
        if format == .text, chat.wrapsTemplates {
            throw PEFTError(
                "--chat cannot be used with --format text, which has no turns",
                remedy: "remove --chat, or add --prompt and --target")
        }
        var copy = self
        let templates = format.templates(asTurns: chat.wrapsTemplates)
        if let templates { (copy.prompt, copy.target) = (templates.prompt, templates.target) }
        return (copy, RecognizedFormat(format: format, templates: templates))
    }

    /// The first row, from which the format of all rows is detected; `nil` for a pipe, whose rows can be read once.
    static func firstRow(of data: [String]) throws -> Row? {
        guard let source = try DataSource.all(Array(data.prefix(1))).first else { return nil }
        if case .file(let file) = source.place, AtomicFile.isDevice(file) { return nil }
        return try DataSet.read(source, limit: 1).first
    }
}
