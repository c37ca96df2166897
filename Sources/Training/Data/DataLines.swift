import PEFTSupport

/// The non-blank lines of data sources, in chunks.
struct DataLines: @unchecked Sendable {
    struct Line: Sendable {
        let source: Int
        let line: RowLines.Line
    }
    private let sources: [DataSource]
    private let kinds: [RowLines.Kind]
    /// The current source, the number of its lines read so far, and its reader.
    private var (source, count) = (0, 0)
    private var lines: RowLines?
    private var left: Int
    private var failure: (any Error)?

    init(_ sources: [DataSource], limit: Int?) throws {
        if let limit, limit < 1 {
            throw PEFTError("the row limit must be at least 1 (got \(limit))")
        }
        self.sources = sources
        kinds = try sources.map { source in
            guard let kind = try RowLines.Kind(source) else { throw Self.noLines(source) }
            return kind
        }
        left = limit ?? .max
    }

    private static func noLines(_ source: DataSource) -> PEFTError {
        PEFTError("\(source.name) does not have one row per line", remedy: "read the whole file")
    }

    /// The next lines of at least `bytes` bytes; `nil` at the end. A read error is thrown after the lines before it.
    mutating func next(bytes: Int) throws -> [Line]? {
        var part: [Line] = []
        var size = 0
        do {
            while failure == nil, left > 0, size < bytes, let line = try next() {
                // A slice would retain the reader's whole buffer.
                let own = RowLines.Line(number: line.number, text: Array(line.text)[...])
                part.append(Line(source: source, line: own))
                size += line.text.count
                left -= 1
            }
        } catch { failure = error }
        if part.isEmpty, let failure { throw failure }
        return part.isEmpty ? nil : part
    }

    private mutating func next() throws -> RowLines.Line? {
        while source < sources.count {
            if lines == nil {
                guard let opened = try RowLines(sources[source]) else { throw Self.noLines(sources[source]) }
                lines = opened
            }
            if let line = try lines?.next() {
                count += 1
                return line
            }
            guard count > 0 else { throw DataSet.empty(sources[source]) }
            (source, count, lines) = (source + 1, 0, nil)
        }
        return nil
    }

    func row(_ line: Line) throws -> Row { try kinds[line.source].row(line.line) }
}
