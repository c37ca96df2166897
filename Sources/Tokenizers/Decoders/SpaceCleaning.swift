/// Removes the spaces that tokens leave before punctuation and contractions, as transformers does after decoding where
/// `tokenizer_config.json` has `clean_up_tokenization_spaces` and the model isn't byte-pair encoding.
enum SpaceCleaning {
    /// Replaced one after another, each in the whole text.
    private static let replacements: [(String, String)] = [
        (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"), (" 're", "'re"),
    ]

    static func clean(_ text: String) -> String {
        var bytes = Array(text.utf8)
        guard bytes.contains(0x20) else { return text }
        for (old, new) in replacements { bytes = replacing(Array(old.utf8), with: Array(new.utf8), in: bytes) }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// By bytes: `String` would take a combining character behind a space for a part of it.
    private static func replacing(_ old: [UInt8], with new: [UInt8], in text: [UInt8]) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(text.count)
        var index = 0
        while index < text.count {
            if text[index] == old[0], text[index...].starts(with: old) {
                result += new
                index += old.count
            } else {
                result.append(text[index])
                index += 1
            }
        }
        return result
    }

    /// How many bytes from the beginning are cleaned alike whatever follows: up to a space that begins nothing to be replaced,
    /// as its next character shows, and that ends nothing.
    static func closedCount(_ bytes: [UInt8]) -> Int {
        let begins = Array(".?!,'n ".utf8)
        var index = bytes.count - 2
        while index > 0 {
            if bytes[index] == 0x20, !begins.contains(bytes[index + 1]), !"' ".utf8.contains(bytes[index - 1]) {
                return index
            }
            index -= 1
        }
        return 0
    }
}

/// Cleans text as it comes, and holds back what may still change.
struct SpaceCleaningStream {
    private var pending: [UInt8] = []

    mutating func append(_ text: String) -> String {
        pending += text.utf8
        let count = SpaceCleaning.closedCount(pending)
        guard count > 0 else { return "" }
        defer { pending.removeFirst(count) }
        return SpaceCleaning.clean(String(decoding: pending[..<count], as: UTF8.self))
    }

    mutating func finish() -> String {
        defer { pending = [] }
        return SpaceCleaning.clean(String(decoding: pending, as: UTF8.self))
    }
}
