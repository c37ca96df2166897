import Foundation
import Support
import Training

/// The rows of all sources that `--data` names: files, lists in files, queries (``DataSource``).
extension Rows {
    /// At most `limit` rows as chats.
    static func read(
        _ data: [String], _ settings: ChatSettings, _ prompt: Template?, _ target: Template?, limit: Int?
    ) throws -> [Conversation] {
        let rows = try DataSet.read(DataSource.all(data), limit: limit, keepsText: prompt == nil)
        return try settings.conversations(rows, prompt: prompt, target: target)
    }

    /// At most `limit` rows as examples.
    static func read(_ data: [String], _ templates: RowTemplates, limit: Int? = nil) throws -> [Example] {
        try templates.examples(from: DataSet.read(DataSource.all(data), limit: limit))
    }

    /// The first row, from which the format of all rows is detected.
    static func first(_ data: [String]) throws -> Row? {
        try DataSource.all(Array(data.prefix(1))).first.flatMap { try DataSet.read($0, limit: 1).first }
    }

    /// The text of a field of each row, keyed by the row's location.
    static func values(of field: String, in file: RowsFile) throws -> [Row.Location: String] {
        let template = try Template("{\(field)}")
        return try DataSet.read(DataSource.all(file.paths), limit: file.limit).reduce(into: [:]) {
            $0[$1.location] = try template.render($1)
        }
    }

    /// The names of the sources for a report.
    static func name(_ data: [String]) -> String {
        data.map { DataSource($0).shortName }.joined(separator: ", ")
    }
}
