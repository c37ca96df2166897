import Foundation
import Support

/// Reads rows from the files that people keep them in.
public enum DataSet {
    /// Reads a data file; its extension names the format.
    ///
    /// | extension | format |
    /// |---|---|
    /// | `jsonl`, `ndjson` | one JSON object per line |
    /// | `json` | an array of objects, or one object per line |
    /// | `csv` | a header, then rows separated by commas (or semicolons or tabs, if the header has those) |
    /// | `tsv` | the same with tabs |
    /// | `txt` | one row per line, with the field `text` |
    ///
    /// Text is UTF-8, with or without byte order mark; lines end in LF or CRLF and blank lines are skipped.
    /// - Parameters:
    ///   - limit: read at most so many rows; in line formats the rest isn't looked at.
    ///   - keepsText: whether rows keep their JSON as it stands in the file.
    /// - Throws: ``PEFTError`` naming the file, the line and what is wrong there.
    public static func read(_ url: URL, limit: Int? = nil, keepsText: Bool = false) throws -> [Row] {
        if let limit, limit < 1 {
            throw PEFTError("a limit of \(limit) rows leaves nothing to read", remedy: "give at least 1")
        }
        let rows: [Row]
        switch url.pathExtension.lowercased() {
        case "jsonl", "ndjson": rows = try readLines(url, limit: limit, keepsText)
        case "json": rows = try readJSON(url, limit: limit, keepsText)
        case "csv": rows = try readTable(url, delimiter: nil, limit: limit)
        case "tsv": rows = try readTable(url, delimiter: .tab, limit: limit)
        case "txt": rows = try readText(url, limit: limit)
        case let other:
            _ = try LineReader.open(url)
            throw PEFTError(
                "\(url.relativePath) has the unknown data format '\(other)'",
                remedy: "use .jsonl, .ndjson, .json, .csv, .tsv or .txt")
        }
        guard !rows.isEmpty else { throw empty(url) }
        return rows
    }

    static func empty(_ url: URL) -> PEFTError {
        PEFTError("\(url.relativePath) holds no rows", remedy: "a data file needs at least one")
    }

    private static func readLines(_ url: URL, limit: Int?, _ keepsText: Bool) throws -> [Row] {
        var reader = try LineReader(url)
        var rows: [Row] = []
        while rows.count < limit ?? .max, let line = try reader.next() {
            if line.text.isBlank { continue }
            let location = Row.Location(file: reader.file, number: line.number)
            rows.append(try jsonRow(line.text, location, keepsText: keepsText))
        }
        return rows
    }

    /// A line of JSON as a row.
    static func jsonRow(_ line: ArraySlice<UInt8>, _ location: Row.Location, keepsText: Bool) throws -> Row {
        let value: JSON
        do { value = try JSONParser.parse(line) } catch {
            throw PEFTError(
                "\(location) is not valid JSON: \(error.message) (column \(column(of: error, in: line)))",
                remedy: "each line must be one JSON object")
        }
        return try row(value, location, keepsText ? line : nil)
    }

    /// A line of text as a row.
    static func textRow(_ line: ArraySlice<UInt8>, _ location: Row.Location) -> Row {
        Row(["text": .string(String(decoding: line, as: UTF8.self))], location: location)
    }

    private static func readText(_ url: URL, limit: Int?) throws -> [Row] {
        var reader = try LineReader(url)
        var rows: [Row] = []
        while rows.count < limit ?? .max, let line = try reader.next() {
            if line.text.isBlank { continue }
            rows.append(textRow(line.text, .init(file: reader.file, number: line.number)))
        }
        return rows
    }

    private static func readJSON(_ url: URL, limit: Int?, _ keepsText: Bool) throws -> [Row] {
        var reader = try LineReader(url)
        var first = try reader.next()
        while let line = first, line.text.isBlank { first = try reader.next() }
        guard let first else { return [] }
        let isArray = first.text.first { $0 != 0x20 && $0 != 0x09 } == UInt8(ascii: "[")
        guard isArray else { return try readLines(url, limit: limit, keepsText) }
        let text = try contents(url)
        var rows: [Row] = []
        do {
            try JSONParser.elements(of: text[...]) { value, source in
                let location = Row.Location(file: url.relativePath, number: rows.count + 1, unit: .element)
                rows.append(try row(value, location, keepsText ? source : nil))
                return rows.count < limit ?? .max
            }
        } catch let error as JSONParser.Failure {
            let before = text[..<error.offset]
            let line = before.count { $0 == 0x0A } + 1
            let start = before.lastIndex(of: 0x0A).map { $0 + 1 } ?? 0
            let column = String(decoding: before[start...], as: UTF8.self).unicodeScalars.count + 1
            throw PEFTError(
                "\(url.relativePath) line \(line) is not valid JSON: \(error.message) (column \(column))",
                remedy: "the file must be one array of objects, or one object per line")
        }
        return rows
    }

    private static func row(_ value: JSON, _ location: Row.Location, _ text: ArraySlice<UInt8>?) throws -> Row {
        guard case .object(let fields) = value else {
            let kind =
                switch value {
                case .array: "an array"
                case .string: "a string"
                case .null: "null"
                case .bool: "true or false"
                case .integer, .number: "a number"
                case .object: "an object"
                }
            throw PEFTError("\(location) is \(kind)", remedy: "each row must be an object such as {\"text\": \"…\"}")
        }
        return Row(fields, location: location, text: text.map { String(decoding: $0, as: UTF8.self) })
    }

    private static func column(of failure: JSONParser.Failure, in line: ArraySlice<UInt8>) -> Int {
        String(decoding: line.prefix(failure.offset), as: UTF8.self).unicodeScalars.count + 1
    }

    /// A whole file without its byte order mark, known to be UTF-8.
    static func contents(_ url: URL) throws -> [UInt8] {
        let handle = try LineReader.open(url)
        let data: Data
        do { data = try handle.readToEnd() ?? Data() } catch {
            throw PEFTError("can't read \(url.relativePath)", remedy: "check the disk it lies on")
        }
        var bytes = [UInt8](data)
        if bytes.starts(with: byteOrderMark) { bytes.removeFirst(byteOrderMark.count) }
        guard bytes[...].isValidUTF8 else {
            // The line reader finds the line and throws.
            var reader = try LineReader(url)
            while try reader.next() != nil {}
            throw PEFTError("\(url.relativePath) is not UTF-8 text", remedy: "save the file as UTF-8")
        }
        return bytes
    }
}
