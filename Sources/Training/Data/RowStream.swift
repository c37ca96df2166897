import Foundation
import LanguageModels
import Support
import Tokenizers

extension RowEncoder {
    /// Whether a file's rows can be encoded as they are read: one to a line, for a model that writes.
    public func streams(_ url: URL) -> Bool { (try? streams([DataSource(url)])) ?? false }

    /// The same of several sources.
    /// - Throws: ``PEFTError`` where one can't be read.
    public func streams(_ sources: [DataSource]) throws -> Bool {
        try head.headTask == nil && sources.allSatisfy { try $0.isLines }
    }

    /// Reads and encodes the rows of a file for which ``streams(_:)-(URL)`` holds.
    public func encode(
        _ url: URL, _ templates: RowTemplates, limit: Int? = nil
    ) throws -> (rows: EncodedRows, summary: EncodingSummary) {
        try encode([DataSource(url)], templates, limit: limit)
    }

    /// Reads and encodes the rows of sources for which ``streams(_:)-([DataSource])`` holds, some lines at a time on all
    /// cores. Rows go to a file, so that memory holds a few hundred kilobytes of text for each core however long the data
    /// are.
    ///
    /// - Parameter limit: at most so many rows.
    /// - Throws: ``PEFTError`` of the first line with something wrong, as ``DataSet/read(_:limit:keepsText:)``,
    ///   ``RowTemplates/examples(from:)`` and ``encode(_:)`` throw it.
    public func encode(
        _ sources: [DataSource], _ templates: RowTemplates, limit: Int? = nil
    ) throws -> (rows: EncodedRows, summary: EncodingSummary) {
        try encode(sources, templates, limit: limit, partBytes: 1 << 18)
    }

    /// - Parameter partBytes: how much text is handed out at a time.
    func encode(
        _ sources: [DataSource], _ templates: RowTemplates, limit: Int?, partBytes: Int
    ) throws -> (rows: EncodedRows, summary: EncodingSummary) {
        let workers = max(1, ProcessInfo.processInfo.activeProcessorCount)
        let lines = try DataLines(sources, limit: limit)
        let stream = try RowStream(lines, partBytes: partBytes, partsAhead: 2 * workers)
        DispatchQueue.concurrentPerform(iterations: workers) { _ in
            while let (number, part) = stream.next() {
                stream.finish(
                    number,
                    Result {
                        let encoded = try encode(part, of: lines, templates)
                        var rows = EncodedFile.Packed()
                        for example in encoded.examples { rows.append(example) }
                        return (rows, encoded.summary)
                    })
            }
        }
        let (rows, summary) = try stream.finished()
        return (EncodedRows(rows), summary)
    }

    /// What is wrong with a line is found at different stages: where something is, lines go through all of them one by one.
    private func encode(_ part: [DataLines.Line], of lines: DataLines, _ templates: RowTemplates) throws -> (
        examples: [EncodedExample], summary: EncodingSummary
    ) {
        do {
            return try encode(templates.examples(from: part.map { try lines.row($0) }))
        } catch {
            for line in part { _ = try encode(templates.examples(from: [lines.row(line)])) }
            throw error
        }
    }
}

/// Hands the parts of a file to whoever has time, and puts what comes back in order: cores read, encode and write at the
/// same time, and none waits for the others at the end of each part.
private final class RowStream: @unchecked Sendable {
    typealias Encoded = Result<(rows: EncodedFile.Packed, summary: EncodingSummary), any Error>

    // Everything below is touched only under the lock.
    private let condition = NSCondition()
    private var lines: DataLines
    private var writer: EncodedFile.Writer
    private var summary = EncodingSummary()
    /// Parts that were handed out and that were written.
    private var (read, written) = (0, 0)
    /// Parts that are ready before those in front of them.
    private var waiting: [Int: Encoded] = [:]
    private var isAtEnd = false
    private var failure: (any Error)?
    private let partBytes: Int
    private let partsAhead: Int

    /// - Parameter partsAhead: how far reading may be ahead of writing, which bounds memory.
    init(_ lines: DataLines, partBytes: Int, partsAhead: Int) throws {
        (self.lines, self.partBytes, self.partsAhead) = (lines, partBytes, partsAhead)
        writer = try EncodedFile.Writer()
    }

    deinit { writer.close() }

    /// The next lines and the number of the part; `nil` where there are none left or something is wrong.
    func next() -> (number: Int, lines: [DataLines.Line])? {
        condition.withLock {
            while read - written >= partsAhead, failure == nil { condition.wait() }
            guard !isAtEnd, failure == nil else { return nil }
            do {
                if let part = try lines.next(bytes: partBytes) {
                    read += 1
                    return (read - 1, part)
                }
            } catch {
                // What is wrong with lines before comes first.
                waiting[read] = .failure(error)
                writeInOrder()
            }
            isAtEnd = true
            return nil
        }
    }

    func finish(_ number: Int, _ part: Encoded) {
        condition.withLock {
            waiting[number] = part
            writeInOrder()
            condition.broadcast()
        }
    }

    private func writeInOrder() {
        while failure == nil, let part = waiting.removeValue(forKey: written) {
            do {
                let (rows, own) = try part.get()
                try writer.append(rows)
                summary.add(own)
                written += 1
            } catch { failure = error }
        }
    }

    /// All rows, after ``next()`` has answered `nil` and all parts are back.
    func finished() throws -> (rows: EncodedFile, summary: EncodingSummary) {
        try condition.withLock {
            if let failure { throw failure }
            return (try writer.finished(), summary)
        }
    }
}

/// The lines of data sources that hold rows, a part at a time.
struct DataLines: @unchecked Sendable {
    struct Line: Sendable {
        let source: Int
        let line: RowLines.Line
    }
    private let sources: [DataSource]
    private let kinds: [RowLines.Kind]
    /// The source that is read, how many of its lines were, and what is left of it.
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

    /// Lines of at least so many bytes together; `nil` at the end. What can't be read is reported after the lines before it.
    mutating func next(bytes: Int) throws -> [Line]? {
        var part: [Line] = []
        var size = 0
        do {
            while failure == nil, left > 0, size < bytes, let line = try next() {
                // A slice would keep the reader's whole buffer.
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
