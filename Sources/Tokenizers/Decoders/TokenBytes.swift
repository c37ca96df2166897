import PEFTSupport

extension Tokenizer {
    /// The bytes that each token adds to decoded text, by id, for decoding under a grammar.
    ///
    /// The text of several tokens is the UTF-8 text of their bytes together, apart from the space that some decoders
    /// remove from its beginning. Special tokens, which decoding skips, and ids without a token have no bytes.
    /// - Parameter count: the number of ids, such as the size of a model's vocabulary.
    /// - Throws: ``PEFTError`` if a token's text depends on the tokens around it, as WordPiece's does.
    package func tokenBytes(count: Int) throws -> [[UInt8]] {
        guard let decoder, !cleansSpaces else {
            throw PEFTError(
                "this tokenizer's text is not the text of its tokens one after another",
                remedy: "use a model with a byte-level or SentencePiece tokenizer")
        }
        let steps = (decoder as? DecoderSequence)?.members ?? [decoder]
        return try (0..<max(0, count)).map { id in
            guard let piece = piece(for: id, skipSpecialTokens: true) else { return [] }
            return try Self.bytes(of: piece, steps)
        }
    }

    private static func bytes(of token: String, _ steps: [any Decoder]) throws -> [UInt8] {
        var text = token
        var bytes: [UInt8]?
        var isFused = false
        for step in steps {
            switch step {
            case is Fuse: isFused = true
            case let strip as StripDecoder where isFused && strip.stop == 0:
                // Only the first token of a text can lose its beginning.
                continue
            case is ByteLevelDecoder where bytes == nil && !isFused:
                var result: [UInt8] = []
                ByteLevelDecoder.append(text, to: &result)
                bytes = result
            case is ByteFallback where bytes == nil && !isFused:
                if let byte = ByteFallback.byte(text) { bytes = [byte] }
            case let metaspace as MetaspaceDecoder where !isFused:
                // A token that isn't the first, so that its mark is a space.
                if bytes == nil { text = metaspace.decode(["", text])[1] }
            case is ReplaceDecoder where !isFused, is StripDecoder where !isFused:
                if bytes == nil { text = step.decode([text]).joined() }
            default:
                throw PEFTError(
                    "this tokenizer's decoder joins tokens in a way that depends on the tokens around them",
                    remedy: "use a model with a byte-level or SentencePiece tokenizer")
            }
        }
        return bytes ?? Array(text.utf8)
    }
}
