/// Byte-level byte-pair encoding from words of raw bytes to ids, as in GPT-2, RoBERTa, Llama 3 and Qwen.
///
/// Equivalent to ``ByteLevelPreTokenizer`` followed by ``BPE``, fused.
struct ByteLevelBPE: Sendable {
    /// The initial symbol of each byte.
    let symbols: [Int32]
    let merges: MergeTable
    /// The vocabulary, if the model uses a word in it as it is.
    let wholeWords: Vocabulary?

    /// Per-thread working memory.
    final class State {
        fileprivate let cache = WordCache()
        fileprivate let word = MergedWord()
        let kinds = WordScanner.makeKinds()
    }

    /// Appends the ids of a word.
    /// - Parameter readable: how many bytes may be read from `bytes`.
    @inline(__always)
    func append(_ bytes: UnsafePointer<UInt8>, count: Int, readable: Int, _ state: State, _ ids: inout [Int]) {
        if state.cache.find(bytes, count: count, readable: readable, into: &ids) { return }
        appendNew(bytes, count: count, readable: readable, state, &ids)
    }

    @inline(never)
    private func appendNew(
        _ bytes: UnsafePointer<UInt8>, count: Int, readable: Int, _ state: State, _ ids: inout [Int]
    ) {
        let start = ids.count
        if let id = wholeWord(UnsafeBufferPointer(start: bytes, count: count)) {
            ids.append(id)
        } else {
            let word = state.word
            word.clear(room: count)
            symbols.withUnsafeBufferPointer { symbols in
                for index in 0..<count { word.append(symbols[Int(bytes[index])]) }
            }
            word.merge(by: merges)
            for index in 0..<word.count { ids.append(Int(word.symbols[index])) }
        }
        state.cache.store(bytes, count: count, readable: readable, ids[start...])
    }

    private func wholeWord(_ bytes: UnsafeBufferPointer<UInt8>) -> Int? {
        guard let wholeWords else { return nil }
        var encoded: [UInt8] = []
        encoded.reserveCapacity(2 * bytes.count)
        for byte in bytes { encoded += ByteCharacters.encoded[Int(byte)] }
        return encoded.withUnsafeBufferPointer { wholeWords.id(for: $0) }.map { Int($0) }
    }
}

/// The pre-tokenizer and the model of a byte-level tokenizer, fused.
struct ByteLevelEncoder: JointStages {
    private let model: ByteLevelBPE
    /// The pre-tokenizers before the byte level.
    private let stages: [any PreTokenizer]
    /// Splits their pieces into words; if `nil`, the pieces are the words.
    private let scanner: WordScanner?
    private let addsPrefixSpace: Bool
    private let states = Pool { ByteLevelBPE.State() }

    /// `nil` for other stages.
    init?(_ preTokenizer: (any PreTokenizer)?, _ model: any TokenizerModel) {
        guard let bpe = (model as? BPE)?.byteLevel() else { return nil }
        var stages = (preTokenizer as? PreTokenizerSequence)?.flattened ?? preTokenizer.map { [$0] } ?? []
        guard let byteLevel = stages.popLast() as? ByteLevelPreTokenizer,
            !stages.contains(where: { $0 is ByteLevelPreTokenizer || $0 is MetaspacePreTokenizer })
        else { return nil }
        var scanner = byteLevel.splits ? WordScanner.gpt2 : nil
        if scanner == nil, !byteLevel.addsPrefixSpace, let words = (stages.last as? Split)?.words {
            scanner = words
            stages.removeLast()
        }
        self.model = bpe
        self.stages = stages
        self.scanner = scanner
        addsPrefixSpace = byteLevel.addsPrefixSpace
    }

    func encode(_ bytes: [UInt8], startsText: Bool, into ids: inout [Int]) {
        guard !bytes.isEmpty else { return }
        states.with { state in
            guard !stages.isEmpty || addsPrefixSpace else {
                return bytes.withUnsafeBufferPointer { append($0, 0..<bytes.count, state, &ids) }
            }
            var text = PreTokenizedText(bytes, startsText: startsText)
            for stage in stages { stage.split(&text) }
            for piece in text.pieces {
                if addsPrefixSpace, text.bytes[piece.lowerBound] != 0x20 {
                    let prefixed = [0x20] + text.bytes[piece]
                    prefixed.withUnsafeBufferPointer { append($0, 0..<prefixed.count, state, &ids) }
                } else {
                    text.bytes.withUnsafeBufferPointer { append($0, piece, state, &ids) }
                }
            }
        }
    }

    @inline(__always)
    private func append(
        _ bytes: UnsafeBufferPointer<UInt8>, _ piece: Range<Int>, _ state: ByteLevelBPE.State, _ ids: inout [Int]
    ) {
        guard let base = bytes.baseAddress else { return }
        guard let scanner else {
            return model.append(
                base + piece.lowerBound, count: piece.count, readable: bytes.count - piece.lowerBound, state, &ids)
        }
        let text = WordScanner.Text(bytes: base, end: piece.upperBound, kinds: state.kinds)
        var start = piece.lowerBound
        while start < piece.upperBound {
            let end = scanner.end(of: start, in: text)
            model.append(base + start, count: end - start, readable: bytes.count - start, state, &ids)
            start = end
        }
    }
}
