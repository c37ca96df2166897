/// Decodes token ids one at a time, and returns only text that is final: a character whose bytes are
/// spread over several tokens is returned when it is complete.
///
/// The concatenated pieces, that of ``finish()`` included, equal ``Tokenizer/decode(tokens:skipSpecialTokens:)``
/// of all ids at once. Adjacent byte tokens that decode only as a whole (`<0xE2>`, `<0x82>`) are
/// held back until another token follows them.
public struct StreamingDecoder {
    private let tokenizer: Tokenizer
    private let skipSpecialTokens: Bool
    private var stages: [any DecoderStream]
    private var cleaning: SpaceCleaningStream?

    init(_ tokenizer: Tokenizer, skipSpecialTokens: Bool) {
        self.tokenizer = tokenizer
        self.skipSpecialTokens = skipSpecialTokens
        stages = tokenizer.decoder?.streams() ?? [SpacedStream()]
        cleaning = tokenizer.cleansSpaces ? SpaceCleaningStream() : nil
    }

    /// Decodes the next id.
    /// - Returns: the newly final text; often empty.
    public mutating func append(_ id: Int) -> String {
        guard let piece = tokenizer.piece(for: id, skipSpecialTokens: skipSpecialTokens) else { return "" }
        let text = run([TokenPart(piece)], from: 0)
        return cleaning?.append(text) ?? text
    }

    /// The rest of the text, after the last id.
    public mutating func finish() -> String {
        var text = ""
        for index in stages.indices { text += run(stages[index].finish(), from: index + 1) }
        guard cleaning != nil else { return text }
        return (cleaning?.append(text) ?? "") + (cleaning?.finish() ?? "")
    }

    private mutating func run(_ parts: [TokenPart], from first: Int) -> String {
        var parts = parts
        for index in stages.indices.dropFirst(first) {
            parts = parts.flatMap { stages[index].push($0) }
        }
        return parts.reduce(into: "") { $0 += $1.text }
    }
}

extension Tokenizer {
    /// A decoder for incremental decoding.
    public func streamingDecoder(skipSpecialTokens: Bool = true) -> StreamingDecoder {
        StreamingDecoder(self, skipSpecialTokens: skipSpecialTokens)
    }
}

/// A token on its way through the decoders, or a part of one that a decoder makes of many.
struct TokenPart {
    var text: String
    /// Whether the token ends here.
    var isEnd = true

    init(_ text: String, isEnd: Bool = true) {
        self.text = text
        self.isEnd = isEnd
    }
}

/// What a ``Decoder`` does, token by token.
protocol DecoderStream {
    /// - Returns: what is certain of the tokens for the next decoder.
    mutating func push(_ part: TokenPart) -> [TokenPart]
    /// What was held back.
    mutating func finish() -> [TokenPart]
}

extension Decoder {
    /// A decoder that looks at each token for itself, and at most wants to know whether it is the first.
    func tokenwise(_ decode: @escaping (_ token: String, _ isFirst: Bool) -> String?) -> [any DecoderStream] {
        [TokenwiseStream(decode: decode)]
    }
}

private struct TokenwiseStream: DecoderStream {
    let decode: (String, Bool) -> String?
    private var pending = ""
    private var isFirst = true

    init(decode: @escaping (String, Bool) -> String?) { self.decode = decode }

    mutating func push(_ part: TokenPart) -> [TokenPart] {
        pending += part.text
        guard part.isEnd else { return [] }
        defer {
            pending = ""
            isFirst = false
        }
        return decode(pending, isFirst).map { [TokenPart($0)] } ?? []
    }

    mutating func finish() -> [TokenPart] { [] }
}

/// Spaces between tokens, where a tokenizer has no decoder.
private struct SpacedStream: DecoderStream {
    private var isFirst = true

    mutating func push(_ part: TokenPart) -> [TokenPart] {
        defer { isFirst = false }
        return isFirst ? [part] : [TokenPart(" " + part.text)]
    }

    mutating func finish() -> [TokenPart] { [] }
}

/// Makes one token of all.
struct FuseStream: DecoderStream {
    mutating func push(_ part: TokenPart) -> [TokenPart] { [TokenPart(part.text, isEnd: false)] }
    mutating func finish() -> [TokenPart] { [TokenPart("")] }
}

/// Holds the last token back, which is decoded otherwise than the ones before it.
struct LastTokenStream: DecoderStream {
    let decode: (_ token: String, _ isLast: Bool) -> String
    private var pending = ""
    private var last: String?

    init(decode: @escaping (String, Bool) -> String) { self.decode = decode }

    mutating func push(_ part: TokenPart) -> [TokenPart] {
        pending += part.text
        guard part.isEnd else { return [] }
        defer { (last, pending) = (pending, "") }
        return last.map { [TokenPart(decode($0, false))] } ?? []
    }

    mutating func finish() -> [TokenPart] { last.map { [TokenPart(decode($0, true))] } ?? [] }
}

/// Removes from the beginning of a token at once, and holds back what may be its end.
struct StripStream: DecoderStream {
    let decoder: StripDecoder
    private var removed = 0
    private var isAtStart = true
    /// Scalars that may be removed at the end.
    private var held = 0

    init(decoder: StripDecoder) { self.decoder = decoder }

    mutating func push(_ part: TokenPart) -> [TokenPart] {
        var text = ""
        for scalar in part.text.unicodeScalars {
            if isAtStart, removed < decoder.start, scalar == decoder.content {
                removed += 1
                continue
            }
            isAtStart = false
            if scalar == decoder.content, decoder.stop > 0 {
                held += 1
                continue
            }
            release(held, into: &text)
            text.unicodeScalars.append(scalar)
        }
        // Of a long run only the last ones may go.
        if held > decoder.stop { release(held - decoder.stop, into: &text) }
        if part.isEnd { self = StripStream(decoder: decoder) }
        return [TokenPart(text, isEnd: part.isEnd)]
    }

    private mutating func release(_ count: Int, into text: inout String) {
        for _ in 0..<count { text.unicodeScalars.append(decoder.content) }
        held -= count
    }

    mutating func finish() -> [TokenPart] { [] }
}

/// Bytes of a run of tokens such as `<0xE2>`, which are text only all together.
struct ByteFallbackStream: DecoderStream {
    private var pending = ""
    private var run: [String] = []

    mutating func push(_ part: TokenPart) -> [TokenPart] {
        pending += part.text
        guard part.isEnd else { return [] }
        defer { pending = "" }
        guard ByteFallback.byte(pending) == nil else {
            run.append(pending)
            return []
        }
        return finish() + [TokenPart(pending)]
    }

    mutating func finish() -> [TokenPart] {
        defer { run.removeAll() }
        return ByteFallback().decode(run).map { TokenPart($0) }
    }
}

/// Bytes of all tokens, as far as they are complete characters or can't become any.
struct ByteLevelStream: DecoderStream {
    private var bytes: [UInt8] = []
    private var pending = ""

    mutating func push(_ part: TokenPart) -> [TokenPart] {
        pending += part.text
        guard part.isEnd else { return [] }
        ByteLevelDecoder.append(pending, to: &bytes)
        pending = ""
        let certain = bytes.count - ByteLevelStream.incomplete(bytes)
        defer { bytes.removeFirst(certain) }
        return [TokenPart(String(decoding: bytes[..<certain], as: UTF8.self), isEnd: false)]
    }

    mutating func finish() -> [TokenPart] {
        defer { bytes.removeAll() }
        return [TokenPart(String(decoding: bytes, as: UTF8.self))]
    }

    /// How many bytes at the end begin a character that more bytes could complete.
    private static func incomplete(_ bytes: [UInt8]) -> Int {
        for count in 1...3 where count <= bytes.count {
            let lead = bytes[bytes.count - count]
            if lead & 0xC0 == 0x80 { continue }
            let length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC2 ? 2 : 1
            guard count < length, lead < 0xF5 else { return 0 }
            // What no further bytes can make valid is replaced already.
            let rest = bytes[(bytes.count - count)...] + repeatElement(0x80, count: length - count)
            let other = bytes[(bytes.count - count)...] + repeatElement(0xBF, count: length - count)
            return validated(rest) != nil || validated(other) != nil ? count : 0
        }
        return 0
    }
}
