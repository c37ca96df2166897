import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import PEFTTokenizers

/// Where tokens lie in a text, on real tokenizers where they are there.
@Suite struct PlacesTests {
    private static func exists(_ name: String) -> Bool {
        FileManager.default.fileExists(atPath: Folders.shared.appendingPathComponent("\(name)/tokenizer.json").path)
    }

    private static let texts = [
        "Hello there, how are you?", "  two  spaces\n\n and\ttabs ", "Grüße 日本語 🙂 e\u{301}\r\n",
        "a</s>b <s>[INST] x [/INST] y </s>", "own\u{2581}space \u{2581}", "",
    ]

    @Test(arguments: ["gpt2-tokenizer", "llama2-tokenizer", "tinystories-656k-hf"].filter(exists))
    func placesCoverTheText(name: String) throws {
        let folder = name == "llama2-tokenizer" ? Folders.repairedLlama2 : Folders.shared.appendingPathComponent(name)
        let tokenizer = try Tokenizer.load(folder: #require(folder))
        for text in Self.texts {
            let ids = tokenizer.encode(text: text, addSpecialTokens: false)
            // Without the whole tokenizer in what a failure prints.
            let found = tokenizer.places(of: ids, in: text)
            if let unknown = tokenizer.unknownTokenID, ids.contains(unknown) {
                #expect(found == nil, "what an unknown token covers can't be told")
                continue
            }
            let places = try #require(found, "\(name): \(text.debugDescription) \(ids)")
            #expect(places.first?.lowerBound ?? 0 == 0 && places.last?.upperBound ?? 0 == text.utf8.count)
            for (a, b) in zip(places, places.dropFirst()) { #expect(a.upperBound == b.lowerBound) }
        }
    }

    @Test(.enabled(if: exists("llama2-tokenizer"), "no Llama tokenizer beside the checkout"))
    func partsMarkTheirTokens() throws {
        let tokenizer = try Tokenizer.load(folder: #require(Folders.repairedLlama2))
        let text = "<s>[INST] Hi [/INST] Hello you </s><s>[INST] So [/INST]"
        let ids = tokenizer.encode(text: text, addSpecialTokens: false)
        let start = "<s>[INST] Hi [/INST]".utf8.count
        let part = start..<(start + " Hello you </s>".utf8.count)
        let found = tokenizer.overlaps(with: [part], in: text, ids: ids)
        let marks = try #require(found)
        let marked = zip(ids, marks).filter(\.1).compactMap { tokenizer.token(for: $0.0) }
        #expect(marked == ["▁Hello", "▁you", "▁</s>"])
    }

    /// Where the text is changed before it is cut, the offsets tell.
    @Test func changedTexts() throws {
        let vocabulary = ["[UNK]", "hello", "there", "##fore"]
        let tokens = Dictionary(uniqueKeysWithValues: vocabulary.enumerated().map { ($1, $0) })
        let model = JSON.object(tokens.mapValues { .integer($0) }).text()
        let json = """
            {"added_tokens": [], "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
             "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": null, "decoder": null,
             "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": \(model)}}
            """
        let tokenizer = try withTemporaryFile("tokenizer.json", json.utf8) {
            try Tokenizer.load(folder: $0.deletingLastPathComponent())
        }
        let text = "Hello Therefore"
        let ids = tokenizer.encode(text: text, addSpecialTokens: false)
        let places = tokenizer.places(of: ids, in: text)
        #expect(ids == [1, 2, 3] && places == nil)
        let (word, part) = (
            tokenizer.overlaps(with: [6..<15], in: text, ids: ids),
            tokenizer.overlaps(with: [6..<9], in: text, ids: ids)
        )
        #expect(word == [false, true, true] && part == [false, true, false])
        #expect(tokenizer.overlaps(with: [0..<5], in: text, ids: [1]) == nil)
    }
}
