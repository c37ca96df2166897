/// The symbols of a word while byte-pair encoding merges them. Kept for all words, so that they cost no allocation.
///
/// It belongs to one thread at a time; see ``Pool``.
final class MergedWord {
    /// Ids; only the first ``count`` count.
    private(set) var symbols: UnsafeMutablePointer<Int32>
    private(set) var count = 0
    private var capacity = 64
    /// What each symbol becomes with the one behind it, while the word is short.
    private let merges: UnsafeMutablePointer<MergeTable.Merge>
    /// Up to here the next merge is looked for among all of them, which beats a queue.
    private static let shortest = 48

    private var previous: [Int32] = []
    private var next: [Int32] = []
    /// A binary heap of merges that may be possible: the rank, then the position of the left symbol, so that of
    /// equal merges the leftmost goes first.
    private var queue: [UInt64] = []

    init() {
        symbols = .allocate(capacity: capacity)
        merges = .allocate(capacity: MergedWord.shortest)
    }

    deinit {
        symbols.deallocate()
        merges.deallocate()
    }

    /// Makes the word empty, with room for as many symbols.
    @inline(__always)
    func clear(room: Int) {
        count = 0
        if room > capacity { grow(room) }
    }

    @inline(never)
    private func grow(_ room: Int) {
        symbols.deallocate()
        capacity = room + room / 2
        symbols = .allocate(capacity: capacity)
    }

    /// Appends a symbol, for which there is room.
    @inline(__always)
    func append(_ symbol: Int32) {
        (symbols + count).initialize(to: symbol)
        count += 1
    }

    func merge(by table: MergeTable) {
        if count > MergedWord.shortest { mergeLong(by: table) } else if count > 1 { mergeShort(by: table) }
    }

    private func mergeShort(by table: MergeTable) {
        var pairs = count - 1
        for index in 0..<pairs { (merges + index).initialize(to: table.merge(symbols[index], symbols[index + 1])) }
        while pairs > 0 {
            var best = 0
            for index in 1..<max(pairs, 1) where merges[index].rank < merges[best].rank { best = index }
            guard merges[best].rank != .max else { break }
            symbols[best] = merges[best].result
            for index in best + 1..<pairs {
                symbols[index] = symbols[index + 1]
                merges[index - 1] = merges[index]
            }
            pairs -= 1
            if best < pairs { merges[best] = table.merge(symbols[best], symbols[best + 1]) }
            if best > 0 { merges[best - 1] = table.merge(symbols[best - 1], symbols[best]) }
        }
        count = pairs + 1
    }

    /// Takes n log n steps for n symbols: texts without a pre-tokenizer are one word.
    private func mergeLong(by table: MergeTable) {
        previous.removeAll(keepingCapacity: true)
        next.removeAll(keepingCapacity: true)
        queue.removeAll(keepingCapacity: true)
        for position in 0..<count {
            previous.append(Int32(position - 1))
            next.append(position + 1 < count ? Int32(position + 1) : -1)
        }
        for position in 0..<count - 1 { offer(position, table) }
        while let top = pop() {
            let position = Int(top & 0xFFFF_FFFF)
            guard symbols[position] >= 0, next[position] >= 0 else { continue }
            let right = Int(next[position])
            // Whatever has changed since has another rank or none.
            let merge = table.merge(symbols[position], symbols[right])
            guard merge.rank == Int32(top >> 32) else { continue }
            symbols[position] = merge.result
            symbols[right] = -1
            next[position] = next[right]
            if next[right] >= 0 { previous[Int(next[right])] = Int32(position) }
            if previous[position] >= 0 { offer(Int(previous[position]), table) }
            if next[position] >= 0 { offer(position, table) }
        }
        var kept = 0
        for position in 0..<count where symbols[position] >= 0 {
            symbols[kept] = symbols[position]
            kept += 1
        }
        count = kept
    }

    /// Queues the merge of a symbol with the one behind it, if there is one.
    @inline(__always)
    private func offer(_ position: Int, _ table: MergeTable) {
        let merge = table.merge(symbols[position], symbols[Int(next[position])])
        guard merge.rank != .max else { return }
        let entry = UInt64(merge.rank) << 32 | UInt64(position)
        queue.append(entry)
        var child = queue.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard queue[parent] > entry else { break }
            queue[child] = queue[parent]
            child = parent
        }
        queue[child] = entry
    }

    private func pop() -> UInt64? {
        guard let top = queue.first, let last = queue.popLast() else { return nil }
        guard !queue.isEmpty else { return top }
        var parent = 0
        while true {
            var child = 2 * parent + 1
            guard child < queue.count else { break }
            if child + 1 < queue.count, queue[child + 1] < queue[child] { child += 1 }
            guard queue[child] < last else { break }
            queue[parent] = queue[child]
            parent = child
        }
        queue[parent] = last
        return top
    }
}
