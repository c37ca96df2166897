/// A double-array trie, for keys that are all known at creation: faster than ``ByteTrie``, with one memory access
/// per step, and frequently used nodes close together (Aoe 1989, https://doi.org/10.1109/32.31365).
///
/// The child of a node for a byte is at the node's base ^ byte, if that slot stores the byte: no two nodes share a
/// base.
struct DoubleArray: Sendable {
    /// For each slot: the byte that leads to it, its base (24 bits), and the index of the key that ends there, + 1.
    private var units: [UInt64]
    private var root: UInt64 = 0

    /// Not a byte of UTF-8, so that no step leads to a free slot.
    private static let free: UInt64 = 0xFF
    /// Nodes without children have base 0, where there are no slots.
    private static let blockSize = 256
    /// Only the last blocks are searched for free slots: earlier ones are almost full, and a search there is slow.
    private static let openBlocks = 16
    private static let largestSize = 1 << 24

    /// - Parameter keys: UTF-8, not empty, distinct, with indices from 0.
    /// - Returns: `nil` if there are too many.
    init?(_ keys: [(key: ArraySlice<UInt8>, number: Int32)]) {
        units = Array(repeating: DoubleArray.free, count: DoubleArray.blockSize)
        let keys = keys.sorted { $0.key.lexicographicallyPrecedes($1.key) }
        var bases: Set<Int> = [0]
        guard let base = place(keys[...], depth: 0, &bases) else { return nil }
        root = UInt64(base) << 8
    }

    /// Allocates the descendants of a node with these keys.
    /// - Returns: the node's base.
    private mutating func place(
        _ keys: ArraySlice<(key: ArraySlice<UInt8>, number: Int32)>, depth: Int, _ bases: inout Set<Int>
    ) -> Int? {
        func byte(_ index: Int) -> UInt8 { keys[index].key[keys[index].key.startIndex + depth] }
        // The node's own key comes first.
        var start = keys.startIndex
        if let first = keys.first, first.key.count == depth { start += 1 }
        var children: [(byte: UInt8, keys: Range<Int>)] = []
        while start < keys.endIndex {
            let label = byte(start)
            let end = keys[start...].indices.first { byte($0) != label } ?? keys.endIndex
            children.append((label, start..<end))
            start = end
        }
        guard let first = children.first else { return 0 }
        var base = max(DoubleArray.blockSize, units.count - DoubleArray.openBlocks * DoubleArray.blockSize)
        while base < units.count {
            if units[base ^ Int(first.byte)] == DoubleArray.free, !bases.contains(base),
                children.allSatisfy({ units[base ^ Int($0.byte)] == DoubleArray.free })
            {
                break
            }
            base += 1
        }
        if base == units.count {
            guard units.count < DoubleArray.largestSize else { return nil }
            units += repeatElement(DoubleArray.free, count: DoubleArray.blockSize)
        }
        bases.insert(base)
        // All children are allocated before any of their descendants.
        for child in children { units[base ^ Int(child.byte)] = UInt64(child.byte) }
        for child in children {
            guard let below = place(keys[child.keys], depth: depth + 1, &bases) else { return nil }
            let own = keys[child.keys.lowerBound]
            let number = own.key.count == depth + 1 ? own.number : ByteTrie.none
            units[base ^ Int(child.byte)] |= UInt64(below) << 8 | UInt64(number + 1) << 32
        }
        return base
    }

    /// The index of the longest key that begins at a position of UTF-8, or ``ByteTrie/none``, and its end.
    @inline(__always)
    func longest(_ text: UnsafeBufferPointer<UInt8>, from start: Int) -> (number: Int32, end: Int) {
        units.withUnsafeBufferPointer { units in
            var unit = root
            var found: UInt64 = 0
            var index = start
            var end = start
            while index < text.count {
                unit = units[Int(truncatingIfNeeded: unit >> 8 & 0xFF_FFFF) ^ Int(text[index])]
                guard UInt8(truncatingIfNeeded: unit) == text[index] else { break }
                index += 1
                if unit >> 32 != 0 { (found, end) = (unit >> 32, index) }
            }
            return (Int32(truncatingIfNeeded: found) - 1, end)
        }
    }
}
