import Foundation
import Support
import Training

/// Rows of what `--data` names: files, lists in files, queries (``DataSource``), one after another.
extension Rows {
    /// The rows as chats, at most `limit`.
    static func read(
        _ data: [String], _ settings: ChatSettings, _ prompt: Template?, _ target: Template?, limit: Int?
    ) throws -> [Conversation] {
        let rows = try DataSet.read(DataSource.all(data), limit: limit, keepsText: prompt == nil)
        return try settings.conversations(rows, prompt: prompt, target: target)
    }

    /// The rows as examples, at most `limit`.
    static func read(_ data: [String], _ templates: RowTemplates, limit: Int? = nil) throws -> [Example] {
        try templates.examples(from: DataSet.read(DataSource.all(data), limit: limit))
    }

    /// The first row, by which the layout of all is recognized.
    static func first(_ data: [String]) throws -> Row? {
        try DataSource.all(Array(data.prefix(1))).first.flatMap { try DataSet.read($0, limit: 1).first }
    }

    /// A field of the rows as text, by where the row is.
    static func values(of field: String, in file: RowsFile) throws -> [Row.Location: String] {
        let template = try Template("{\(field)}")
        return try DataSet.read(DataSource.all(file.paths), limit: file.limit).reduce(into: [:]) {
            $0[$1.location] = try template.render($1)
        }
    }

    /// The names as a report shows them.
    static func name(_ data: [String]) -> String {
        data.map { DataSource($0).shortName }.joined(separator: ", ")
    }
}
