import Foundation
import PEFTSupport

/// Reads a file line by line, buffering one chunk and an incomplete line.
///
/// Lines end in LF or CRLF; a byte order mark at the start is dropped.
struct LineReader {
    let file: String
    private let stream: ByteStream
    private let chunkSize: Int
    private var buffer: [UInt8] = []
    /// Where the next line starts in `buffer`.
    private var start = 0
    private var atEnd = false
    private var lineNumber = 0

    /// - Parameters:
    ///   - file: its name in errors.
    ///   - chunkSize: bytes per read.
    init(_ stream: ByteStream, file: String, chunkSize: Int = 1 << 18) {
        (self.stream, self.file) = (stream, file)
        self.chunkSize = max(1, chunkSize)
    }

    /// - Throws: ``PEFTError`` where the file is missing, unreadable or a folder.
    init(_ url: URL, chunkSize: Int = 1 << 18) throws {
        self.init(try ByteStream(url), file: url.relativePath, chunkSize: chunkSize)
    }

    /// The next line without its end, and its number from 1; `nil` at the end of the file.
    /// - Throws: ``PEFTError`` where the line is not UTF-8 or the file can't be read on.
    mutating func next() throws -> (number: Int, text: ArraySlice<UInt8>)? {
        var scanned = start
        while true {
            if let end = LineReader.newline(in: buffer, from: scanned) {
                defer { start = end + 1 }
                return try line(buffer[start..<end])
            }
            if atEnd {
                guard start < buffer.count else { return nil }
                defer { start = buffer.count }
                return try line(buffer[start...])
            }
            buffer.removeFirst(start)
            start = 0
            scanned = buffer.count
            try fill()
        }
    }

    private mutating func fill() throws {
        let isFirst = lineNumber == 0 && buffer.isEmpty
        let chunk = try stream.read(chunkSize)
        atEnd = chunk.isEmpty
        buffer += chunk
        // Complete a byte order mark that a tiny chunk cuts.
        while isFirst, !atEnd, buffer.count < byteOrderMark.count {
            let more = try stream.read(chunkSize)
            atEnd = more.isEmpty
            buffer += more
        }
        if isFirst, buffer.starts(with: byteOrderMark) { buffer.removeFirst(byteOrderMark.count) }
    }

    private mutating func line(_ bytes: ArraySlice<UInt8>) throws -> (number: Int, text: ArraySlice<UInt8>) {
        lineNumber += 1
        let text = bytes.last == UInt8(ascii: "\r") ? bytes.dropLast() : bytes
        guard text.isValidUTF8 else {
            throw PEFTError("\(file) line \(lineNumber) is not UTF-8 text", remedy: "save the file as UTF-8")
        }
        return (lineNumber, text)
    }

    private static func newline(in bytes: [UInt8], from start: Int) -> Int? {
        bytes.withUnsafeBytes { buffer in
            guard let base = buffer.baseAddress, start < buffer.count,
                let found = memchr(base + start, 0x0A, buffer.count - start)
            else { return nil }
            return UnsafeRawPointer(found) - base
        }
    }
}

extension ArraySlice<UInt8> {
    var isValidUTF8: Bool {
        // Most lines are ASCII, which needs no decoding.
        withUnsafeBufferPointer { bytes in
            if bytes.allSatisfy({ $0 < 0x80 }) { return true }
            var decoder = UTF8()
            var iterator = bytes.makeIterator()
            while true {
                switch decoder.decode(&iterator) {
                case .scalarValue: continue
                case .emptyInput: return true
                case .error: return false
                }
            }
        }
    }

    var isBlank: Bool { allSatisfy { $0 == 0x20 || (0x09...0x0D).contains($0) } }
}
