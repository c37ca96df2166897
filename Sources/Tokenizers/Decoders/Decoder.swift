import PEFTSupport

/// Turns pieces back into text. Registered in ``decoders``.
protocol Decoder: Sendable {
    /// - Returns: strings whose concatenation is the text, or the input of the next decoder.
    func decode(_ tokens: [String]) -> [String]
    /// The same, token by token: one stream, or one for each member.
    func streams() -> [any DecoderStream]
}

/// The decoders a tokenizer file may name, by the `type` it gives them.
let decoders: [String: @Sendable (StageFields) throws -> any Decoder] = [
    "Sequence": { DecoderSequence(members: try $0.objects("decoders").map(readDecoder)) },
    "Metaspace": { MetaspaceDecoder(metaspace: try Metaspace($0)) },
    "Replace": { ReplaceDecoder(replacement: try Replacement($0)) },
    "Fuse": { _ in Fuse() },
    "ByteFallback": { _ in ByteFallback() },
    "ByteLevel": { _ in ByteLevelDecoder() },
    "WordPiece": {
        try WordPieceDecoder(prefix: $0.string("prefix"), cleansUp: $0.bool("cleanup", default: true))
    },
    "BPEDecoder": { try BPEDecoder($0) },
    "CTC": { try CTCDecoder($0) },
    "Strip": { try StripDecoder(content: $0.scalar("content"), start: $0.count("start"), stop: $0.count("stop")) },
]

@Sendable func readDecoder(_ fields: StageFields) throws -> any Decoder {
    try fields.make("decoder", decoders)
}

/// Applies decoders one after the other.
struct DecoderSequence: Decoder {
    let members: [any Decoder]

    func decode(_ tokens: [String]) -> [String] {
        members.reduce(tokens) { $1.decode($0) }
    }

    func streams() -> [any DecoderStream] { members.flatMap { $0.streams() } }
}

/// "▁" becomes a space, and nothing in the first token if a prefix was added.
struct MetaspaceDecoder: Decoder {
    let metaspace: Metaspace

    func decode(_ tokens: [String]) -> [String] {
        tokens.enumerated().map { decode($1, isFirst: $0 == 0) }
    }

    func streams() -> [any DecoderStream] { tokenwise { decode($0, isFirst: $1) } }

    private func decode(_ token: String, isFirst: Bool) -> String {
        let dropsReplacement = isFirst && metaspace.prependScheme != .never
        var text = ""
        for scalar in token.unicodeScalars {
            if scalar != metaspace.replacement {
                text.unicodeScalars.append(scalar)
            } else if !dropsReplacement {
                text.unicodeScalars.append(" ")
            }
        }
        return text
    }
}

/// Replaces in each token.
struct ReplaceDecoder: Decoder {
    let replacement: Replacement

    func decode(_ tokens: [String]) -> [String] {
        tokens.map(decode)
    }

    func streams() -> [any DecoderStream] { tokenwise { token, _ in decode(token) } }

    private func decode(_ token: String) -> String {
        let bytes = Array(token.utf8)
        return String(decoding: replacement.apply(to: bytes, limit: max(1 << 20, bytes.count)).bytes, as: UTF8.self)
    }
}

/// Makes one token of all, for decoders after it that look at the whole text.
struct Fuse: Decoder {
    func decode(_ tokens: [String]) -> [String] { [tokens.joined()] }
    func streams() -> [any DecoderStream] { [FuseStream()] }
}

/// Makes text of runs of tokens such as `<0xE2>`: if their bytes are no UTF-8, one "\u{FFFD}" for each.
struct ByteFallback: Decoder {
    func decode(_ tokens: [String]) -> [String] {
        var result: [String] = []
        var bytes: [UInt8] = []
        func flush() {
            if let text = validated(bytes) {
                if !bytes.isEmpty { result.append(text) }
            } else {
                result.append(contentsOf: bytes.map { _ in "\u{FFFD}" })
            }
            bytes.removeAll()
        }
        for token in tokens {
            if let byte = ByteFallback.byte(token) {
                bytes.append(byte)
            } else {
                flush()
                result.append(token)
            }
        }
        flush()
        return result
    }

    func streams() -> [any DecoderStream] { [ByteFallbackStream()] }

    static func byte(_ token: String) -> UInt8? {
        let text = token.utf8
        guard text.count == 6, token.hasPrefix("<0x"), token.hasSuffix(">") else { return nil }
        return UInt8(token.dropFirst(3).dropLast(), radix: 16)
    }
}

/// Removes up to `start` times `content` from the beginning of each token, and up to `stop` from its end.
struct StripDecoder: Decoder {
    let content: Unicode.Scalar
    let start: Int
    let stop: Int

    func streams() -> [any DecoderStream] { [StripStream(decoder: self)] }

    func decode(_ tokens: [String]) -> [String] {
        tokens.map { token in
            var scalars = Substring(token).unicodeScalars
            var count = 0
            while count < start, scalars.first == content {
                scalars.removeFirst()
                count += 1
            }
            count = 0
            while count < stop, scalars.last == content {
                scalars.removeLast()
                count += 1
            }
            return String(scalars)
        }
    }
}
