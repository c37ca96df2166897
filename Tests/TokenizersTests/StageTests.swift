import Foundation
import PEFTSupport
import Testing

@testable import PEFTTokenizers

/// Each stage on its own: small tokenizers that the reference ran too, and cases worked out by hand.
@Suite struct StageTests {
    /// Read once for all cases.
    static let stages = try? Fixture.read("stages", as: Fixture.Stages.self)
    static let stageNames = stages?.cases.map(\.name) ?? []

    @Test func fixtureHoldsStages() {
        #expect(StageTests.stageNames.count > 25)
    }

    @Test(arguments: stageNames)
    func smallTokenizerMatchesReference(name: String) throws {
        let stages = try #require(StageTests.stages)
        let stage = try #require(stages.cases.first { $0.name == name })
        stage.check(try Tokenizer.load(json: stage.tokenizer.text(indent: nil)), stages.texts)
    }

    @Test(arguments: [("NFC", UnicodeForm.nfc), ("NFD", .nfd), ("NFKC", .nfkc), ("NFKD", .nfkd)])
    func unicodeFormMatchesReferenceOnEveryScalar(name: String, form: UnicodeForm) throws {
        let digests = try #require(try Fixture.read("unicode-forms", as: [String: [String]].self)[name])
        for (block, expected) in digests.enumerated() {
            let scalars = (UInt32(block * 0x200)..<UInt32(block * 0x200 + 0x200)).compactMap(Unicode.Scalar.init)
            let text = scalars.map { String($0) }.joined(separator: "\n")
            #expect(
                digest(text, normalizedBy: form) == expected,
                "U+\(String(block * 0x200, radix: 16)) and the 511 after it")
        }
    }

    @Test func unicodeFormOfLongRunsOfMarksIsTheirCanonicalOrder() {
        // Marks of class 220 come before those of class 230, in the order they had.
        var text = NormalizedText(Array(("q" + String(repeating: "\u{307}\u{323}", count: 5000)).utf8))
        UnicodeForm.nfkd.normalize(&text)
        let expected = "q" + String(repeating: "\u{323}", count: 5000) + String(repeating: "\u{307}", count: 5000)
        #expect(same(String(decoding: text.bytes, as: UTF8.self), expected))
    }

    @Test func unicodeFormLeavesYoungerCharactersWhereTheyAre() {
        // U+09FE, of Unicode 11, is a mark of class 230, which later tables put behind U+0328 of class 202.
        var text = NormalizedText(Array("a\u{9FE}\u{328}".utf8))
        UnicodeForm.nfc.normalize(&text)
        #expect(same(String(decoding: text.bytes, as: UTF8.self), "a\u{9FE}\u{328}"))
    }

    @Test func unicodeFormOfLongPortionsIsWhole() {
        // Portions are cut only where nothing joins: syllables of jamo stay together.
        for offset in 0..<3 {
            var text = NormalizedText(
                Array(
                    (String(repeating: "漢", count: offset) + String(repeating: "\u{1100}\u{1161}\u{11A8}", count: 100))
                        .utf8))
            UnicodeForm.nfc.normalize(&text)
            let expected = String(repeating: "漢", count: offset) + String(repeating: "각", count: 100)
            #expect(String(decoding: text.bytes, as: UTF8.self) == expected)
            #expect(text.bytes.count == 3 * (100 + offset))
        }
    }

    @Test func trieFindsBytesNotEquivalents() throws {
        var trie = ByteTrie()
        for (number, key) in ["é", "e\u{301}", "e", "", "a\u{0}b"].enumerated() {
            #expect(trie.insert(key.utf8, value: Int32(number)) == ByteTrie.none)
        }
        #expect(trie.lookUp("é".utf8) == 0)
        #expect(trie.lookUp("e\u{301}".utf8) == 1)
        #expect(trie.lookUp("e".utf8) == 2)
        #expect(trie.lookUp("".utf8) == 3)
        #expect(trie.lookUp("a\u{0}b".utf8) == 4)
        #expect(trie.lookUp("a".utf8) == nil)
        #expect(trie.insert("e".utf8, value: 9) == 2)
        #expect(trie.lookUp("e".utf8) == 9)
    }

    @Test func trieGrowsPastItsFirstTable() {
        var trie = ByteTrie(expectedKeys: 1)
        for number in 0..<5000 { trie.insert("\(number * 7919)".utf8, value: Int32(number)) }
        #expect((0..<5000).allSatisfy { trie.lookUp("\($0 * 7919)".utf8) == $0 })
    }

    @Test func unigramTakesTheBestPathNotTheLongestPiece() throws {
        let pieces = [("<unk>", 0), ("a", -1), ("b", -1), ("c", -1), ("ab", -5), ("bc", -1.5)].map {
            (piece: $0.0, score: $0.1)
        }
        let model = try Unigram(vocabulary: pieces, unknownID: 0, byteFallback: false, file: "test")
        var ids: [Int] = []
        model.tokenize(PreTokenizedText(Array("abcab".utf8), startsText: true), into: &ids)
        #expect(ids == [1, 5, 1, 2])
    }

    @Test func scoresAreRoundedAsTheReferenceRoundsThem() {
        #expect(ReferenceNumber.read(-3.7226313124720747) == -3.7226313124720742)
        #expect(ReferenceNumber.read(-7.2950432691336555) == -7.295043269133656)
        for exact in [0, -0.5, -13, -2.0122928619384766, 1e-5, -1e300, .leastNonzeroMagnitude, 123_456_789.25, 1e16] {
            #expect(abs(ReferenceNumber.read(exact) - exact) <= exact.ulp)
        }
    }

    @Test func unigramFusesUnknownCharacters() throws {
        let model = try Unigram(
            vocabulary: [("<unk>", 0), ("a", -1)], unknownID: 0, byteFallback: false, file: "test")
        var ids: [Int] = []
        model.tokenize(PreTokenizedText(Array("a漢字😀aé".utf8), startsText: true), into: &ids)
        #expect(ids == [1, 0, 1, 0])
    }

    @Test func whiteSpaceIsUnicodes() {
        for value in UInt32(0)...0x10FFFF {
            guard let scalar = Unicode.Scalar(value), scalar.isWhitespace != scalar.properties.isWhitespace else {
                continue
            }
            Issue.record("U+\(String(value, radix: 16))")
        }
    }

    @Test func byteFallbackDecodesRunsOfBytes() {
        let decoder = ByteFallback()
        #expect(decoder.decode(["a", "<0xE2>", "<0x82>", "<0xAC>", "b"]) == ["a", "€", "b"])
        #expect(decoder.decode(["<0xE2>", "<0x82>", "x"]) == ["\u{FFFD}", "\u{FFFD}", "x"])
        #expect(decoder.decode(["<0xEF>", "<0xBB>", "<0xBF>"]).map { Array($0.utf8) } == [[0xEF, 0xBB, 0xBF]])
        #expect(decoder.decode(["<0xZZ>", "<0x1>"]) == ["<0xZZ>", "<0x1>"])
    }

    @Test func stripDecoderStopsAtWhatIsThere() {
        let decoder = StripDecoder(content: " ", start: 2, stop: 2)
        #expect(decoder.decode(["   a   ", " ", "", "   "]) == [" a ", "", "", ""])
    }

    @Test func ownTokenizerHasItsRoles() throws {
        let tokenizer = try Tokenizer.load(folder: Folders.tinyT5)
        #expect(tokenizer.padTokenID == 0)
        #expect(tokenizer.eosTokenID == 1)
        #expect(tokenizer.unknownTokenID == 2)
        #expect(tokenizer.bosTokenID == nil)
        #expect(tokenizer.maximumLength == 512)
        #expect(tokenizer.vocabularySize == 8104)
        #expect(tokenizer.token(for: 8003) == "<extra_id_0>")
        #expect(tokenizer.token(for: -1) == nil)
        #expect(tokenizer.token(for: 8104) == nil)
        #expect(tokenizer.id(for: "") == nil)
        #expect(tokenizer.id(for: "no such piece") == nil)
        #expect(tokenizer.decode(tokens: [-5, 1_000_000]) == "")
        #expect(
            try Tokenizer.files(in: Folders.tinyT5).map(\.name) == [
                "tokenizer.json", "tokenizer_config.json",
            ])
    }

    /// No text makes time grow with the square of its length.
    @Test(arguments: [
        "a", " ", "word ", "\u{301}", "\u{307}\u{323}", "漢", "é", "</s>", "<extra_id_", "\u{1100}\u{1161}",
        "👩\u{200D}",
    ])
    func timeGrowsWithLengthOnly(unit: String) throws {
        let tokenizer = try Tokenizer.load(folder: Folders.tinyT5)
        func seconds(_ bytes: Int) -> Double {
            let text = String(repeating: unit, count: bytes / unit.utf8.count)
            let start = processorSeconds()
            _ = tokenizer.encode(text: text)
            return processorSeconds() - start
        }
        _ = seconds(1000)
        // Eight times the text in well under 64 times the time; the constant absorbs other load.
        let short = seconds(10_000)
        #expect(seconds(80_000) < 20 * short + 1)
    }

    @Test(
        arguments: [
            (
                #"\w+|[^\w\s]"#,
                #"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u00B2\u00B3\u00B9\u00BC-\u00BE]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u00B2\u00B3\u00B9\u00BC-\u00BE\s]"#
            ),
            (#"\.[.$^]a.\\."#, #"\.[.$^]a[^\n]\\[^\n]"#),
            ("(?i:'s)|(?=x)", "(?i:'s)|(?=x)"), (#"[\h-]\h"#, "[0-9a-fA-F-][0-9a-fA-F]"),
            ("(?m:.)", nil), ("(?ix)a", nil), (#"a\"#, nil),
        ] as [(String, String?)])
    func expressionsAreTranslated(expression: String, wanted: String?) {
        #expect(OnigurumaSyntax.translated(expression) == wanted)
    }
}
