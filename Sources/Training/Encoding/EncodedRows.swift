import Foundation
import LanguageModels
import PEFTSupport

/// Examples as token ids, in memory or in a memory-mapped file with an index of 16 bytes per example in memory.
public struct EncodedRows: RandomAccessCollection, Sendable {
    private enum Storage {
        case memory([EncodedExample])
        case file(EncodedFile)
    }
    private let storage: Storage
    /// Indices of the selected examples; `nil` for all.
    private var chosen: [Int]?

    /// Examples in memory.
    public init(_ examples: [EncodedExample]) { storage = .memory(examples) }
    init(_ file: EncodedFile) { storage = .file(file) }

    /// A subset of the examples, without a copy.
    package func selecting(_ rows: [Int]) -> EncodedRows {
        var copy = self
        copy.chosen = chosen.map { chosen in rows.map { chosen[$0] } } ?? rows
        return copy
    }

    /// The index of the first example, 0.
    public var startIndex: Int { 0 }
    /// The number of examples.
    public var endIndex: Int {
        if let chosen { return chosen.count }
        return switch storage {
        case .memory(let examples): examples.count
        case .file(let file): file.count
        }
    }

    /// The example of an index in ``startIndex`` … ``endIndex``.
    public subscript(row: Int) -> EncodedExample {
        let row = chosen?[row] ?? row
        return switch storage {
        case .memory(let examples): examples[row]
        case .file(let file): file[row]
        }
    }

    /// Tokens of an example, without reading it.
    func length(of row: Int) -> Int {
        let row = chosen?[row] ?? row
        return switch storage {
        case .memory(let examples): examples[row].length
        case .file(let file): file.length(of: row)
        }
    }

    /// Tokens of each example, without reading it.
    var lengths: [Int] {
        let all =
            switch storage {
            case .memory(let examples): examples.map(\.length)
            case .file(let file): file.lengths
            }
        return chosen.map { chosen in chosen.map { all[$0] } } ?? all
    }
}

/// Examples of a generative model in an unnamed memory-mapped file, paged in and out by the system.
final class EncodedFile: @unchecked Sendable {
    private let map: UnsafeRawPointer?
    private let bytes: Int
    /// Offset of each example in tokens, with the end as the last entry, and its number of input tokens.
    private let starts: [Int]
    private let inputs: [Int32]
    /// The data sources, and the line number of each example; 0 if it has no source.
    private let sources: [Source]
    private let lines: [Int32]

    /// A data source and its first example.
    fileprivate struct Source {
        var firstRow: Int
        let file: String
        let unit: Row.Location.Unit
    }

    fileprivate init(
        map: UnsafeRawPointer?, bytes: Int, starts: [Int], inputs: [Int32], sources: [Source], lines: [Int32]
    ) {
        (self.map, self.bytes, self.starts, self.inputs) = (map, bytes, starts, inputs)
        (self.sources, self.lines) = (sources, lines)
    }

    deinit { if let map { munmap(UnsafeMutableRawPointer(mutating: map), bytes) } }

    var count: Int { inputs.count }
    var lengths: [Int] { zip(starts.dropFirst(), starts).map { $0 - $1 } }
    func length(of row: Int) -> Int { starts[row + 1] - starts[row] }

    subscript(row: Int) -> EncodedExample {
        let tokens = (starts[row]..<starts[row + 1]).map { place in
            Int(map?.load(fromByteOffset: 4 * place, as: Int32.self) ?? 0)
        }
        let input = Int(inputs[row])
        var example = EncodedExample(input: Array(tokens[..<input]), target: Array(tokens[input...]))
        if lines[row] > 0, let source = sources.last(where: { $0.firstRow <= row }) {
            example.location = Row.Location(file: source.file, number: Int(lines[row]), unit: source.unit)
        }
        return example
    }

    /// Concatenated examples, in the layout of the file.
    struct Packed: Sendable {
        fileprivate var tokens: [Int32] = []
        /// Input tokens and all tokens of each example.
        fileprivate var lengths: [(input: Int32, all: Int)] = []
        fileprivate var lines: [Int32] = []
        fileprivate var sources: [Source] = []

        mutating func append(_ example: EncodedExample) {
            for id in example.input { tokens.append(Int32(truncatingIfNeeded: id)) }
            for id in example.target { tokens.append(Int32(truncatingIfNeeded: id)) }
            lengths.append((Int32(truncatingIfNeeded: example.input.count), example.length))
            lines.append(Int32(truncatingIfNeeded: example.location?.number ?? 0))
            if let place = example.location, sources.last?.file != place.file || sources.last?.unit != place.unit {
                sources.append(Source(firstRow: lines.count - 1, file: place.file, unit: place.unit))
            }
        }
    }

    /// Appends examples to the file.
    struct Writer {
        private let descriptor: Int32
        private let folder: String
        private var starts = [0]
        private var inputs: [Int32] = []
        private var lines: [Int32] = []
        private var sources: [Source] = []

        /// - Throws: ``PEFTError`` if the file can't be created.
        init() throws {
            folder = FileManager.default.temporaryDirectory.path
            var name = Array((folder + "/peft-rows-XXXXXX").utf8CString)
            descriptor = mkstemp(&name)
            guard descriptor >= 0 else {
                throw PEFTError("can't create a file in \(folder)", remedy: "set TMPDIR to another folder")
            }
            // The file exists as long as it is open or mapped.
            unlink(name)
        }

        mutating func append(_ rows: Packed) throws {
            try rows.tokens.withUnsafeBytes { bytes in
                var left = bytes[...]
                while !left.isEmpty {
                    let written = write(descriptor, UnsafeRawBufferPointer(rebasing: left).baseAddress, left.count)
                    if written < 0, errno == EINTR { continue }
                    guard written > 0 else {
                        throw PEFTError(
                            "can't write the encoded examples to \(folder)",
                            remedy: "free some space there, or set TMPDIR to another folder")
                    }
                    left = left.dropFirst(written)
                }
            }
            for (input, all) in rows.lengths {
                starts.append((starts.last ?? 0) + all)
                inputs.append(input)
            }
            for var source in rows.sources
            where sources.last?.file != source.file || sources.last?.unit != source.unit {
                source.firstRow += lines.count
                sources.append(source)
            }
            lines += rows.lines
        }

        func finished() throws -> EncodedFile {
            let bytes = 4 * (starts.last ?? 0)
            guard bytes > 0 else { return file(nil, 0) }
            let map = mmap(nil, bytes, PROT_READ, MAP_SHARED, descriptor, 0)
            guard let map, map != MAP_FAILED else {
                throw PEFTError(
                    "can't map the encoded examples into memory", remedy: "set TMPDIR to a folder on another disk")
            }
            return file(map, bytes)
        }

        private func file(_ map: UnsafeRawPointer?, _ bytes: Int) -> EncodedFile {
            EncodedFile(map: map, bytes: bytes, starts: starts, inputs: inputs, sources: sources, lines: lines)
        }

        /// Closes the file; a map of it stays.
        func close() { _ = Foundation.close(descriptor) }
    }
}
