import Foundation
import PEFTSupport

/// Reads the rows of datasets in common file formats.
package enum DataSet {
    /// Reads a data source in the format of its file extension.
    ///
    /// | extension | format |
    /// |---|---|
    /// | `jsonl`, `ndjson`, `json` | one JSON object per line, an array of them, or an object that holds rows (``JSONDocument``) |
    /// | `csv` | a header, then rows separated by commas (or semicolons or tabs, if the header has those) |
    /// | `tsv` | the same with tabs; quotes usually are plain characters (``TSVQuoting``) |
    /// | `txt` | one row per line, with the field `text` |
    /// | `parquet`, remote files, SQL | read through ``DuckDB`` |
    ///
    /// Text may be compressed (``Compression``). It is UTF-8, with or without byte order mark; lines end in LF or CRLF and
    /// blank lines are skipped.
    /// - Parameters:
    ///   - limit: maximum number of rows; line formats are not read further.
    ///   - keepsText: whether rows keep their JSON text, and with it the order of keys or columns.
    /// - Throws: ``PEFTError`` naming the file, the line and the problem.
    package static func read(_ source: DataSource, limit: Int? = nil, keepsText: Bool = false) throws -> [Row] {
        if let limit, limit < 1 {
            throw PEFTError("the row limit must be at least 1 (got \(limit))")
        }
        let rows: [Row]
        if var lines = try RowLines(source) {
            rows = try read(&lines, limit: limit ?? .max, keepsText)
        } else {
            switch try source.format() {
            case .csv: rows = try readTable(source, delimiter: nil, limit: limit, keepsText)
            case .tsv: rows = try readTable(source, delimiter: .tab, limit: limit, keepsText)
            default:
                rows = try JSONDocument(
                    contents(source), name: source.name, limit: limit ?? .max, keepsText: keepsText
                ).rows(list: source.list)
            }
        }
        guard !rows.isEmpty else { throw empty(source) }
        return rows
    }

    /// Reads several sources, one after another.
    /// - Parameter limit: maximum number of rows of all sources together.
    package static func read(_ sources: [DataSource], limit: Int? = nil, keepsText: Bool = false) throws -> [Row] {
        var rows: [Row] = []
        for source in sources where rows.count < limit ?? .max {
            rows += try read(source, limit: limit.map { $0 - rows.count }, keepsText: keepsText)
        }
        return rows
    }

    /// Reads a file.
    package static func read(_ url: URL, limit: Int? = nil, keepsText: Bool = false) throws -> [Row] {
        try read(DataSource(url), limit: limit, keepsText: keepsText)
    }

    static func empty(_ source: DataSource) -> PEFTError {
        PEFTError(
            "\(source.name)\(source.list.map { ":\($0)" } ?? "") has no rows",
            remedy: "a data file needs at least one")
    }

    private static func read(_ lines: inout RowLines, limit: Int, _ keepsText: Bool) throws -> [Row] {
        var rows: [Row] = []
        while rows.count < limit, let line = try lines.next() {
            rows.append(try lines.kind.row(line, keepsText: keepsText))
        }
        return rows
    }

    /// A row from a line of JSON.
    static func jsonRow(_ line: ArraySlice<UInt8>, _ location: Row.Location, keepsText: Bool) throws -> Row {
        let value: JSON
        do { value = try JSONParser.parse(line) } catch {
            throw PEFTError(
                "\(location) is not valid JSON: \(error.message) (column \(column(of: error, in: line)))",
                remedy: "each line must be one JSON object")
        }
        return try row(value, location, keepsText ? line : nil)
    }

    /// A row from a line of text.
    static func textRow(_ line: ArraySlice<UInt8>, _ location: Row.Location) -> Row {
        Row(["text": .string(String(decoding: line, as: UTF8.self))], location: location)
    }

    /// A row from a JSON value, with its text if that is kept.
    static func row(_ value: JSON, _ location: Row.Location, _ text: ArraySlice<UInt8>?) throws -> Row {
        guard case .object(let fields) = value else {
            throw PEFTError(
                "\(location) is \(value.kind)", remedy: "each row must be an object such as {\"text\": \"…\"}")
        }
        return Row(fields, location: location, text: text.map { String(decoding: $0, as: UTF8.self) })
    }

    private static func column(of failure: JSONParser.Failure, in line: ArraySlice<UInt8>) -> Int {
        String(decoding: line.prefix(failure.offset), as: UTF8.self).unicodeScalars.count + 1
    }

    /// The contents of a file, validated as UTF-8, without a byte order mark.
    static func contents(_ source: DataSource) throws -> [UInt8] {
        var bytes = try source.open().readToEnd()
        if bytes.starts(with: byteOrderMark) { bytes.removeFirst(byteOrderMark.count) }
        guard bytes[...].isValidUTF8 else {
            // The line reader finds the line and throws.
            var rest = bytes[...]
            let stream = ByteStream { count in
                defer { rest = rest.dropFirst(count) }
                return Array(rest.prefix(count))
            }
            var reader = LineReader(stream, file: source.name)
            while try reader.next() != nil {}
            throw PEFTError("\(source.name) is not UTF-8 text", remedy: "save the file as UTF-8")
        }
        return bytes
    }
}

extension JSON {
    /// The value's type, for errors.
    var kind: String {
        switch self {
        case .array: "an array"
        case .string: "a string"
        case .null: "null"
        case .bool: "true or false"
        case .integer, .number: "a number"
        case .object: "an object"
        }
    }
}
