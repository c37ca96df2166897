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
    /// to a file, so that memory holds a few hundred kilobytes of text however long the data are.
    ///
    /// - Parameter limit: at most so many rows.
    /// - Throws: ``PEFTError`` of the first line with something wrong, as ``DataSet/read(_:limit:keepsText:)``,
    ///   ``RowTemplates/examples(from:)`` and ``encode(_:)`` throw it.
    public func encode(
        _ url: URL, _ templates: RowTemplates, limit: Int? = nil
    ) throws -> (rows: EncodedRows, summary: EncodingSummary) {
        var writer = try EncodedFile.Writer()
        defer { writer.close() }
        var lines = try DataLines(url, limit: limit)
        var summary = EncodingSummary()
        let workers = max(1, ProcessInfo.processInfo.activeProcessorCount)
        while true {
            // One part for each core; what is wrong with a line that can't be read comes after what is before it.
            var parts: [[DataLines.Line]] = []
            var failure: (any Error)?
            do {
                while parts.count < workers, let part = try lines.next(bytes: 1 << 18) { parts.append(part) }
            } catch { failure = error }
            for result in encoded(parts, templates, of: lines) {
                let (examples, part) = try result.get()
                for example in examples { try writer.append(example) }
                summary.add(part)
            }
            if let failure { throw failure }
            if parts.isEmpty { break }
        }
        guard summary.rows > 0 else { throw DataSet.empty(url) }
        return (EncodedRows(try writer.finished()), summary)
    }

    private typealias Encoded = Result<(examples: [EncodedExample], summary: EncodingSummary), any Error>

    private func encoded(_ parts: [[DataLines.Line]], _ templates: RowTemplates, of lines: DataLines) -> [Encoded] {
        let results = Results<Encoded>(count: parts.count)
        DispatchQueue.concurrentPerform(iterations: parts.count) { index in
            results.set(
                index, Result { try encode(templates.examples(from: parts[index].map { try lines.row($0) })) })
        }
        return results.all
    }
}

/// What parts that run side by side make, in order.
private final class Results<Value>: @unchecked Sendable {
    private let lock = NSLock()
    private var values: [Value?]
    init(count: Int) { values = Array(repeating: nil, count: count) }
    func set(_ index: Int, _ value: Value) { lock.withLock { values[index] = value } }
    var all: [Value] { values.compactMap { $0 } }
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

    /// Lines of at least so many bytes together; `nil` at the end.
    mutating func next(bytes: Int) throws -> [Line]? {
        var lines: [Line] = []
        var size = 0
        while left > 0, size < bytes, let line = try reader.next() {
            if line.text.isBlank { continue }
            // A slice would keep the reader's whole buffer.
            lines.append(Line(number: line.number, text: Array(line.text)[...]))
            size += line.text.count
            left -= 1
        }
        return lines.isEmpty ? nil : lines
    }

    func row(_ line: Line) throws -> Row {
        let location = Row.Location(file: file, number: line.number)
        return isText
            ? DataSet.textRow(line.text, location) : try DataSet.jsonRow(line.text, location, keepsText: false)
    }
}
