import Support

/// The rows of a data source that stand one to a line: JSON lines, text, and what DuckDB writes.
struct RowLines {
    struct Line: Sendable {
        let number: Int
        let text: ArraySlice<UInt8>
    }

    private var reader: LineReader
    let kind: Kind
    /// Lines that were read to tell the layout, and what stopped that.
    private var pending: [Line] = []
    private var failure: (any Error)?

    /// `nil` where rows aren't one to a line: in tables and in JSON files of one value.
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

    /// What a line means; it may be asked on any thread.
    struct Kind: Sendable {
        private let file: String
        private let unit: Row.Location.Unit
        private let isText: Bool

        /// `nil` for formats in which rows aren't one to a line; of those of JSON only a look into the file tells.
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

    /// Whether a file that begins with these lines is one value, or several over more lines than one each.
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
            // One object alone: a row in a format of lines, else perhaps the whole data set.
            case .object: return lines.count == 1 && format == .json
            default: return false
            }
        } catch {
            if byte(first) == UInt8(ascii: "[") { return true }
            // An object that goes on in the next line, and not a line that was cut off.
            guard byte(first) == UInt8(ascii: "{"), error.offset >= first.text.count, let second else { return false }
            return "[{,:".utf8.contains(byte(first, last: true) ?? 0) || ",]}:\"".utf8.contains(second)
        }
    }
}
