import Foundation
import PEFTSupport

/// The vocabulary and the merges of a `tokenizer.json`, cut out of it.
///
/// They are nearly all of the file, and their keys must be told apart by bytes, so they are read where they
/// lie; what is left is small enough for `JSONDecoder`. A unigram vocabulary, a list, stays where it is.
struct ModelTables {
    private(set) var vocabulary: Vocabulary?
    private(set) var merges: MergeList?
    /// The file with empty tables in place of these.
    private(set) var rest: Data

    init(cuttingFrom data: Data, name: String) throws {
        rest = data
        let bytes = [UInt8](data)
        // Anything else than an object is for the decoder to complain about.
        guard bytes.first(where: { !" \t\r\n".utf8.contains($0) }) == UInt8(ascii: "{") else { return }
        guard String(validating: bytes, as: UTF8.self) != nil else {
            throw PEFTError("\(name) is not valid UTF-8", remedy: "the file may be truncated or damaged")
        }
        var cuts: [Range<Int>] = []
        do {
            var scanner = JSONScanner(bytes)
            try scanner.members { scanner in
                guard scanner.text.elementsEqual("model".utf8), scanner.peek == UInt8(ascii: "{") else {
                    return try scanner.skipValue()
                }
                try scanner.members { scanner in
                    let start = scanner.index
                    if scanner.text.elementsEqual("vocab".utf8), scanner.peek == UInt8(ascii: "{") {
                        vocabulary = try ModelTables.vocabulary(&scanner)
                    } else if scanner.text.elementsEqual("merges".utf8), scanner.peek == UInt8(ascii: "[") {
                        merges = try ModelTables.merges(&scanner)
                    } else {
                        return try scanner.skipValue()
                    }
                    cuts.append(start..<scanner.index)
                }
            }
        } catch let failure as JSONScanner.Failure {
            throw PEFTError(
                "\(name): \(failure.message) at byte \(failure.offset)",
                remedy: "the file may be truncated or damaged")
        }
        guard !cuts.isEmpty else { return }
        rest = Data()
        var kept = 0
        for cut in cuts {
            rest.append(contentsOf: bytes[kept..<cut.lowerBound])
            rest.append(contentsOf: bytes[cut.lowerBound] == UInt8(ascii: "{") ? "{}".utf8 : "[]".utf8)
            kept = cut.upperBound
        }
        rest.append(contentsOf: bytes[kept...])
    }

    /// Reads `{"the": 262, …}`.
    static func vocabulary(_ scanner: inout JSONScanner) throws -> Vocabulary {
        var vocabulary = Vocabulary(expectedPieces: 1 << 15)
        try scanner.members { scanner in
            let start = scanner.index
            let piece = scanner.text
            let id = try scanner.count()
            guard id <= Vocabulary.largestID else { throw scanner.failure("the id \(id) is too large", at: start) }
            vocabulary.insert(piece, id: id)
        }
        return vocabulary
    }

    /// Reads `["t h", …]` or `[["t", "h"], …]`.
    private static func merges(_ scanner: inout JSONScanner) throws -> MergeList {
        var merges = MergeList()
        try scanner.elements { scanner in
            let start = scanner.index
            if scanner.peek == UInt8(ascii: "[") {
                var pair: [[UInt8]] = []
                try scanner.elements { scanner in
                    try scanner.string()
                    pair.append(scanner.text)
                }
                guard pair.count == 2 else { throw scanner.failure("a merge needs two pieces", at: start) }
                merges.append(pair[0], pair[1])
            } else {
                try scanner.string()
                guard merges.append(line: scanner.text) else {
                    throw scanner.failure(
                        "merge \(merges.bounds.count) is not two pieces with one space between them: '\(String(decoding: scanner.text, as: UTF8.self))'",
                        at: start)
                }
            }
        }
        return merges
    }
}
