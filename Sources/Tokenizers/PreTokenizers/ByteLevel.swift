/// Writes text as GPT-2's ``ByteCharacters``, and cuts it into words before that.
struct ByteLevelPreTokenizer: PreTokenizer {
    /// Whether every piece gets a space before it if it has none.
    let addsPrefixSpace: Bool
    /// Whether pieces are cut by GPT-2's expression.
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
        func append(_ words: [Range<Int>], of source: [UInt8]) {
            for word in words {
                let start = bytes.count
                for index in word { bytes.append(contentsOf: encoded[Int(source[index])]) }
                pieces.append(start..<bytes.count)
            }
        }
        for piece in text.pieces {
            if addsPrefixSpace, source[piece.lowerBound] != 0x20 {
                let prefixed = [0x20] + source[piece]
                let whole = 0..<prefixed.count
                append(splits ? WordScanner.gpt2.words(in: prefixed, whole) : [whole], of: prefixed)
            } else {
                append(splits ? WordScanner.gpt2.words(in: source, piece) : [piece], of: source)
            }
        }
        text.bytes = bytes
        text.pieces = pieces
    }
}
