import Foundation
import PEFTSupport
import Testing

@testable import PEFTTokenizers

/// Where tokens lie in their text is exactly what Python's `tokenizers` says. The fixture is written by
/// `Fixtures/make_offset_fixtures.py`.
@Suite struct OffsetTests {
    private struct Expected: Decodable {
        let lines: [String]
        let real: [String: Real]
        let small: [String: [String: String]]

        struct Real: Decodable {
            let offsets: [[Int]]
            let pair: [Int]
        }
    }

    private static let expected = try? Fixture.read("offsets", as: Expected.self)

    private func flat(_ ranges: [Range<Int>]) -> [Int] { ranges.flatMap { [$0.lowerBound, $0.upperBound] } }

    private static func folder(_ name: String) -> URL? {
        switch name {
        case "tiny-t5": Folders.tinyT5
        case "t5": Folders.hasT5 ? Folders.t5 : nil
        case "minilm": Folders.minilm
        case "gpt2": Folders.hasSubwordTokenizers ? Folders.gpt2 : nil
        case "roberta": Folders.hasSubwordTokenizers ? Folders.roberta : nil
        case "llama2": Folders.repairedLlama2
        default: Folders.hasSubwordTokenizers ? Folders.tinystories : nil
        }
    }

    /// The tokenizers whose files are on this machine; the first comes with the package.
    private static let names = ["tiny-t5", "t5", "gpt2", "roberta", "llama2", "tinystories", "minilm"]
        .filter { folder($0) != nil }

    @Test(arguments: names)
    func realTokenizer(name: String) throws {
        let expected = try #require(Self.expected)
        let real = try #require(expected.real[name])
        let tokenizer = try Tokenizer.load(folder: #require(Self.folder(name)))
        #expect(real.offsets.count == expected.lines.count)
        for (line, offsets) in zip(expected.lines, real.offsets) {
            let encoding = tokenizer.encode(text: line, pair: nil, withOffsets: true)
            #expect(flat(encoding.offsets) == offsets, "\(line.debugDescription)")
            #expect(encoding.ids == tokenizer.encode(text: line), "\(line.debugDescription)")
            check(encoding, in: line)
        }
        let pair = tokenizer.encode(text: expected.lines[3], pair: expected.lines[6], withOffsets: true)
        #expect(flat(pair.offsets) == real.pair)
    }

    /// Bytes and scalars name the same part of the text.
    private func check(_ encoding: Encoding, in text: String) {
        #expect(encoding.byteOffsets.count == encoding.ids.count && encoding.offsets.count == encoding.ids.count)
        let (scalars, bytes) = (Array(text.unicodeScalars), Array(text.utf8))
        for (offsets, byteOffsets) in zip(encoding.offsets, encoding.byteOffsets) {
            var part = ""
            part.unicodeScalars.append(contentsOf: scalars[offsets])
            #expect(part.utf8.elementsEqual(bytes[byteOffsets]), "\(text.debugDescription) \(offsets) \(byteOffsets)")
        }
    }

    /// Each kind of stage and model, with all texts of its fixture.
    @Test(arguments: ["stages", "rare-stages", "subword-models", "subword-stages"])
    func smallTokenizers(file: String) throws {
        let digests = try #require(Self.expected?.small[file])
        let fixture = try Fixture.read(file, as: Fixture.Stages.self)
        let raw = file == "subword-models" ? try SubwordTests.rawTokenizers() : [:]
        #expect(fixture.cases.count == digests.count)
        for stage in fixture.cases {
            var fields = try #require(stage.tokenizer.object)
            if let model = fixture.model { fields["model"] = model }
            let json = raw[stage.name].map { String(decoding: $0, as: UTF8.self) }
            let tokenizer = try Tokenizer.load(json: json ?? JSON.object(fields).text(indent: nil))
            var places: [Int] = []
            for (text, ids) in zip(fixture.texts, stage.ids) {
                let encoding = tokenizer.encode(text: text, pair: nil, withOffsets: true)
                #expect(encoding.ids == ids, "\(stage.name): \(text.debugDescription)")
                places += flat(encoding.offsets)
                check(encoding, in: text)
            }
            let isSame = digest(places) == digests[stage.name]
            #expect(isSame, "\(stage.name)")
        }
    }

    @Test func plainEncodingHasNone() throws {
        let tokenizer = try Tokenizer.load(folder: Folders.tinyT5)
        let plain = tokenizer.encode(text: "Where is it?", pair: nil)
        #expect(plain.offsets.isEmpty && plain.byteOffsets.isEmpty)
        let cut = tokenizer.encode(text: "Where is it?", pair: "Here.", maxTokens: 6, withOffsets: true)
        #expect(cut.isTruncated && cut.offsets.count == 6 && cut.offsets.last == 0..<0)
        // Offsets of words are each word's own.
        let words = tokenizer.encode(words: ["Où", "est-il"], withOffsets: true)
        #expect(words.ids == tokenizer.encode(words: ["Où", "est-il"]).ids)
        #expect(zip(words.offsets, words.wordIndices).allSatisfy { ($1 ?? 1) == 1 || $0.upperBound <= 2 })
    }
}
