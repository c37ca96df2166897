import ArgumentParser
import PEFTSupport
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

extension DataSettings {
    /// The settings with the templates of the data format, with a note if templates were chosen
    /// (``recognizing(_:generates:record:)``).
    func recognized(_ data: [String], generates: Bool = true, record: TrainingRecord? = nil) throws -> DataSettings {
        let (settings, format) = try recognizing(data, generates: generates, record: record)
        if let note = format?.templatesNote { Console.note(note) }
        return settings
    }
}
