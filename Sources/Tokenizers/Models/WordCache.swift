/// Caches the ids of words, since words repeat.
///
/// Most words have at most 15 bytes and four ids. They are stored in a two-way set-associative table, one set per
/// cache line: a new word takes the first entry of its set and moves the word there to the second. Other words are
/// in a hash table that is emptied when it is full.
///
/// Not thread-safe; see ``Pool``.
final class WordCache {
    /// A word of at most 15 bytes: the bytes, zeros, and the number of bytes as the last.
    struct Key {
        var low: UInt64
        var high: UInt64

        /// - Parameters:
        ///   - count: from 0 to 15.
        ///   - readable: how many bytes may be read from `word`.
        @inline(__always)
        init(_ word: UnsafePointer<UInt8>, count: Int, readable: Int) {
            let raw = UnsafeRawPointer(word)
            if readable >= 16 {
                low = UInt64(littleEndian: raw.loadUnaligned(as: UInt64.self))
                high = UInt64(littleEndian: raw.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
                if count < 8 {
                    low &= (1 << UInt64(8 * count)) &- 1
                    high = 0
                } else {
                    high &= (1 << UInt64(8 * (count - 8))) &- 1
                }
            } else {
                (low, high) = (0, 0)
                for index in 0..<count {
                    if index < 8 {
                        low |= UInt64(word[index]) << UInt64(8 * index)
                    } else {
                        high |= UInt64(word[index]) << UInt64(8 * (index - 8))
                    }
                }
            }
            high |= UInt64(count) << 56
        }

        /// Multiplication propagates every bit upwards, so the highest bits depend on all.
        @inline(__always)
        var bucket: Int {
            let mixed = (low ^ high &* 0x9E37_79B9_7F4A_7C15) &* 0xD6E8_FEB8_6659_FD93
            let spread = (mixed ^ mixed >> 32) &* 0x9E37_79B9_7F4A_7C15
            return Int(truncatingIfNeeded: spread >> (64 - bucketBits))
        }
    }

    private struct Entry {
        // No word has 255 bytes.
        var low: UInt64 = .max
        var high: UInt64 = .max
        /// Padded with -1.
        var ids: (Int32, Int32, Int32, Int32) = (-1, -1, -1, -1)
    }

    /// Longer words rarely repeat.
    static let longestWord = 64
    private static let longestKey = 15
    private static let bucketBits: UInt64 = 15
    private static let largestTable = 1 << 15
    private let entries: UnsafeMutablePointer<Entry>

    private var longWords = ByteTable()
    private var longIDs: [Int32] = []
    private var longEnds: [Int] = []

    init() {
        let count = 2 << Int(WordCache.bucketBits)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: count * MemoryLayout<Entry>.stride, alignment: 64)
        entries = memory.bindMemory(to: Entry.self, capacity: count)
        entries.initialize(repeating: Entry(), count: count)
    }

    deinit { UnsafeMutableRawPointer(entries).deallocate() }

    /// Appends the ids of `word` if it is cached.
    @inline(__always)
    func find(_ word: UnsafePointer<UInt8>, count: Int, readable: Int, into result: inout [Int]) -> Bool {
        guard count <= WordCache.longestKey else { return findLong(word, count, into: &result) }
        let key = Key(word, count: count, readable: readable)
        var entry = entries + 2 * key.bucket
        if entry.pointee.low != key.low || entry.pointee.high != key.high {
            entry += 1
            guard entry.pointee.low == key.low, entry.pointee.high == key.high else {
                return findLong(word, count, into: &result)
            }
        }
        let ids = entry.pointee.ids
        if ids.0 < 0 { return true }
        result.append(Int(ids.0))
        if ids.1 < 0 { return true }
        result.append(Int(ids.1))
        if ids.2 < 0 { return true }
        result.append(Int(ids.2))
        if ids.3 >= 0 { result.append(Int(ids.3)) }
        return true
    }

    /// Caches the ids of a new word.
    func store(_ word: UnsafePointer<UInt8>, count: Int, readable: Int, _ ids: ArraySlice<Int>) {
        guard count <= WordCache.longestKey, ids.count <= 4 else { return storeLong(word, count, ids) }
        let key = Key(word, count: count, readable: readable)
        var entry = Entry(low: key.low, high: key.high)
        var id = ids.startIndex
        func next() -> Int32 {
            guard id < ids.endIndex else { return -1 }
            defer { id += 1 }
            return Int32(truncatingIfNeeded: ids[id])
        }
        entry.ids = (next(), next(), next(), next())
        let bucket = entries + 2 * key.bucket
        bucket[1] = bucket[0]
        bucket[0] = entry
    }

    @inline(never)
    private func findLong(_ word: UnsafePointer<UInt8>, _ count: Int, into result: inout [Int]) -> Bool {
        guard count <= WordCache.longestWord,
            let number = longWords.number(of: UnsafeBufferPointer(start: word, count: count))
        else { return false }
        for id in longIDs[(number == 0 ? 0 : longEnds[number - 1])..<longEnds[number]] { result.append(Int(id)) }
        return true
    }

    private func storeLong(_ word: UnsafePointer<UInt8>, _ count: Int, _ ids: ArraySlice<Int>) {
        guard count <= WordCache.longestWord else { return }
        if longWords.count >= WordCache.largestTable {
            longWords = ByteTable()
            longIDs.removeAll()
            longEnds.removeAll()
        }
        longWords.insert(UnsafeBufferPointer(start: word, count: count))
        for id in ids { longIDs.append(Int32(truncatingIfNeeded: id)) }
        longEnds.append(longIDs.count)
    }
}
