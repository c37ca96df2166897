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
        tokens.enumerated().map { decode($1, isFirst: $0 == 0) }
    }

    func streams() -> [any DecoderStream] { tokenwise { decode($0, isFirst: $1) } }

    private func decode(_ token: String, isFirst: Bool) -> String {
        var bytes = Array(token.utf8)
        if !isFirst {
            if bytes.starts(with: prefix.utf8) {
                bytes.removeFirst(prefix.utf8.count)
            } else {
                bytes.insert(0x20, at: 0)
            }
        }
        if cleansUp, !isFirst || bytes.contains(0x20) { WordPieceDecoder.cleanUp(&bytes) }
        return String(decoding: bytes, as: UTF8.self)
    }

    private static let corrections: [(before: TextPattern, after: [UInt8])] = [
        (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
        (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
    ].map { (.literal(Array($0.0.utf8)), Array($0.1.utf8)) }

    static func cleanUp(_ bytes: inout [UInt8]) {
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
        tokens.enumerated().map { decode($1, isLast: $0 + 1 == tokens.count) }
    }

    func streams() -> [any DecoderStream] { [LastTokenStream { decode($0, isLast: $1) }] }

    private func decode(_ token: String, isLast: Bool) -> String {
        var bytes = Array(token.utf8)
        for match in pattern.matches(in: bytes).reversed() {
            bytes.replaceSubrange(match, with: isLast ? [] : [0x20])
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// Connectionist temporal classification, as speech models write: of equal tokens beside each other one stays, and
/// padding goes.
struct CTCDecoder: Decoder {
    private let padding: TextPattern
    private let delimiter: TextPattern
    private let cleansUp: Bool

    init(_ fields: StageFields) throws {
        func pattern(_ key: String) throws -> TextPattern {
            let token = try fields.string(key)
            guard !token.isEmpty else { throw fields.malformed("\(key) is empty") }
            return .literal(Array(token.utf8))
        }
        padding = try pattern("pad_token")
        delimiter = try pattern("word_delimiter_token")
        cleansUp = try fields.bool("cleanup", default: true)
    }

    func decode(_ tokens: [String]) -> [String] {
        var before: String?
        return tokens.compactMap { decode($0, &before) }
    }

    func streams() -> [any DecoderStream] { [CTCStream(decoder: self)] }

    fileprivate func decode(_ token: String, _ before: inout String?) -> String? {
        defer { before = token }
        if let before, before.utf8.elementsEqual(token.utf8) { return nil }
        var bytes = Array(token.utf8)
        for match in padding.matches(in: bytes).reversed() { bytes.removeSubrange(match) }
        if cleansUp {
            WordPieceDecoder.cleanUp(&bytes)
            for match in delimiter.matches(in: bytes).reversed() { bytes.replaceSubrange(match, with: [0x20]) }
        }
        return bytes.isEmpty ? nil : String(decoding: bytes, as: UTF8.self)
    }
}

private struct CTCStream: DecoderStream {
    let decoder: CTCDecoder
    private var pending = ""
    private var before: String?

    init(decoder: CTCDecoder) { self.decoder = decoder }

    mutating func push(_ part: TokenPart) -> [TokenPart] {
        pending += part.text
        guard part.isEnd else { return [] }
        defer { pending = "" }
        return decoder.decode(pending, &before).map { [TokenPart($0)] } ?? []
    }

    mutating func finish() -> [TokenPart] { [] }
}
