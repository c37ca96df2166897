import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import PEFTTokenizers

/// What transformers does around the `tokenizers` library's decoding.
@Suite struct DecodingTests {
    @Test func spacesAreCleanedAsByTransformers() throws {
        let rows = try Fixture.read("space-cleaning", as: [[String]].self)
        #expect(rows.count > 400)
        var random = SeededRandom(seed: 2)
        for row in rows {
            #expect(same(SpaceCleaning.clean(row[0]), row[1]), "\(row[0].debugDescription)")
            // In pieces of any length it comes to the same.
            for _ in 0..<4 {
                var (stream, text, rest) = (SpaceCleaningStream(), "", row[0].unicodeScalars[...])
                while !rest.isEmpty {
                    let part = rest.prefix(1 + Int(random.next() % 4))
                    rest = rest.dropFirst(part.count)
                    text += stream.append(String(String.UnicodeScalarView(part)))
                }
                #expect(same(text + stream.finish(), row[1]), "\(row[0].debugDescription)")
            }
        }
    }

    /// A word-level tokenizer, or one of byte-pair encoding, with these settings.
    private func tokenizer(_ configuration: String, model: String? = nil, added: String = "[]") throws -> Tokenizer {
        let words = #"{"<x>": 0, "hello": 1, ".": 2, "it": 3, "'s": 4, "<y>": 5}"#
        let model = model ?? #"{"type": "WordLevel", "vocab": \#(words), "unk_token": "<x>"}"#
        return try withTemporaryFolder { folder in
            try AtomicFile.write(
                #"{"added_tokens": \#(added), "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null, "model": \#(model)}"#,
                to: folder.appendingPathComponent("tokenizer.json"))
            try AtomicFile.write(configuration, to: folder.appendingPathComponent("tokenizer_config.json"))
            return try Tokenizer.load(folder: folder)
        }
    }

    @Test func onlyTheConfigurationAsksForIt() throws {
        let ids = [1, 2, 3, 4]
        #expect(try tokenizer("{}").decode(tokens: ids) == "hello . it 's")
        let cleaning = try tokenizer(#"{"clean_up_tokenization_spaces": true}"#)
        #expect(cleaning.decode(tokens: ids) == "hello. it's")
        var stream = cleaning.streamingDecoder()
        #expect(ids.reduce(into: "") { $0 += stream.append($1) } + stream.finish() == "hello. it's")
        // Spaces of byte-pair encoding are the text's own.
        let model = #"{"type": "BPE", "vocab": {"a": 0, ".": 1}, "merges": []}"#
        let pairs = try tokenizer(#"{"clean_up_tokenization_spaces": true}"#, model: model)
        #expect(pairs.decode(tokens: [0, 1]) == "a .")
    }

    /// `transformers` 5.24: a list of special tokens leaves an added token of `tokenizer.json` as it is.
    @Test(arguments: [
        (#"{}"#, "hello <x> it"), (#"{"extra_special_tokens": ["<x>"]}"#, "hello <x> it"),
        (#"{"additional_special_tokens": ["<x>"]}"#, "hello <x> it"), (#"{"pad_token": "<x>"}"#, "hello it"),
        (#"{"extra_special_tokens": {"image_token": "<x>"}}"#, "hello it"),
        (#"{"added_tokens_decoder": {"0": {"content": "<x>", "special": true}}}"#, "hello it"),
        (#"{"extra_special_tokens": ["hello"]}"#, "<x> it"),
    ])
    func specialTokensAreThoseOfTransformers(configuration: String, text: String) throws {
        let added = #"[{"id": 0, "content": "<x>", "special": false}, {"id": 5, "content": "<y>", "special": true}]"#
        #expect(try tokenizer(configuration, added: added).decode(tokens: [1, 0, 3, 5]) == text)
    }

    /// A merge of several spaces has several cuts; the `tokenizers` library refuses it too.
    @Test(arguments: [#""   ""#, #""a  b""#, #""a b ""#, #"" a b""#, #""ab""#, #""""#])
    func damagedMergesAreRefused(merge: String) throws {
        let model =
            #"{"type": "BPE", "vocab": {" ": 0, "  ": 1, "a": 2, "b": 3, "ab": 4}, "merges": ["a b", \#(merge)]}"#
        let error = try #require(throws: PEFTError.self) { try tokenizer("{}", model: model) }
        #expect(error.problem.contains("merge 1 is not two pieces with one space between them"))
    }
}
