/// Puts spaces before tokens that begin a word, and joins those with the prefix to what stands before them.
struct WordPieceDecoder: Decoder {
    let prefix: String
    /// Whether to remove spaces before punctuation and within English contractions.
    let cleansUp: Bool

    init(prefix: String = "##", cleansUp: Bool = true) {
        self.prefix = prefix
        self.cleansUp = cleansUp
    }

    func decode(_ tokens: [String]) -> [String] {
        tokens.enumerated().map { index, token in
            var bytes = Array(token.utf8)
            if index > 0 {
                if bytes.starts(with: prefix.utf8) {
                    bytes.removeFirst(prefix.utf8.count)
                } else {
                    bytes.insert(0x20, at: 0)
                }
            }
            if cleansUp, index > 0 || bytes.contains(0x20) { WordPieceDecoder.cleanUp(&bytes) }
            return String(decoding: bytes, as: UTF8.self)
        }
    }

    private static let corrections: [(before: TextPattern, after: [UInt8])] = [
        (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
        (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
    ].map { (.literal(Array($0.0.utf8)), Array($0.1.utf8)) }

    private static func cleanUp(_ bytes: inout [UInt8]) {
        for (before, after) in corrections {
            for match in before.matches(in: bytes).reversed() { bytes.replaceSubrange(match, with: after) }
        }
    }
}

/// Makes spaces of the mark that ends words, except at the end of the text.
struct BPEDecoder: Decoder {
    private let pattern: TextPattern

    init(_ fields: StageFields) throws {
        let suffix = try fields.string("suffix")
        guard !suffix.isEmpty else { throw fields.malformed("suffix is empty") }
        pattern = .literal(Array(suffix.utf8))
    }

    func decode(_ tokens: [String]) -> [String] {
        tokens.enumerated().map { index, token in
            var bytes = Array(token.utf8)
            let space: [UInt8] = index + 1 < tokens.count ? [0x20] : []
            for match in pattern.matches(in: bytes).reversed() { bytes.replaceSubrange(match, with: space) }
            return String(decoding: bytes, as: UTF8.self)
        }
    }
}
