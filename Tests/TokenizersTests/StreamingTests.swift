import Foundation
import PEFTSupport
import Testing

@testable import PEFTTokenizers

/// Stages that few files name, and decoding token by token, which has to give the text of decoding all at once.
@Suite struct StreamingTests {
    static let rare = try? Fixture.read("rare-stages", as: Fixture.Stages.self)
    static let names = rare?.cases.map(\.name) ?? []

    @Test func fixtureHoldsStages() {
        #expect(StreamingTests.names.count >= 32)
    }

    @Test(arguments: names)
    func rareStageMatchesReference(name: String) throws {
        let stages = try #require(StreamingTests.rare)
        let stage = try #require(stages.cases.first { $0.name == name })
        let tokenizer = try Tokenizer.load(json: stage.tokenizer.text(indent: nil))
        stage.check(tokenizer, stages.texts)
        for ids in stage.ids + stage.samples { check(tokenizer, ids) }
    }

    /// Expects that the pieces of text are together what `decode` gives, and that no character comes in two of them.
    private func check(_ tokenizer: Tokenizer, _ ids: [Int]) {
        for skips in [true, false] {
            var stream = tokenizer.streamingDecoder(skipSpecialTokens: skips)
            let text = ids.reduce(into: "") { $0 += stream.append($1) } + stream.finish()
            #expect(same(text, tokenizer.decode(tokens: ids, skipSpecialTokens: skips)), "\(ids)")
        }
    }

    static let folders: [URL] =
        [Folders.tinyT5]
        + [Folders.t5, Folders.gpt2, Folders.roberta, Folders.repairedLlama2, Folders.tinystories, Folders.minilm]
        .compactMap {
            $0
        }.filter { FileManager.default.fileExists(atPath: $0.path) }

    @Test(arguments: folders)
    func streamedTextIsTheWholeText(folder: URL) throws {
        let tokenizer = try Tokenizer.load(folder: folder)
        let lines = try Fixture.read("nasty-lines", as: [String].self)
        for line in lines { check(tokenizer, tokenizer.encode(text: line)) }
        var random = SeededRandom(seed: 5)
        for length in 1..<120 {
            // Ids at random cut characters anywhere; the first ones are single bytes in many vocabularies.
            let range = length % 2 == 0 ? tokenizer.vocabularySize : min(300, tokenizer.vocabularySize)
            check(tokenizer, (0..<length).map { _ in Int(random.next() % UInt64(range)) })
        }
    }

    @Test func charactersComeWhenTheyAreComplete() throws {
        let pieces = ByteCharacters.encoded.map { String(decoding: $0, as: UTF8.self) }
        let vocabulary = JSON.object(Dictionary(uniqueKeysWithValues: zip(pieces, (0..<256).map(JSON.integer))))
        let tokenizer = try Tokenizer.load(
            json: JSON.object([
                "decoder": ["type": "ByteLevel"], "model": ["type": "BPE", "vocab": vocabulary, "merges": []],
            ]).text())
        func streamed(_ bytes: [Int]) -> [String] {
            var stream = tokenizer.streamingDecoder()
            return bytes.map { stream.append($0) } + [stream.finish()]
        }
        #expect(streamed([0x61, 0xE2, 0x82, 0xAC, 0x62]) == ["a", "", "", "€", "b", ""])
        #expect(streamed([0xF0, 0x9F, 0x98, 0x80]) == ["", "", "", "😀", ""])
        // What can't become a character comes at once, what still could comes at the end.
        #expect(streamed([0x80, 0xE2, 0x61]) == ["\u{FFFD}", "", "\u{FFFD}a", ""])
        #expect(streamed([0xE0, 0x80]) == ["", "\u{FFFD}\u{FFFD}", ""])
        #expect(streamed([0xF0, 0x9F]) == ["", "", "\u{FFFD}"])
    }

    @Test func bytePiecesWaitForTheirRun() throws {
        let tokenizer = try Tokenizer.load(
            json: JSON.object([
                "decoder": ["type": "Sequence", "decoders": [["type": "ByteFallback"], ["type": "Fuse"]]],
                "model": [
                    "type": "BPE", "merges": [], "byte_fallback": true,
                    "vocab": ["a": 0, "<0xE2>": 1, "<0x82>": 2, "<0xAC>": 3],
                ],
            ]).text())
        var stream = tokenizer.streamingDecoder()
        #expect([0, 1, 2, 3, 0].map { stream.append($0) } == ["a", "", "", "", "€a"])
        #expect(stream.append(1) == "")
        #expect(stream.finish() == "\u{FFFD}")
    }

    /// The reference stops on short tokens here, so this is compared with decoding all at once.
    @Test(arguments: [(0, 0), (0, 2), (3, 1), (2, 5)])
    func stripOfWholeTextHoldsItsEndBack(start: Int, stop: Int) {
        let decoder = DecoderSequence(members: [Fuse(), StripDecoder(content: "x", start: start, stop: stop)])
        var random = SeededRandom(seed: 3)
        for length in 0..<200 {
            let tokens = (0..<length % 12).map { _ in ["x", "xx", "", "xax", "b"][Int(random.next() % 5)] }
            var stages = decoder.streams()
            var text = ""
            func run(_ parts: [TokenPart], from first: Int) {
                var parts = parts
                for index in stages.indices.dropFirst(first) { parts = parts.flatMap { stages[index].push($0) } }
                text += parts.map(\.text).joined()
            }
            for token in tokens { run([TokenPart(token)], from: 0) }
            for index in stages.indices { run(stages[index].finish(), from: index + 1) }
            #expect(text == decoder.decode(tokens).joined(), "\(tokens)")
        }
    }
}
