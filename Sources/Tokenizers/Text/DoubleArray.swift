/// What ``ByteTrie`` answers, of keys that are all there from the beginning: a step costs one look into memory, and what
/// is often asked for lies together (Aoe 1989, https://doi.org/10.1109/32.31365).
///
/// The child of a node by a byte lies at the node's base ^ byte, if the byte is noted there: no two nodes share a base.
struct DoubleArray: Sendable {
    /// Of each place: the byte that leads to it, its base (24 bits), and the number of the key that ends there, + 1.
    private var units: [UInt64]
    private var root: UInt64 = 0

    /// No byte of UTF-8, so that no step leads to a free place.
    private static let free: UInt64 = 0xFF
    /// Nodes without children have base 0, where nothing lies.
    private static let blockSize = 256
    /// Blocks before the last ones are almost full, and looking for room there takes long.
    private static let openBlocks = 16
    private static let largestSize = 1 << 24

    /// - Parameter keys: UTF-8, not empty, each once, with numbers from 0.
    /// - Returns: `nil` where they are too many.
    init?(_ keys: [(key: ArraySlice<UInt8>, number: Int32)]) {
        units = Array(repeating: DoubleArray.free, count: DoubleArray.blockSize)
        let keys = keys.sorted { $0.key.lexicographicallyPrecedes($1.key) }
        var bases: Set<Int> = [0]
        guard let base = place(keys[...], depth: 0, &bases) else { return nil }
        root = UInt64(base) << 8
    }

    /// Places the nodes behind one, whose keys these are.
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
        // All take their places before the nodes behind them look for theirs.
        for child in children { units[base ^ Int(child.byte)] = UInt64(child.byte) }
        for child in children {
            guard let below = place(keys[child.keys], depth: depth + 1, &bases) else { return nil }
            let own = keys[child.keys.lowerBound]
            let number = own.key.count == depth + 1 ? own.number : ByteTrie.none
            units[base ^ Int(child.byte)] |= UInt64(below) << 8 | UInt64(number + 1) << 32
        }
        return base
    }

    /// The number of the longest key that begins at a place of UTF-8, or ``ByteTrie/none``, and where it ends.
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
