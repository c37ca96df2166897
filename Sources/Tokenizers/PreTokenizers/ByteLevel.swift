/// Splits text into words, then rewrites it as GPT-2's ``ByteCharacters``.
struct ByteLevelPreTokenizer: PreTokenizer {
    /// Whether a space is prepended to every piece that doesn't begin with one.
    let addsPrefixSpace: Bool
    /// Whether to split by GPT-2's regular expression.
    let splits: Bool

    init(addsPrefixSpace: Bool, splits: Bool = true) {
        self.addsPrefixSpace = addsPrefixSpace
        self.splits = splits
    }

    init(_ fields: StageFields) throws {
        addsPrefixSpace = try fields.bool("add_prefix_space", default: true)
        splits = try fields.bool("use_regex", default: true)
    }

    func split(_ text: inout PreTokenizedText) {
        let source = text.bytes
        let encoded = ByteCharacters.encoded
        var bytes: [UInt8] = []
        bytes.reserveCapacity(source.count + source.count / 4)
        var pieces: [Range<Int>] = []
        pieces.reserveCapacity(source.count / 4 + 1)
        var origins: [Range<Int>] = []
        func append(_ words: [Range<Int>], of source: [UInt8], from sourceOrigins: ArraySlice<Range<Int>>?) {
            for word in words {
                let start = bytes.count
                for index in word { bytes.append(contentsOf: encoded[Int(source[index])]) }
                pieces.append(start..<bytes.count)
                guard let sourceOrigins else { continue }
                for index in word {
                    let origin = sourceOrigins[sourceOrigins.startIndex + index]
                    origins += repeatElement(origin, count: encoded[Int(source[index])].count)
                }
            }
        }
        for piece in text.pieces {
            if addsPrefixSpace, source[piece.lowerBound] != 0x20 {
                let prefixed = [0x20] + source[piece]
                let whole = 0..<prefixed.count
                let own = text.origins.map { [$0[piece.lowerBound]] + $0[piece] }
                append(splits ? WordScanner.gpt2.words(in: prefixed, whole) : [whole], of: prefixed, from: own?[...])
            } else {
                append(
                    splits ? WordScanner.gpt2.words(in: source, piece) : [piece], of: source, from: text.origins?[...]
                )
            }
        }
        text.bytes = bytes
        text.pieces = pieces
        if text.origins != nil { text.origins = origins }
    }
}
