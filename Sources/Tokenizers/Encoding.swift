/// One or two texts as a model reads them.
public struct Encoding: Equatable, Sendable {
    /// One for each token, special ones included.
    public var ids: [Int] = []
    /// Which of two texts each token belongs to, as far as the model tells them apart: 0 or 1 with BERT, all 0 with
    /// RoBERTa (`token_type_ids` of Python's transformers).
    public var typeIDs: [Int] = []
    /// The index of the word that each token is a part of, and `nil` at special tokens. Empty where no words were
    /// given.
    package var wordIndices: [Int?] = []
    /// The Unicode scalars of its text (or its word) that each token stands for, as `offsets` of Python's `tokenizers` says;
    /// 0..<0 at special tokens. Empty unless asked for.
    public var offsets: [Range<Int>] = []
    /// The same in bytes of UTF-8, to cut a `String` with.
    package var byteOffsets: [Range<Int>] = []
    /// Whether the limit took tokens away.
    public var isTruncated = false
}

/// Which text loses tokens, from its end, where two texts together are too long.
public enum Truncation: Sendable {
    /// The longer one until both are equally long, then both.
    case longestFirst
    case onlyFirst
    case onlySecond

    /// The numbers of tokens to keep of texts with `counts` tokens, which are to have `room` together.
    func kept(of counts: [Int], in room: Int) -> [Int] {
        // Without any room both are cut, as in the reference.
        guard room > 0 else { return counts.map { _ in 0 } }
        let excess = counts.reduce(0, +) - room
        guard excess > 0 else { return counts }
        guard counts.count == 2 else { return [room] }
        switch self {
        case .onlyFirst: return [max(counts[0] - excess, 0), counts[1]]
        case .onlySecond: return [counts[0], max(counts[1] - excess, 0)]
        case .longestFirst:
            // As in the reference: of an odd number the text that was longer before has one more.
            let short = min(counts[0], counts[1])
            let isFirstShort = counts[0] <= counts[1]
            let (less, more) = 2 * short <= room ? (short, room - short) : (room / 2, room - room / 2)
            return isFirstShort ? [less, more] : [more, less]
        }
    }
}

extension Tokenizer {
    /// The tokens of one text, or of two that belong together such as a premise and a hypothesis.
    /// - Parameters:
    ///   - text: the text, or the first of two.
    ///   - pair: the second text.
    ///   - maxTokens: the largest number of tokens, special ones included. Special tokens are always there, and a text
    ///     doesn't lose more tokens than it has, so a limit below that is passed over.
    ///   - truncation: which of two texts gets shorter.
    ///   - addSpecialTokens: whether to add what the model expects around a text, such as `[CLS]` and `[SEP]`.
    ///   - withOffsets: whether to tell where each token lies in its text, which takes several times as long.
    public func encode(
        text: String, pair: String?, maxTokens: Int? = nil, truncation: Truncation = .longestFirst,
        addSpecialTokens: Bool = true, withOffsets: Bool = false
    ) -> Encoding {
        let parts = ([text] + (pair.map { [$0] } ?? [])).map { withOffsets ? placed($0) : Part(ids: ids(of: $0)) }
        return assemble(parts, maxTokens, truncation, addSpecialTokens)
    }

    /// The tokens of a text that is cut into words already, and which word each token is a part of.
    ///
    /// Every word is encoded on its own, as Python's transformers does with `is_split_into_words=True`.
    /// ``Encoding/wordIndices`` are what it calls `word_ids()`.
    /// - Parameters:
    ///   - words: the words, in order.
    ///   - maxTokens: the largest number of tokens, special ones included.
    ///   - addSpecialTokens: whether to add what the model expects around a text.
    ///   - withOffsets: whether to tell where each token lies in its word.
    public func encode(
        words: [String], maxTokens: Int? = nil, addSpecialTokens: Bool = true, withOffsets: Bool = false
    ) -> Encoding {
        var part = Part(ids: [], places: withOffsets ? [] : nil, words: [])
        for (index, word) in words.enumerated() {
            let own = withOffsets ? placed(word, isFirst: part.ids.isEmpty) : Part(ids: ids(of: word))
            part.ids += own.ids
            part.places?.append(contentsOf: own.places ?? [])
            part.words? += repeatElement(index, count: own.ids.count)
        }
        return assemble([part], maxTokens, .longestFirst, addSpecialTokens)
    }

    /// The tokens of a text before special ones are put around them.
    struct Part {
        var ids: [Int]
        /// Where each lies, in scalars and in bytes; `nil` unless asked for.
        var places: [(scalars: Range<Int>, bytes: Range<Int>)]?
        /// The word of each, where there are words.
        var words: [Int]?
    }

    /// Cuts the parts to the limit and puts them together with special tokens.
    private func assemble(
        _ parts: [Part], _ maxTokens: Int?, _ truncation: Truncation, _ addSpecialTokens: Bool
    ) -> Encoding {
        let processor = postProcessor ?? .plain
        let hasPlaces = parts.contains { $0.places != nil }
        var encoding = Encoding()
        var kept = parts.map(\.ids.count)
        if let maxTokens {
            let room = maxTokens - (addSpecialTokens ? processor.addedTokens(texts: parts.count) : 0)
            let counts = truncation.kept(of: kept, in: room)
            encoding.isTruncated = counts != kept
            kept = counts
        }
        func append(_ ids: some Collection<Int>, type: Int) {
            encoding.ids.append(contentsOf: ids)
            encoding.typeIDs.append(contentsOf: repeatElement(type, count: ids.count))
        }
        for piece in processor.pieces(texts: parts.count) {
            switch piece {
            case .text(let index, let type):
                let part = parts[index]
                append(part.ids.prefix(kept[index]), type: type)
                for word in (part.words ?? []).prefix(kept[index]) { encoding.wordIndices.append(word) }
                for place in (part.places ?? []).prefix(kept[index]) {
                    encoding.offsets.append(place.scalars)
                    encoding.byteOffsets.append(place.bytes)
                }
            case .special(let ids, let type):
                guard addSpecialTokens else { continue }
                append(ids, type: type)
                if parts[0].words != nil {
                    encoding.wordIndices.append(contentsOf: repeatElement(nil, count: ids.count))
                }
                if hasPlaces {
                    encoding.offsets += repeatElement(0..<0, count: ids.count)
                    encoding.byteOffsets += repeatElement(0..<0, count: ids.count)
                }
            }
        }
        return encoding
    }
}
