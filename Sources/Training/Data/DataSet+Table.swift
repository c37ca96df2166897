import Foundation
import PEFTSupport
import SwiftCSV

extension DataSet {
    /// Reads a table with a header; every value is a string.
    ///
    /// Fields follow RFC 4180, apart from spaces before an unquoted field, which are dropped. The whole file
    /// is parsed even under a limit: the parser can't stop, and an unclosed quote shows only at the end.
    /// - Parameter delimiter: `nil` takes what the header is separated by.
    static func readTable(_ source: DataSource, delimiter: CSVDelimiter?, limit: Int?, _ keepsText: Bool) throws
        -> [Row]
    {
        let file = source.name
        let bytes = try contents(source)
        if delimiter == .tab, !TSVQuoting.isQuoted(bytes) {
            return try readPlainTable(bytes, file: file, limit: limit ?? .max, keepsText)
        }
        // An unclosed quote swallows the rest of the file, and the parser takes that for a field. Then this
        // last row goes missing.
        let sentinel = "\u{1}end\u{1}"
        let text = String(decoding: bytes, as: UTF8.self) + "\n\(sentinel)\n"
        let delimiter = delimiter ?? CSVDelimiter.guessed(string: text)

        var header: [String]?
        var rows: [Row] = []
        var problem: PEFTError?
        var line = 1
        var rowStart = 1
        var isComplete = false

        func take(_ cells: [String]) {
            rowStart = line
            line += 1 + cells.reduce(0) { $0 + newlines(in: $1) }
            isComplete = cells == [sentinel]
            let isBlank = cells.count == 1 && cells[0].allSatisfy(\.isWhitespace)
            guard problem == nil, !isBlank, !isComplete else { return }
            guard let names = header else {
                header = cells.map { $0.trimmingCharacters(in: .whitespaces) }
                problem = headerProblem(header ?? [], file: file)
                return
            }
            guard cells.count == names.count else {
                problem = PEFTError(
                    "\(file) line \(rowStart) has \(columns(cells.count)) where the header has \(names.count)",
                    remedy: "quote fields that contain a delimiter or a line break")
                return
            }
            guard rows.count < limit ?? .max else { return }
            rows.append(row(names, cells, .init(file: file, number: rowStart), keepsText))
        }

        do {
            let table = try CSV<Unparsed>(string: text, delimiter: delimiter, loadColumns: false)
            try table.enumerateAsArray(startAt: 0, rowLimit: nil, take)
        } catch {
            throw problem
                ?? PEFTError(
                    "\(file) line \(line) has a stray double quote in a field",
                    remedy: "put the field in double quotes and double the quotes inside")
        }
        if let problem { throw problem }
        guard isComplete else {
            throw PEFTError(
                "\(file) line \(rowStart) opens a double quote that is never closed",
                remedy: "close it, or double the quotes inside a quoted field")
        }
        if header != nil, rows.isEmpty { throw headerOnly(file) }
        return rows
    }

    /// Reads lines whose fields are separated by tabs, without quoting.
    private static func readPlainTable(_ bytes: [UInt8], file: String, limit: Int, _ keepsText: Bool) throws -> [Row]
    {
        var header: [String]?
        var rows: [Row] = []
        for (index, line) in bytes.split(separator: 0x0A, omittingEmptySubsequences: false).enumerated() {
            let line = line.last == 0x0D ? line.dropLast() : line
            let cells = line.split(separator: 0x09, omittingEmptySubsequences: false)
                .map { String(decoding: $0, as: UTF8.self) }
            if cells.count == 1, line.isBlank { continue }
            guard let names = header else {
                let names = cells.map { $0.trimmingCharacters(in: .whitespaces) }
                if let problem = headerProblem(names, file: file) { throw problem }
                header = names
                continue
            }
            guard rows.count < limit else { break }
            guard cells.count == names.count else {
                throw PEFTError(
                    "\(file) line \(index + 1) has \(columns(cells.count)) where the header has \(names.count)",
                    remedy: "quote fields that contain a tab or a line break, throughout the file as in CSV")
            }
            rows.append(row(names, cells, .init(file: file, number: index + 1), keepsText))
        }
        if header != nil, rows.isEmpty { throw headerOnly(file) }
        return rows
    }

    /// A row of a table, with its JSON in the order of the columns where text is kept.
    private static func row(_ names: [String], _ cells: [String], _ location: Row.Location, _ keepsText: Bool) -> Row
    {
        let fields = Dictionary(zip(names, cells.map(JSON.string)), uniquingKeysWith: { first, _ in first })
        guard keepsText else { return Row(fields, location: location) }
        var text = "{"
        for (name, cell) in zip(names, cells) {
            if text.count > 1 { text += ", " }
            JSON.quote(name, into: &text)
            text += ": "
            JSON.quote(cell, into: &text)
        }
        return Row(fields, location: location, text: text + "}")
    }

    private static func headerOnly(_ file: String) -> PEFTError {
        PEFTError("\(file) has a header but no rows", remedy: "a data file needs at least one row")
    }

    private static func headerProblem(_ names: [String], file: String) -> PEFTError? {
        var seen: Set<String> = []
        for name in names where !seen.insert(name).inserted {
            return PEFTError(
                "\(file) has more than one column named '\(name)'", remedy: "rename one of them in the header")
        }
        return nil
    }

    private static func columns(_ count: Int) -> String { count == 1 ? "1 column" : "\(count) columns" }

    /// Line ends as an editor counts them: LF, CRLF, CR.
    private static func newlines(in text: String) -> Int {
        var count = 0
        var previous: UInt8 = 0
        for byte in text.utf8 {
            if byte == 0x0D || (byte == 0x0A && previous != 0x0D) { count += 1 }
            previous = byte
        }
        return count
    }

    /// Keeps SwiftCSV from holding all rows itself; they are enumerated instead.
    private struct Unparsed: CSVView {
        var rows: [[String]] { [] }
        var columns: [String]? { nil }
        init(header: [String], text: String, delimiter: CSVDelimiter, loadColumns: Bool, rowLimit: Int?) {}
        func serialize(header: [String], delimiter: CSVDelimiter) -> String { "" }
    }
}
