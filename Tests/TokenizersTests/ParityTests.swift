import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import PEFTTokenizers

/// Ids and text are exactly those of Python's `tokenizers`.
@Suite struct ParityTests {
    @Test func tinyT5MatchesReferenceOnNastyLines() throws {
        try checkNastyLines(Tokenizer.load(folder: Folders.tinyT5), Fixture.read("tiny-t5"))
    }

    @Test(.enabled(if: Folders.hasT5, "needs ../shared/data/t5-tokenizer"))
    func t5MatchesReferenceOnNastyLines() throws {
        try checkNastyLines(Tokenizer.load(folder: Folders.t5), Fixture.read("t5"))
    }

    /// The reference here is what transformers makes of the file, which is the pipeline of `tokenizer.json`.
    /// SentencePiece itself differs on some lines: it matches its character map at any position, not within
    /// grapheme clusters.
    @Test(.enabled(if: Folders.hasT5, "needs ../shared/data/t5-tokenizer"), arguments: [true, false])
    func t5SentencePieceModelMatchesReferenceOnNastyLines(withConfiguration: Bool) throws {
        let expected = try Fixture.read("t5", as: Fixture.Nasty.self)
        let names = ["spiece.model"] + (withConfiguration ? ["tokenizer_config.json"] : [])
        let tokenizer = try withTemporaryFolder { folder in
            for name in names {
                try FileManager.default.copyItem(
                    at: Folders.t5.appendingPathComponent(name), to: folder.appendingPathComponent(name))
            }
            return try Tokenizer.load(folder: folder)
        }
        #expect(tokenizer.padTokenID == 0)
        #expect(tokenizer.eosTokenID == 1)
        #expect(tokenizer.unknownTokenID == 2)
        #expect(tokenizer.bosTokenID == nil)
        #expect(tokenizer.maximumLength == (withConfiguration ? 512 : nil))
        #expect(tokenizer.id(for: "<extra_id_0>") == 32099)
        try checkNastyLines(tokenizer, expected, differing: expected.spieceDiffers ?? [:])
    }

    @Test(.enabled(if: Folders.hasT5, "needs ../shared/data/t5-tokenizer"))
    func t5FilesHoldTheSameVocabulary() throws {
        let tokenizer = try Tokenizer.load(folder: Folders.t5)
        let file = try SentencePieceFile(Folders.t5.appendingPathComponent("spiece.model"))
        #expect(file.pieces.count == 32000)
        for (id, piece) in file.pieces.enumerated()
        where tokenizer.token(for: id).map({ same($0, piece.text) }) != true {
            Issue.record("piece \(id) is \(piece.text) in one file")
        }
        for id in 0..<tokenizer.vocabularySize where tokenizer.token(for: id).flatMap({ tokenizer.id(for: $0) }) != id
        {
            Issue.record("piece \(id) is not found under its own name")
        }
    }

    @Test(.enabled(if: Folders.hasDialogsum, "needs ../shared/data/dialogsum"))
    func tinyT5MatchesReferenceOnDialogues() throws {
        try checkDialogues(Tokenizer.load(folder: Folders.tinyT5), "tiny-t5-dialogsum")
    }

    @Test(.enabled(if: Folders.hasDialogsum && Folders.hasT5, "needs ../shared/data"))
    func t5MatchesReferenceOnDialogues() throws {
        try checkDialogues(Tokenizer.load(folder: Folders.t5), "t5-dialogsum")
    }

    private func checkNastyLines(
        _ tokenizer: Tokenizer, _ expected: Fixture.Nasty, differing: [String: [Int]] = [:]
    ) throws {
        // The fixture holds what the library alone makes of ids.
        var tokenizer = tokenizer
        tokenizer.cleansSpaces = false
        let lines = try Fixture.read("nasty-lines", as: [String].self)
        try #require(lines.count >= 700 && lines.count == expected.ids.count)
        #expect(tokenizer.vocabularySize == expected.vocabularySize)
        for (number, line) in lines.enumerated() {
            let ids = tokenizer.encode(text: line)
            let wanted = differing["\(number)"] ?? expected.ids[number]
            #expect(ids == wanted, "line \(number): \(line.debugDescription)")
            #expect(digest(line, normalizedBy: tokenizer.normalizer) == expected.normalized[number], "line \(number)")
            let text = tokenizer.decode(tokens: expected.ids[number])
            #expect(same(text, expected.decoded[number]), "line \(number): \(line.debugDescription)")
        }
        if differing.isEmpty {
            let plain = lines.flatMap { tokenizer.encode(text: $0, addSpecialTokens: false) }
            #expect(digest(plain) == expected.withoutSpecialTokens)
        }
        for (index, text) in expected.decodedWithSpecialTokens.enumerated() {
            let ids = expected.ids[index * 5]
            #expect(same(tokenizer.decode(tokens: ids, skipSpecialTokens: false), text), "line \(index * 5)")
        }
        for (block, wanted) in expected.normalizedScalars.enumerated() {
            let text = Fixture.surroundings(of: block)
            #expect(
                digest(text, normalizedBy: tokenizer.normalizer) == wanted,
                "from U+\(String(block * 0x200, radix: 16))")
        }
        for pair in expected.pairs where differing["\(pair[0])"] == nil && differing["\(pair[1])"] == nil {
            let ids = tokenizer.encode(text: lines[pair[0]], pair: lines[pair[1]]).ids
            #expect(ids == Array(pair.dropFirst(2)), "lines \(pair[0]) and \(pair[1])")
        }
        for (ids, wanted) in zip(expected.samples, expected.decodedSamples) {
            let text = tokenizer.decode(tokens: ids, skipSpecialTokens: false)
            #expect(digest(text.unicodeScalars.lazy.map { Int($0.value) }) == wanted, "ids \(ids)")
        }
    }

    private func checkDialogues(_ tokenizer: Tokenizer, _ fixture: String) throws {
        let files = try Fixture.read(fixture, as: [String: [String: [String]]].self)
        var texts = 0
        for (name, fields) in files {
            let content = try String(contentsOf: Folders.dialogsum.appendingPathComponent(name), encoding: .utf8)
            let rows = try content.split(separator: "\n").map {
                try JSONDecoder().decode([String: String].self, from: Data($0.utf8))
            }
            for (field, digests) in fields {
                try #require(rows.count == digests.count)
                for (number, row) in rows.enumerated() {
                    let text = try #require(row[field])
                    #expect(
                        digest(tokenizer.encode(text: text)) == digests[number],
                        "\(name), line \(number + 1), \(field)")
                    texts += 1
                }
            }
        }
        #expect(texts >= 1500)
    }
}
