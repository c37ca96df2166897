import Foundation
import PEFTSupport

/// A tokenizer whose tokens are words between spaces: a text's ids can be read off the text.
package enum WordTokenizer {
    /// `<unk>`, `</s>`, `w2`, `w3`, … with the ids 0, 1, 2, 3, …
    package static func words(_ count: Int) -> [String] {
        (0..<count).map { $0 < 2 ? ["<unk>", "</s>"][$0] : "w\($0)" }
    }

    /// Writes the tokenizer's files into a model's folder. The first word stands for unknown ones.
    /// - Parameters:
    ///   - words: the vocabulary, in the order of ids.
    ///   - beginToken: the word that is the begin token, if any; encoding adds none.
    ///   - endToken: the word that is the end token, if any; encoding adds none.
    package static func write(
        _ words: [String], beginToken: String? = nil, endToken: String? = nil, to folder: URL
    ) throws {
        let vocabulary = Dictionary(words.enumerated().map { ($1, JSON.integer($0)) }, uniquingKeysWith: { $1 })
        let tokenizer: JSON = [
            "added_tokens": [], "normalizer": nil, "pre_tokenizer": ["type": "WhitespaceSplit"],
            "post_processor": nil, "decoder": nil,
            "model": ["type": "WordLevel", "vocab": .object(vocabulary), "unk_token": .string(words.first ?? "")],
        ]
        try AtomicFile.write(tokenizer.text(), to: folder.appendingPathComponent("tokenizer.json"))
        var configuration: [String: JSON] = [:]
        configuration["bos_token"] = beginToken.map { .string($0) }
        configuration["eos_token"] = endToken.map { .string($0) }
        try AtomicFile.write(
            JSON.object(configuration).text(), to: folder.appendingPathComponent("tokenizer_config.json"))
    }
}
