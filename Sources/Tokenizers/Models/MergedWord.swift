/// The symbols of a word during byte-pair encoding, reused for all words so that none costs an allocation.
///
/// Not thread-safe; see ``Pool``.
final class MergedWord {
    /// Ids; only the first ``count`` are valid.
    private(set) var symbols: UnsafeMutablePointer<Int32>
    private(set) var count = 0
    private var capacity = 64
    /// What each symbol merges into with its successor, while the word is short.
    private let merges: UnsafeMutablePointer<MergeTable.Merge>
    /// Up to this length the next merge is found by a linear scan, which is faster than a priority queue.
    private static let shortest = 48

    /// Previous and next symbol of each symbol of a long word, or -1.
    private var links: UnsafeMutablePointer<(previous: Int32, next: Int32)>
    private var queue: UnsafeMutablePointer<UInt64>

    init() {
        symbols = .allocate(capacity: capacity)
        links = .allocate(capacity: capacity)
        queue = .allocate(capacity: 3 * capacity)
        merges = .allocate(capacity: MergedWord.shortest)
    }

    deinit {
        symbols.deallocate()
        links.deallocate()
        queue.deallocate()
        merges.deallocate()
    }

    /// Clears the word and reserves room for that many symbols.
    @inline(__always)
    func clear(room: Int) {
        count = 0
        if room > capacity { grow(room) }
    }

    @inline(never)
    private func grow(_ room: Int) {
        symbols.deallocate()
        links.deallocate()
        queue.deallocate()
        capacity = room + room / 2
        symbols = .allocate(capacity: capacity)
        links = .allocate(capacity: capacity)
        queue = .allocate(capacity: 3 * capacity)
    }

    /// Appends a symbol; room must be reserved.
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

    /// Merges, and reports the first symbol of each resulting piece.
    func mergePlaced(by table: MergeTable) -> [Int] {
        guard count > 1 else { return Array(0..<count) }
        var starts: [Int] = []
        mergeLong(by: table) { starts.append($0) }
        return starts
    }

    /// Takes O(n log n) time for n symbols: a text without a pre-tokenizer is one word.
    private func mergeLong(by table: MergeTable, keeps: (Int) -> Void = { _ in }) {
        let (symbols, links, count) = (symbols, links, count)
        var queue = Queue(entries: queue)
        for position in 0..<count {
            (links + position).initialize(
                to: (Int32(position - 1), position + 1 < count ? Int32(position + 1) : -1))
        }
        /// Queues the merge of a symbol with its successor, if there is one.
        func offer(_ position: Int) {
            let merge = table.merge(symbols[position], symbols[Int(links[position].next)])
            if merge.rank != .max { queue.push(UInt64(merge.rank) << 32 | UInt64(position)) }
        }
        for position in 0..<count - 1 { offer(position) }
        while let top = queue.pop() {
            let position = Int(top & 0xFFFF_FFFF)
            guard symbols[position] >= 0, links[position].next >= 0 else { continue }
            let right = Int(links[position].next)
            // Outdated entries have another rank now, or none.
            let merge = table.merge(symbols[position], symbols[right])
            guard merge.rank == Int32(top >> 32) else { continue }
            symbols[position] = merge.result
            symbols[right] = -1
            let (previous, next) = (links[position].previous, links[right].next)
            links[position].next = next
            if next >= 0 { links[Int(next)].previous = Int32(position) }
            if previous >= 0 { offer(Int(previous)) }
            if next >= 0 { offer(position) }
        }
        var kept = 0
        for position in 0..<count where symbols[position] >= 0 {
            symbols[kept] = symbols[position]
            kept += 1
            keeps(position)
        }
        self.count = kept
    }

    /// A binary heap of candidate merges ordered by rank, then by the position of the left symbol, so that of equal
    /// merges the leftmost comes first. A word of n symbols queues less than 3 n of them in total.
    private struct Queue {
        let entries: UnsafeMutablePointer<UInt64>
        var count = 0

        init(entries: UnsafeMutablePointer<UInt64>) { self.entries = entries }

        mutating func push(_ entry: UInt64) {
            var child = count
            count += 1
            while child > 0 {
                let parent = (child - 1) / 2
                guard entries[parent] > entry else { break }
                (entries + child).initialize(to: entries[parent])
                child = parent
            }
            (entries + child).initialize(to: entry)
        }

        mutating func pop() -> UInt64? {
            guard count > 0 else { return nil }
            let top = entries[0]
            count -= 1
            let last = entries[count]
            var parent = 0
            while true {
                var child = 2 * parent + 1
                guard child < count else { break }
                if child + 1 < count, entries[child + 1] < entries[child] { child += 1 }
                guard entries[child] < last else { break }
                entries[parent] = entries[child]
                parent = child
            }
            entries[parent] = last
            return top
        }
    }
}
