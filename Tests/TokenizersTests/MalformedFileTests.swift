import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import PEFTTokenizers

/// Whatever a file holds ends in a tokenizer or in an error that names the file and the fault.
@Suite struct MalformedFileTests {
    /// A small valid `tokenizer.json` to damage.
    static let valid: JSON = [
        "version": "1.0", "truncation": nil, "padding": nil,
        "added_tokens": [["id": 1, "content": "</s>", "special": true]],
        "normalizer": nil, "pre_tokenizer": nil, "post_processor": nil, "decoder": nil,
        "model": ["type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0], ["</s>", 0], ["a", -1.5]]],
    ]

    static func damaged(_ key: String, _ value: JSON?) throws -> JSON {
        var fields = try #require(valid.object)
        fields[key] = value
        return .object(fields)
    }

    /// The error for a `tokenizer.json` with this text.
    func error(_ text: String) throws -> PEFTError? {
        #expect(throws: PEFTError.self) { try Tokenizer.load(json: text) }
    }

    @Test func validFileLoads() throws {
        let tokenizer = try Tokenizer.load(json: MalformedFileTests.valid.text())
        #expect(tokenizer.encode(text: "aa</s>b") == [2, 2, 1, 0])
        #expect(tokenizer.vocabularySize == 3)
        #expect(tokenizer.eosTokenID == nil)
        #expect(tokenizer.unknownTokenID == 0)
    }

    static let damagedParts: [(key: String, value: JSON?, problem: String)] = [
        ("version", "2.0", "version 2.0"),
        ("model", nil, "model is missing"),
        ("model", "Unigram", "model"),
        ("model", ["type": "Markov", "vocab": [:]], "model type Markov is not supported"),
        ("model", ["vocab": ["a": 0]], "has no type, and its fields match no known type"),
        ("model", ["type": "BPE", "merges": []], "model.vocab is missing"),
        (
            "model", ["type": "BPE", "vocab": [["a", 0]], "merges": []], "model.vocab is missing or of the wrong type"
        ),
        ("model", ["type": "BPE", "vocab": [:]], "model.merges is missing"),
        ("model", ["type": "BPE", "vocab": ["a": -1], "merges": []], "expected a non-negative integer at byte"),
        ("model", ["type": "BPE", "vocab": ["a": 0.5], "merges": []], "expected a non-negative integer at byte"),
        ("model", ["type": "BPE", "vocab": ["a": "0"], "merges": []], "expected a non-negative integer at byte"),
        ("model", ["type": "BPE", "vocab": ["a": 4_000_000_000], "merges": []], "the id 4000000000 is too large"),
        ("model", ["type": "BPE", "vocab": ["a": 0], "merges": ["a"]], "two pieces"),
        ("model", ["type": "BPE", "vocab": ["a": 0], "merges": ["a  a"]], "merge 0 is not two pieces"),
        ("model", ["type": "BPE", "vocab": ["a": 0], "merges": [["a"]]], "a merge needs two pieces"),
        ("model", ["type": "BPE", "vocab": ["a": 0], "merges": [["a", "a"]]], "merge 0 needs aa"),
        ("model", ["type": "BPE", "vocab": ["a": 0], "merges": ["a b"]], "merge 0 needs b"),
        ("model", ["type": "BPE", "vocab": ["a": 0], "merges": [3]], "expected a string"),
        ("model", ["type": "BPE", "vocab": ["a": 0], "merges": [], "dropout": 0.1], "dropout 0.1 is not supported"),
        ("model", ["type": "BPE", "vocab": ["a": 0], "merges": [], "fuse_unk": "yes"], "model.fuse_unk"),
        ("model", ["type": "WordLevel", "vocab": ["a": 0]], "<unk> is not in the vocabulary"),
        ("model", ["type": "WordPiece", "vocab": ["a": 0]], "[UNK] is not in the vocabulary"),
        ("model", ["type": "Unigram", "unk_id": 0], "vocab is missing"),
        ("model", ["type": "Unigram", "vocab": [["a", 0]]], "unk_id is missing"),
        ("model", ["type": "Unigram", "unk_id": 1, "vocab": [["a", 0]]], "unk_id is 1"),
        ("model", ["type": "Unigram", "unk_id": -1, "vocab": [["a", 0]]], "unk_id is -1"),
        ("model", ["type": "Unigram", "unk_id": 0, "vocab": []], "unk_id is 0"),
        ("model", ["type": "Unigram", "unk_id": 0, "vocab": [["a", "b"]]], "model.vocab[0][1]"),
        ("model", ["type": "Unigram", "unk_id": 0, "vocab": [["a", 0], ["b", nil]]], "model.vocab[1][1]"),
        ("model", ["type": "Unigram", "unk_id": 0, "vocab": [["a"]]], "model.vocab[0]"),
        ("model", ["type": "Unigram", "unk_id": 0, "vocab": [[1, 0]]], "model.vocab[0][0]"),
        ("model", ["type": "Unigram", "unk_id": 0.5, "vocab": [["a", 0]]], "value out of range"),
        ("added_tokens", [["id": -1, "content": "x", "special": true]], "the id -1"),
        ("added_tokens", [["id": 5_000_000_000, "content": "x", "special": true]], "the id 5000000000"),
        ("added_tokens", [["id": 3, "content": "x"], ["id": 3, "content": "y"]], "both have the id 3"),
        ("added_tokens", [["id": "3", "content": "x"]], "added_tokens[0].id"),
        ("added_tokens", [["content": "x"]], "id is missing"),
        ("added_tokens", [["id": 3]], "content is missing"),
        ("normalizer", ["type": "Rot13"], "normalizer Rot13 at normalizer is not supported"),
        ("normalizer", ["type": "BertNormalizer", "lowercase": 1], "lowercase must be true or false"),
        (
            "normalizer", ["type": "Sequence", "normalizers": [["type": "NFC"], ["type": "Rot13"]]],
            "normalizer.normalizers[1]"
        ),
        ("normalizer", ["type": "Sequence"], "normalizers must be a list"),
        ("normalizer", ["type": "Replace", "content": "a", "pattern": ["String": ""]], "empty String"),
        ("normalizer", ["type": "Replace", "content": "a", "pattern": ["Regex": "("]], "regular expression ("),
        ("normalizer", ["type": "Replace", "content": "a", "pattern": ["Glob": "*"]], "String or Regex"),
        ("normalizer", ["type": "Replace", "pattern": ["String": "a"]], "content must be a string"),
        ("normalizer", ["type": "Strip", "strip_left": "yes"], "strip_left"),
        ("normalizer", ["type": "Prepend"], "prepend must be a string"),
        ("normalizer", ["NFC"], "normalizer is not an object"),
        ("normalizer", [:], "type must be a string"),
        ("normalizer", ["type": "Precompiled", "precompiled_charsmap": "?"], "base64"),
        ("pre_tokenizer", ["type": "FixedLength", "length": 0], "length is 0"),
        ("pre_tokenizer", ["type": "UnicodeScript"], "pre-tokenizer UnicodeScript"),
        ("pre_tokenizer", ["type": "Split", "pattern": ["String": "a"]], "behavior is missing"),
        ("pre_tokenizer", ["type": "Split", "pattern": ["String": "a"], "behavior": "Gone"], "behavior must be"),
        (
            "pre_tokenizer", ["type": "Split", "pattern": ["Regex": "("], "behavior": "Removed"],
            "regular expression ("
        ),
        ("pre_tokenizer", ["type": "Metaspace", "replacement": "▁▁"], "one character"),
        ("pre_tokenizer", ["type": "Metaspace", "replacement": ""], "one character"),
        ("pre_tokenizer", ["type": "Metaspace", "replacement": "▁", "prepend_scheme": "last"], "prepend_scheme"),
        (
            "pre_tokenizer",
            ["type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "add_prefix_space": false],
            "add_prefix_space is false"
        ),
        ("post_processor", ["type": "Roberta"], "post-processor Roberta"),
        ("post_processor", ["type": "BertProcessing"], "cls must be a token and its id"),
        ("post_processor", ["type": "BertProcessing", "cls": ["a", 2], "sep": ["b", -1]], "sep must be"),
        ("post_processor", ["type": "TemplateProcessing"], "special_tokens is missing"),
        (
            "post_processor",
            [
                "type": "TemplateProcessing", "single": [["SpecialToken": ["id": "[X]"]]], "pair": [],
                "special_tokens": [:],
            ],
            "[X] is missing"
        ),
        (
            "post_processor",
            ["type": "TemplateProcessing", "single": [["Sequence": ["id": "B"]]], "pair": [], "special_tokens": [:]],
            "no text B"
        ),
        (
            "post_processor",
            [
                "type": "TemplateProcessing", "single": [["SpecialToken": ["id": "x"]]], "pair": [],
                "special_tokens": ["x": ["ids": [-1]]],
            ],
            "x must list its ids"
        ),
        ("decoder", ["type": "CTC"], "pad_token must be a string"),
        ("decoder", ["type": "BPEDecoder", "suffix": ""], "suffix is empty"),
        ("decoder", ["type": "WordPiece"], "prefix must be a string"),
        ("decoder", ["type": "Strip", "content": " ", "start": -1, "stop": 0], "start must be"),
    ]

    @Test(arguments: damagedParts.indices)
    func damagedPartIsNamed(index: Int) throws {
        let (key, value, problem) = MalformedFileTests.damagedParts[index]
        let error = try error(MalformedFileTests.damaged(key, value).text())
        #expect(error?.problem.contains(problem) == true, "\(error?.description ?? "no error")")
        #expect(error?.problem.contains("tokenizer.json") == true, "\(error?.description ?? "no error")")
    }

    @Test(arguments: [
        "", "{", "[]", "null", "{}", "{\"model\": 3", "\u{0}",
        "{\"model\":{\"type\":\"Unigram\",\"unk_id\":1e400,\"vocab\":[]}}",
    ])
    func textThatIsNoTokenizerIsRefused(text: String) throws {
        #expect(try error(text)?.problem.contains("tokenizer.json") == true)
    }

    @Test func everyTruncationOfAFileIsRefused() throws {
        let bytes = Array(MalformedFileTests.valid.text(indent: nil).utf8)
        for count in stride(from: 0, to: bytes.count, by: 7) {
            #expect(throws: PEFTError.self) { try TokenizerFile(Data(bytes[..<count]), name: "tokenizer.json") }
        }
    }

    @Test func duplicatedReadingOfAddedTokensIsRefused() throws {
        let tokens: JSON = [
            ["id": 3, "content": "X", "normalized": true, "special": false],
            ["id": 4, "content": "x", "normalized": true, "special": false],
        ]
        var fields = try #require(try MalformedFileTests.damaged("added_tokens", tokens).object)
        fields["normalizer"] = ["type": "Lowercase"]
        #expect(
            try error(JSON.object(fields).text())?.problem.contains("matches the same text as another") == true)
    }

    // MARK: - Character maps

    static func littleEndian(_ word: UInt32) -> [UInt8] {
        [UInt8(word & 0xFF), UInt8(word >> 8 & 0xFF), UInt8(word >> 16 & 0xFF), UInt8(word >> 24)]
    }

    /// The bytes of a character map.
    static func characterMap(_ units: [UInt32], _ replacements: String, size: UInt32? = nil) -> [UInt8] {
        var bytes: [UInt8] = []
        for unit in [size ?? UInt32(units.count * 4)] + units { bytes += littleEndian(unit) }
        return bytes + Array(replacements.utf8)
    }

    @Test func characterMapReplacesWhatItHolds() throws {
        // The root leads to 'a' at 0 ^ 97; its value is at 97 ^ 1.
        var units = [UInt32](repeating: 0, count: 128)
        units[97] = 97 | 1 << 8 | 1 << 10
        units[96] = 0x8000_0000 | 3
        let map = try Precompiled(MalformedFileTests.characterMap(units, "zz\u{0}yé\u{0}"))
        var text = NormalizedText(Array("banana\u{301}!".utf8))
        map.normalize(&text)
        // A short cluster is replaced as a whole, the mark with it.
        #expect(String(decoding: text.bytes, as: UTF8.self) == "byényényé!")
    }

    static let damagedMaps: [[UInt8]] = [
        [], [1, 0, 0], characterMap([], ""), characterMap([0], "", size: 3), characterMap([0], "", size: 8),
        characterMap([0], "", size: 0xFFFF_FFFF),
        // An offset beyond the trie, a value beyond the replacements, one within a character, and no UTF-8.
        characterMap([1000 << 10], "a"),
        characterMap([1 << 8 | 1 << 10, 0x8000_0000 | 9], "a"),
        characterMap([1 << 8 | 1 << 10, 0x8000_0000 | 1], "é"),
        characterMap([0], "") + [0xC3],
    ]

    @Test(arguments: damagedMaps)
    func damagedCharacterMapIsRefused(bytes: [UInt8]) throws {
        #expect(throws: Precompiled.Damage.self) { try Precompiled(bytes) }
        let normalizer: JSON = [
            "type": "Precompiled", "precompiled_charsmap": .string(Data(bytes).base64EncodedString()),
        ]
        let error = try error(MalformedFileTests.damaged("normalizer", normalizer).text())
        #expect(error?.problem.contains("character map") == true)
    }

    @Test func randomCharacterMapsNeverCrash() {
        var state: UInt64 = 42
        func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state >> 33
        }
        let text = Array("abc \u{301}é漢😀\r\n\u{0}".utf8)
        for _ in 0..<2000 {
            let units = (0..<256).map { index -> UInt32 in
                // Mostly plausible units: the label of their place, an offset within the trie.
                var unit = UInt32(index)
                unit |= UInt32(next() & 1) << 8
                unit |= UInt32(next() % 256) << 10
                return next() % 4 == 0 ? unit | 0x8000_0000 : unit
            }
            guard let map = try? Precompiled(MalformedFileTests.characterMap(units, "some\u{0}text")) else {
                continue
            }
            var normalized = NormalizedText(text)
            map.normalize(&normalized)
        }
    }

    // MARK: - SentencePiece

    /// One field of a Protocol Buffers message with up to 127 bytes.
    static func field(_ number: UInt8, _ bytes: [UInt8]) -> [UInt8] {
        [number << 3 | 2, UInt8(bytes.count)] + bytes
    }
    static func field(_ number: UInt8, _ value: UInt8) -> [UInt8] {
        number < 16 ? [number << 3, value] : [number << 3 & 0x7F | 0x80, number >> 4, value]
    }
    static func piece(_ text: String, _ score: Float, type: UInt8 = 1) -> [UInt8] {
        var bytes = field(1, Array(text.utf8))
        bytes += [2 << 3 | 5]
        bytes += littleEndian(score.bitPattern)
        bytes += field(3, type)
        return field(1, bytes)
    }

    static let pieces: [UInt8] = [
        piece("<unk>", 0, type: 2), piece("<s>", 0, type: 3), piece("</s>", 0, type: 3), piece("▁", -2),
        piece("a", -1), piece("▁a", -1.5), piece("[sep]", 0, type: 4),
    ].flatMap { $0 }

    func load(_ bytes: [UInt8], configuration: JSON? = nil) throws -> Tokenizer {
        try withTemporaryFolder { folder in
            try AtomicFile.write(Data(bytes), to: folder.appendingPathComponent("spiece.model"))
            if let configuration {
                try AtomicFile.write(configuration.text(), to: folder.appendingPathComponent("tokenizer_config.json"))
            }
            return try Tokenizer.load(folder: folder)
        }
    }

    @Test func sentencePieceModelLoads() throws {
        let tokenizer = try load(
            MalformedFileTests.pieces, configuration: ["extra_ids": 2, "tokenizer_class": "T5Tokenizer"])
        #expect(tokenizer.vocabularySize == 9)
        #expect(tokenizer.token(for: 7) == "<extra_id_1>")
        #expect(tokenizer.id(for: "<extra_id_0>") == 8)
        #expect(tokenizer.encode(text: "a  aa<extra_id_0>a[sep]") == [5, 5, 4, 8, 5, 6, 2])
        #expect(tokenizer.encode(text: "a", pair: "a").ids == [5, 2, 5, 2])
        #expect(tokenizer.decode(tokens: [5, 5, 4, 8, 2]) == "a aa")
        #expect(tokenizer.eosTokenID == 2)
        #expect(tokenizer.bosTokenID == 1)
        #expect(tokenizer.padTokenID == nil)
    }

    @Test(arguments: [(true, false, [4, 5]), (false, true, [5, 3, 5]), (false, false, [4, 3, 5])])
    func sentencePieceModelKeepsItsTreatmentOfSpaces(removesExtra: Bool, addsPrefix: Bool, expected: [Int]) throws {
        let normalizer =
            MalformedFileTests.field(3, addsPrefix ? 1 : 0) + MalformedFileTests.field(4, removesExtra ? 1 : 0)
        let tokenizer = try load(MalformedFileTests.pieces + MalformedFileTests.field(3, normalizer))
        let ids = tokenizer.encode(text: "a  a", addSpecialTokens: false)
        #expect(ids == expected)
    }

    static let damagedModels: [(bytes: [UInt8], problem: String)] = [
        ([], "no pieces"),
        ([0x0A], "ends within a number"),
        ([0x0A, 0x7F, 0x00], "longer than what is left"),
        ([0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], "longer than what is left"),
        ([0x08] + [UInt8](repeating: 0xFF, count: 11), "more than 64 bits"),
        ([0x0B, 0x00], "wire type"),
        ([0x00, 0x00], "field number 0"),
        ([0x0D, 0x00], "ends within a number"),
        (field(1, field(1, [0xFF])), "not UTF-8"),
        (field(1, field(2, 1)), "wrong wire type"),
        (field(1, field(3, 9)), "unknown type 9"),
        (pieces + field(2, field(3, 7)), "unknown type 7"),
        (pieces + field(2, field(3, 2)), "type bpe is not supported"),
        (pieces + field(2, field(24, 1)), "treat_whitespace_as_suffix"),
        (pieces + field(2, field(40, 120)), "unk_id is 120"),
        (pieces + field(3, field(5, 0)), "escaped whitespace"),
        (pieces + field(3, field(2, [1, 2])), "too short"),
        (pieces + piece("b", .nan), "not a finite number"),
        (pieces + piece("b", -.infinity), "not a finite number"),
    ]

    @Test(arguments: damagedModels.indices)
    func damagedSentencePieceModelIsRefused(index: Int) throws {
        let (bytes, problem) = MalformedFileTests.damagedModels[index]
        let error = #expect(throws: PEFTError.self) { try load(bytes) }
        #expect(error?.problem.contains(problem) == true, "\(error?.description ?? "no error")")
        #expect(error?.problem.contains("spiece.model") == true)
    }

    @Test func truncatedOrFlippedSentencePieceModelsNeverCrash() {
        let bytes =
            MalformedFileTests.pieces
            + MalformedFileTests.field(3, MalformedFileTests.field(2, [4, 0, 0, 0, 0, 0, 0, 0]))
        for index in bytes.indices {
            _ = try? SentencePieceFile(Data(bytes[..<index]), name: "spiece.model")
            for bit in 0..<8 {
                var flipped = bytes
                flipped[index] ^= 1 << UInt8(bit)
                guard let file = try? SentencePieceFile(Data(flipped), name: "spiece.model") else { continue }
                _ = try? Unigram(
                    vocabulary: file.pieces.map { ($0.text, Double($0.score)) }, unknownID: file.unknownID,
                    byteFallback: false, file: "spiece.model")
            }
        }
    }

    @Test func sentencePieceModelOfAnotherFamilyIsRefused() throws {
        let error = #expect(throws: PEFTError.self) {
            try load(MalformedFileTests.pieces, configuration: ["tokenizer_class": "XLNetTokenizer"])
        }
        #expect(error?.problem.contains("XLNetTokenizer") == true)
    }

    // MARK: - Folders and roles

    @Test func emptyFolderSaysWhatIsMissing() throws {
        let error = #expect(throws: PEFTError.self) { try withTemporaryFolder { try Tokenizer.load(folder: $0) } }
        #expect(error?.description.contains("tokenizer.json or spiece.model") == true)
    }

    func load(configuration: JSON, map: JSON? = nil) throws -> Tokenizer {
        try withTemporaryFolder { folder in
            try AtomicFile.write(MalformedFileTests.valid.text(), to: folder.appendingPathComponent("tokenizer.json"))
            try AtomicFile.write(configuration.text(), to: folder.appendingPathComponent("tokenizer_config.json"))
            if let map {
                try AtomicFile.write(map.text(), to: folder.appendingPathComponent("special_tokens_map.json"))
            }
            return try Tokenizer.load(folder: folder)
        }
    }

    @Test func rolesAreStringsOrObjects() throws {
        let tokenizer = try load(
            configuration: [
                "eos_token": ["content": "</s>", "lstrip": false], "unk_token": nil, "model_max_length": 1e30,
            ],
            map: ["eos_token": "a", "bos_token": "a", "pad_token": ["content": "not there"]])
        #expect(tokenizer.eosTokenID == 1)
        #expect(tokenizer.bosTokenID == 2)
        // A token that has a role is added if it isn't there.
        #expect(tokenizer.padTokenID == 3)
        #expect(tokenizer.unknownTokenID == 0)
        #expect(tokenizer.maximumLength == nil)
    }

    @Test(
        arguments: [
            ["eos_token": 3], ["pad_token": [:]], ["extra_ids": -1], ["extra_ids": "many"],
            ["extra_ids": 1_000_000_000], [],
        ] as [JSON])
    func damagedConfigurationIsRefused(configuration: JSON) throws {
        let error = #expect(throws: PEFTError.self) { try load(configuration: configuration) }
        #expect(error?.problem.contains("tokenizer_config.json") == true)
    }
}
