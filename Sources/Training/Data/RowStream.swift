import Foundation
import LanguageModels
import Support
import Tokenizers

extension RowEncoder {
    /// Whether a file's rows can be encoded as they are read: one to a line, for a model that writes.
    public func streams(_ url: URL) -> Bool {
        head.headTask == nil && ["jsonl", "ndjson", "txt"].contains(url.pathExtension.lowercased())
    }

    /// Reads and encodes the rows of a file for which ``streams(_:)`` holds, some lines at a time on all cores. Rows go
    /// to a file, so that memory holds a few hundred kilobytes of text for each core however long the data are.
    ///
    /// - Parameter limit: at most so many rows.
    /// - Throws: ``PEFTError`` of the first line with something wrong, as ``DataSet/read(_:limit:keepsText:)``,
    ///   ``RowTemplates/examples(from:)`` and ``encode(_:)`` throw it.
    public func encode(
        _ url: URL, _ templates: RowTemplates, limit: Int? = nil
    ) throws -> (rows: EncodedRows, summary: EncodingSummary) {
        try encode(url, templates, limit: limit, partBytes: 1 << 18)
    }

    /// - Parameter partBytes: how much text is handed out at a time.
    func encode(
        _ url: URL, _ templates: RowTemplates, limit: Int?, partBytes: Int
    ) throws -> (rows: EncodedRows, summary: EncodingSummary) {
        let workers = max(1, ProcessInfo.processInfo.activeProcessorCount)
        let lines = try DataLines(url, limit: limit)
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
        guard summary.rows > 0 else { throw DataSet.empty(url) }
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

/// The lines of a data file that hold rows, a part at a time.
struct DataLines: @unchecked Sendable {
    struct Line: Sendable {
        let number: Int
        let text: ArraySlice<UInt8>
    }
    private var reader: LineReader
    private let isText: Bool
    private var left: Int
    private var failure: (any Error)?
    private let file: String

    init(_ url: URL, limit: Int?) throws {
        if let limit, limit < 1 {
            throw PEFTError("a limit of \(limit) rows leaves nothing to read", remedy: "give at least 1")
        }
        reader = try LineReader(url)
        isText = url.pathExtension.lowercased() == "txt"
        left = limit ?? .max
        file = reader.file
    }

    /// Lines of at least so many bytes together; `nil` at the end. What can't be read is reported after the lines before it.
    mutating func next(bytes: Int) throws -> [Line]? {
        var lines: [Line] = []
        var size = 0
        do {
            while failure == nil, left > 0, size < bytes, let line = try reader.next() {
                if line.text.isBlank { continue }
                // A slice would keep the reader's whole buffer.
                lines.append(Line(number: line.number, text: Array(line.text)[...]))
                size += line.text.count
                left -= 1
            }
        } catch { failure = error }
        if lines.isEmpty, let failure { throw failure }
        return lines.isEmpty ? nil : lines
    }

    func row(_ line: Line) throws -> Row {
        let location = Row.Location(file: file, number: line.number)
        return isText
            ? DataSet.textRow(line.text, location) : try DataSet.jsonRow(line.text, location, keepsText: false)
    }
}
