/// ``MetaspacePreTokenizer`` and ``Unigram`` fused, as in T5: cached words are looked up by their bytes in the text,
/// and only new ones are rewritten with "▁".
struct MetaspaceUnigram: JointStages {
    private let model: Unigram
    /// The pre-tokenizers before.
    private let stages: [any PreTokenizer]
    private let scheme: Metaspace.PrependScheme
    /// The character that replaces a space and begins words.
    private let mark: [UInt8]
    private let states = Pool { State() }

    /// Per-thread working memory.
    private final class State {
        let lattice = Unigram.Lattice()
        /// Words without their leading mark.
        let words = WordCache()
        /// Text beginnings without a mark.
        private(set) lazy var beginnings = WordCache()
        var marked: [UInt8] = []
    }

    /// `nil` for other stages.
    init?(_ preTokenizer: (any PreTokenizer)?, _ model: any TokenizerModel) {
        guard let model = model as? Unigram, let preTokenizer else { return nil }
        var stages = (preTokenizer as? PreTokenizerSequence)?.flattened ?? [preTokenizer]
        guard let last = stages.popLast() as? MetaspacePreTokenizer, last.metaspace.split else { return nil }
        (self.model, self.stages) = (model, stages)
        (scheme, mark) = (last.metaspace.prependScheme, last.replacement)
    }

    func encode(_ bytes: [UInt8], startsText: Bool, into ids: inout [Int]) {
        guard !bytes.isEmpty else { return }
        states.with { state in
            guard !stages.isEmpty else {
                let isFirst = scheme == .always || scheme == .first && startsText
                return append(bytes, 0..<bytes.count, isMarked: isFirst, state, &ids)
            }
            var text = PreTokenizedText(bytes, startsText: startsText)
            for stage in stages { stage.split(&text) }
            for (number, piece) in text.pieces.enumerated() {
                let isFirst = scheme == .always || scheme == .first && number == 0 && text.startsText
                append(text.bytes, piece, isMarked: isFirst, state, &ids)
            }
        }
    }

    /// - Parameter isMarked: whether a piece without a leading mark gets one.
    private func append(
        _ bytes: [UInt8], _ piece: Range<Int>, isMarked: Bool, _ state: State, _ ids: inout [Int]
    ) {
        bytes.withUnsafeBufferPointer { bytes in
            mark.withUnsafeBufferPointer { mark in
                guard let base = bytes.baseAddress else { return }
                var isMarked = isMarked
                var start = piece.lowerBound
                while start < piece.upperBound {
                    let length = MetaspaceUnigram.markLength(base + start, piece.upperBound - start, mark)
                    if length > 0 {
                        start += length
                        isMarked = true
                    }
                    var end = start
                    while end < piece.upperBound,
                        MetaspaceUnigram.markLength(base + end, piece.upperBound - end, mark) == 0
                    {
                        end += 1
                    }
                    append(
                        base + start, count: end - start, readable: bytes.count - start, isMarked: isMarked, state,
                        &ids)
                    (start, isMarked) = (end, false)
                }
            }
        }
    }

    /// Length in bytes of the space or mark at the beginning of the text; 0 without one.
    @inline(__always)
    private static func markLength(
        _ text: UnsafePointer<UInt8>, _ count: Int, _ mark: UnsafeBufferPointer<UInt8>
    ) -> Int {
        if text[0] == 0x20 { return 1 }
        guard text[0] == mark[0], count >= mark.count else { return 0 }
        for index in 1..<max(mark.count, 1) where text[index] != mark[index] { return 0 }
        return mark.count
    }

    @inline(__always)
    private func append(
        _ word: UnsafePointer<UInt8>, count: Int, readable: Int, isMarked: Bool, _ state: State, _ ids: inout [Int]
    ) {
        guard isMarked else { return appendBeginning(word, count: count, readable: readable, state, &ids) }
        if state.words.find(word, count: count, readable: readable, into: &ids) { return }
        appendNew(word, count: count, readable: readable, state, &ids)
    }

    @inline(never)
    private func appendNew(
        _ word: UnsafePointer<UInt8>, count: Int, readable: Int, _ state: State, _ ids: inout [Int]
    ) {
        let start = ids.count
        state.marked.removeAll(keepingCapacity: true)
        state.marked += mark
        state.marked += UnsafeBufferPointer(start: word, count: count)
        state.marked.withUnsafeBufferPointer { model.append($0, state.lattice, into: &ids) }
        state.words.store(word, count: count, readable: readable, ids[start...])
    }

    @inline(never)
    private func appendBeginning(
        _ word: UnsafePointer<UInt8>, count: Int, readable: Int, _ state: State, _ ids: inout [Int]
    ) {
        if state.beginnings.find(word, count: count, readable: readable, into: &ids) { return }
        let start = ids.count
        model.append(UnsafeBufferPointer(start: word, count: count), state.lattice, into: &ids)
        state.beginnings.store(word, count: count, readable: readable, ids[start...])
    }
}
