import Foundation
import PEFTSupport
import Training

/// An output file of rows with a model's results in additional columns, in the format of its extension: JSONL, CSV, TSV,
/// or the texts alone.
struct RowsOutput {
    enum Format: String, CaseIterable { case jsonl, ndjson, csv, tsv, txt }

    /// A model's results for a row, by column.
    typealias Result = [(column: String, value: JSON)]

    let url: URL
    let format: Format

    /// - Throws: ``UsageError`` for an unknown extension, ``PEFTError`` if the file can't be created.
    init(_ path: String) throws {
        url = URL(fileURLWithPath: NSString(string: path).expandingTildeInPath)
        guard let format = Format(rawValue: url.pathExtension.lowercased()) else {
            throw UsageError(
                "--output \(path) has an unknown extension",
                remedy: "use one of \(Format.allCases.map { ".\($0.rawValue)" }.joined(separator: ", "))")
        }
        self.format = format
        try Output.check([path])
    }

    /// For ``text(_:columns:_:)`` only.
    init(_ format: Format) { (url, self.format) = (URL(fileURLWithPath: "/dev/stdout"), format) }

    /// Writes the file atomically.
    /// - Parameters:
    ///   - columns: the columns of the rows, in order.
    ///   - results: the results of each row; `.txt` holds their first column.
    func write(_ rows: [Row], columns: [String], _ results: [Result]) throws {
        try Output.write(text(rows, columns: columns, results), to: url.path)
    }

    func text(_ rows: [Row], columns: [String], _ results: [Result]) -> String {
        let results = results.map { $0.map { (Self.name($0.column, besides: columns), $0.value) } }
        switch format {
        case .txt:
            return results.map { Self.cell($0.first?.1).replacingOccurrences(of: "\n", with: "\\n") + "\n" }.joined()
        case .jsonl, .ndjson:
            return zip(rows, results).map { row, result in
                Self.object(columns.compactMap { name in row[name].map { (name, $0) } } + result) + "\n"
            }.joined()
        case .csv, .tsv:
            let separator = format == .csv ? "," : "\t"
            // Rows may have different result columns.
            var added: [String] = []
            for (name, _) in results.joined() where !added.contains(name) { added.append(name) }
            func line(_ cells: [String]) -> String {
                cells.map { Self.quoted($0, separator) }.joined(separator: separator) + "\n"
            }
            return line(columns + added)
                + zip(rows, results).map { row, result in
                    line(
                        columns.map { Self.cell(row[$0]) }
                            + added.map { name in Self.cell(result.first { $0.0 == name }?.1) })
                }.joined()
        }
    }

    /// The column of a result, renamed if the rows already have one of that name.
    static func name(_ column: String, besides columns: [String]) -> String {
        columns.contains(column) ? name("predicted_" + column, besides: columns) : column
    }

    private static func object(_ fields: [(String, JSON)]) -> String {
        "{" + fields.map { JSON.string($0).text(indent: nil) + ": " + $1.text(indent: nil) }.joined(separator: ", ")
            + "}"
    }

    private static func cell(_ value: JSON?) -> String {
        guard let value, value != .null else { return "" }
        return value.string ?? value.text(indent: nil)
    }

    /// A cell quoted as in RFC 4180.
    private static func quoted(_ text: String, _ separator: String) -> String {
        guard text.contains(where: { "\"\r\n".contains($0) || $0 == "\r\n" }) || text.contains(separator) else {
            return text
        }
        return "\"" + text.replacingOccurrences(of: "\"", with: "\"\"") + "\""
    }
}

/// The field names of rows in file order.
enum RowColumns {
    /// - Parameter rows: rows whose text, if kept, gives the order.
    static func of(_ rows: [Row]) -> [String] {
        var ordered: [String] = []
        var seen: Set<String> = []
        for row in rows {
            for name in (row.text.map(keys) ?? []) + row.fields.keys.sorted()
            where row.fields[name] != nil && seen.insert(name).inserted {
                ordered.append(name)
            }
        }
        return ordered
    }

    /// The keys of a JSON object's text, in order.
    static func keys(_ text: String) -> [String] {
        var keys: [String] = []
        var depth = 0
        var bytes = Array(text.utf8)[...]
        while let byte = bytes.popFirst() {
            switch byte {
            case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
            case UInt8(ascii: "\""):
                var string = [byte]
                while let next = bytes.popFirst() {
                    string.append(next)
                    if next == UInt8(ascii: "\\"), let escaped = bytes.popFirst() { string.append(escaped) }
                    if next == UInt8(ascii: "\"") { break }
                }
                let isKey = bytes.first { ![0x20, 0x09, 0x0A, 0x0D].contains($0) } == UInt8(ascii: ":")
                if depth == 1, isKey, let key = (try? JSON.parse(Data(string), name: ""))?.string { keys.append(key) }
            default: break
            }
        }
        return keys
    }
}
