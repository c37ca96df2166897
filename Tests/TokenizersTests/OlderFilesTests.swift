import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import PEFTTokenizers

/// The files from before `tokenizer.json`, made up here; those of real tokenizers are in ``SubwordTests``.
@Suite struct OlderFilesTests {
    func load(_ files: [String: String]) throws -> Tokenizer {
        try withTemporaryFolder { folder in
            for (name, text) in files { try AtomicFile.write(text, to: folder.appendingPathComponent(name)) }
            return try Tokenizer.load(folder: folder)
        }
    }

    static let gpt2 = [
        "vocab.json": #"{"a": 0, "b": 1, "\u0120": 2, "ab": 3, "\u0120ab": 4, "<|endoftext|>": 5}"#,
        "merges.txt": "#version: 0.2\r\na b\r\n\u{120} ab\r\n",
    ]

    @Test func gpt2FilesLoad() throws {
        let tokenizer = try load(OlderFilesTests.gpt2)
        #expect(tokenizer.encode(text: "ab ab b<|endoftext|>a") == [3, 4, 2, 1, 5, 0])
        #expect(tokenizer.decode(tokens: [3, 4, 2, 1, 5, 0]) == "ab ab ba")
        #expect(tokenizer.eosTokenID == 5)
        #expect(tokenizer.padTokenID == nil)
    }

    @Test func configurationIsHeeded() throws {
        var files = OlderFilesTests.gpt2
        files["tokenizer_config.json"] = #"{"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": true}"#
        #expect(try load(files).encode(text: "ab") == [4])
        files["tokenizer_config.json"] = #"{"tokenizer_class": "Qwen2Tokenizer"}"#
        let error = #expect(throws: PEFTError.self) { try load(files) }
        #expect(error?.problem.contains("Qwen2Tokenizer is not supported") == true)
    }

    @Test func bertVocabularyLoads() throws {
        let files = ["vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nab\n##c\nÀ\n", "tokenizer_config.json": "{}"]
        let tokenizer = try load(files)
        #expect(tokenizer.encode(text: "ABcc d [MASK]") == [2, 5, 6, 6, 1, 4, 3])
        #expect(tokenizer.encode(text: "ab", pair: "ab").ids == [2, 5, 3, 5, 3])
        #expect(tokenizer.decode(tokens: [2, 5, 6, 5, 3]) == "abc ab")
        #expect(tokenizer.padTokenID == 0)
        #expect(tokenizer.unknownTokenID == 1)
        let cased = try load(files.merging(["tokenizer_config.json": #"{"do_lower_case": false}"#]) { $1 })
        #expect(cased.encode(text: "AB À", addSpecialTokens: false) == [1, 7])
    }

    /// A tokenizer from a made-up `tokenizer.model` of type BPE.
    func loadModel(normalizer: [UInt8]) throws -> Tokenizer {
        let trainer = MalformedFileTests.field(3, 2)
        let bytes =
            MalformedFileTests.pieces + MalformedFileTests.field(2, trainer) + MalformedFileTests.field(3, normalizer)
        return try withTemporaryFolder { folder in
            try AtomicFile.write(Data(bytes), to: folder.appendingPathComponent("tokenizer.model"))
            return try Tokenizer.load(folder: folder)
        }
    }

    @Test func sentencePieceMergesFollowFromScores() throws {
        let tokenizer = try loadModel(normalizer: MalformedFileTests.field(4, 0))
        #expect(tokenizer.encode(text: "a  aa[sep]é") == [1, 5, 3, 5, 4, 6, 3, 0])
        #expect(tokenizer.encode(text: "a", pair: "a").ids == [1, 5, 1, 5])
        #expect(tokenizer.decode(tokens: [1, 5, 3, 5, 4]) == "a  aa")
        #expect([tokenizer.bosTokenID, tokenizer.eosTokenID, tokenizer.padTokenID] == [1, 2, nil])
    }

    @Test func sentencePieceModelThatNormalizesIsRefused() {
        let error = #expect(throws: PEFTError.self) { try loadModel(normalizer: []) }
        #expect(error?.problem.contains("tokenizer.model: a BPE model that normalizes") == true)
    }

    static let damaged: [(files: [String: String], problem: String)] = [
        (["vocab.json": "{", "merges.txt": ""], "vocab.json"),
        (["vocab.json": "[]", "merges.txt": ""], "expected '{'"),
        (["vocab.json": #"{"a": 0} x"#, "merges.txt": ""], "after the vocabulary"),
        (["vocab.json": #"{"a": -1}"#, "merges.txt": ""], "non-negative integer"),
        (["vocab.json": #"{"\ud800": 1}"#, "merges.txt": ""], "surrogate"),
        (["vocab.json": #"{"a": 0}"#, "merges.txt": "#version: 0.2\na\n"], "line 2"),
        (["vocab.json": #"{"a": 0}"#, "merges.txt": "a b\n"], "merge 0 needs b"),
        (["vocab.txt": "a\nb\n"], "[UNK] is not in the vocabulary"),
        (["vocab.txt": "[UNK]\nb\n"], "the cls_token [CLS] is not in the vocabulary"),
        (["vocab.txt": "", "tokenizer_config.json": #"{"do_lower_case": 3}"#], "vocab.txt"),
        (["vocab.json": "{}"], "there is no tokenizer"),
    ]

    @Test(arguments: damaged.indices)
    func damagedFileIsNamed(index: Int) throws {
        let (files, problem) = OlderFilesTests.damaged[index]
        let error = #expect(throws: PEFTError.self) { try load(files) }
        #expect(error?.problem.contains(problem) == true, "\(error?.description ?? "no error")")
    }

    @Test func everyTruncationOfAVocabularyIsRefused() throws {
        let text = Array(OlderFilesTests.gpt2["vocab.json", default: ""].utf8)
        for count in text.indices {
            let start = String(decoding: text[..<count], as: UTF8.self)
            #expect(throws: PEFTError.self) { try load(["vocab.json": start, "merges.txt": ""]) }
        }
    }
}
