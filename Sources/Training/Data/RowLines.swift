import PEFTSupport

/// The rows of a data source with one row per line: JSON Lines, text, and DuckDB's output.
struct RowLines {
    struct Line: Sendable {
        let number: Int
        let text: ArraySlice<UInt8>
    }

    private var reader: LineReader
    let kind: Kind
    /// Lines that were read ahead to detect the layout, and the error that stopped it.
    private var pending: [Line] = []
    private var failure: (any Error)?

    /// `nil` if there isn't one row per line: for tables and JSON files of one value.
    init?(_ source: DataSource) throws {
        guard let kind = try Kind(source) else { return nil }
        self.kind = kind
        let format = try source.format()
        reader = LineReader(try source.open(), file: source.name)
        guard format.isJSON else { return }
        while pending.count < 2, failure == nil {
            do {
                guard let line = try read() else { break }
                pending.append(Line(number: line.number, text: Array(line.text)[...]))
            } catch { failure = error }
        }
        if Self.areDocument(pending, format) { return nil }
    }

    /// Parses lines to rows, on any thread.
    struct Kind: Sendable {
        private let file: String
        private let unit: Row.Location.Unit
        private let isText: Bool

        /// `nil` for formats without one row per line; JSON files need a look at their contents in addition.
        init?(_ source: DataSource) throws {
            let format = try source.format()
            let isRemote = if case .remote = source.place { true } else { false }
            let areRows = isRemote ? DuckDB.writesRows(format) : format == .parquet
            guard areRows || format == .text || format == .jsonLines || format == .json && !isRemote,
                source.list == nil
            else { return nil }
            (file, unit, isText) = (source.name, areRows ? .row : .line, format == .text)
        }

        func row(_ line: Line, keepsText: Bool = false) throws -> Row {
            let location = Row.Location(file: file, number: line.number, unit: unit)
            return isText
                ? DataSet.textRow(line.text, location)
                : try DataSet.jsonRow(line.text, location, keepsText: keepsText)
        }
    }

    /// The next line that holds a row; `nil` at the end.
    mutating func next() throws -> Line? {
        if !pending.isEmpty { return pending.removeFirst() }
        if let failure { throw failure }
        return try read()
    }

    private mutating func read() throws -> Line? {
        while let line = try reader.next() {
            if !line.text.isBlank { return Line(number: line.number, text: line.text) }
        }
        return nil
    }

    /// Whether a file that begins with these lines is one value, or several values that span lines.
    private static func areDocument(_ lines: [Line], _ format: DataFormat) -> Bool {
        guard let first = lines.first else { return false }
        func byte(_ line: Line?, last: Bool = false) -> UInt8? {
            let isText = { (byte: UInt8) in byte != 0x20 && byte != 0x09 }
            return last ? line?.text.last(where: isText) : line?.text.first(where: isText)
        }
        let second = byte(lines.dropFirst().first)
        do {
            switch try JSONParser.parse(first.text) {
            case .array: return second != UInt8(ascii: "[")
            // A single object is a row in JSON Lines, but may be the whole dataset in JSON.
            case .object: return lines.count == 1 && format == .json
            default: return false
            }
        } catch {
            if byte(first) == UInt8(ascii: "[") { return true }
            // An object that continues on the next line, not a truncated line.
            guard byte(first) == UInt8(ascii: "{"), error.offset >= first.text.count, let second else { return false }
            return "[{,:".utf8.contains(byte(first, last: true) ?? 0) || ",]}:\"".utf8.contains(second)
        }
    }
}
