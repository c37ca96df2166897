import Foundation
import LanguageModels

extension RowEncoder {
    /// Whether a file can be encoded while it is read: one row per line, for a generative model.
    package func streams(_ url: URL) -> Bool { (try? streams([DataSource(url)])) ?? false }

    /// Whether all of several sources can be encoded while they are read.
    /// - Throws: ``PEFTError`` if one can't be read.
    package func streams(_ sources: [DataSource]) throws -> Bool {
        try head.headTask == nil && sources.allSatisfy { try $0.isLines }
    }

    /// Reads and encodes the rows of a file for which ``streams(_:)-(URL)`` holds.
    package func encode(
        _ url: URL, _ templates: RowTemplates, limit: Int? = nil
    ) throws -> (rows: EncodedRows, summary: EncodingSummary) {
        try encode([DataSource(url)], templates, limit: limit)
    }

    /// Reads and encodes the rows of sources for which ``streams(_:)-([DataSource])`` holds, in chunks of lines on all
    /// cores. Encoded examples go to a file, so memory use is a few hundred kilobytes of text per core for any size of
    /// data.
    ///
    /// - Parameter limit: maximum number of rows.
    /// - Throws: ``PEFTError`` for the first invalid line, as ``DataSet/read(_:limit:keepsText:)``,
    ///   ``RowTemplates/examples(from:)`` and ``encode(_:)`` throw it.
    package func encode(
        _ sources: [DataSource], _ templates: RowTemplates, limit: Int? = nil
    ) throws -> (rows: EncodedRows, summary: EncodingSummary) {
        try encode(sources, templates, limit: limit, partBytes: 1 << 18)
    }

    /// - Parameter partBytes: bytes of text per chunk.
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

    /// Errors are found at different stages: on an error, lines pass through all stages one by one to find the first.
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

/// Hands out chunks of lines to free workers and writes the results in order, so that cores read, encode and write at
/// the same time without a barrier after each chunk.
private final class RowStream: @unchecked Sendable {
    typealias Encoded = Result<(rows: EncodedFile.Packed, summary: EncodingSummary), any Error>

    // Everything below is guarded by the lock.
    private let condition = NSCondition()
    private var lines: DataLines
    private var writer: EncodedFile.Writer
    private var summary = EncodingSummary()
    /// Number of chunks handed out, and of chunks written.
    private var (read, written) = (0, 0)
    /// Finished chunks that wait for earlier ones.
    private var waiting: [Int: Encoded] = [:]
    private var isAtEnd = false
    private var failure: (any Error)?
    private let partBytes: Int
    private let partsAhead: Int

    /// - Parameter partsAhead: maximum number of chunks between reading and writing, which bounds memory.
    init(_ lines: DataLines, partBytes: Int, partsAhead: Int) throws {
        (self.lines, self.partBytes, self.partsAhead) = (lines, partBytes, partsAhead)
        writer = try EncodedFile.Writer()
    }

    deinit { writer.close() }

    /// The next chunk of lines and its number; `nil` at the end or after an error.
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
                // Errors of earlier lines come first.
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

    /// All examples, after ``next()`` has returned `nil` and all chunks are finished.
    func finished() throws -> (rows: EncodedFile, summary: EncodingSummary) {
        try condition.withLock {
            if let failure { throw failure }
            return (try writer.finished(), summary)
        }
    }
}
