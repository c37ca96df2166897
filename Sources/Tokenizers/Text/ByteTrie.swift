/// A set of byte strings with an index each; the interface of all lookups in this module.
///
/// Keys are bytes, not `String`s, because `String`s that are canonically equivalent are equal, while "é" and "e" +
/// U+0301 are different pieces of a vocabulary.
///
/// Transitions are in one open-addressing hash table. It is built in one pass without sorting, and most steps cost
/// one probe.
struct ByteTrie: Sendable {
    typealias Node = Int32

    static let root: Node = 0
    static let none: Int32 = -1

    /// `node << 40 | byte << 32 | child + 1`; 0 is an empty slot.
    private var slots: [UInt64]
    private var shift: UInt64
    private var transitions = 0
    /// The index of the key that ends at each node, or ``none``.
    private var values: [Int32] = [ByteTrie.none]

    init(expectedKeys: Int = 16) {
        var bits: UInt64 = 6
        // A vocabulary's trie has about three nodes per piece; half of the table stays free.
        while (1 << bits) < expectedKeys * 6 { bits += 1 }
        slots = [UInt64](repeating: 0, count: 1 << Int(bits))
        shift = 64 - bits
        values.reserveCapacity(expectedKeys * 3)
    }

    /// Maximum number of nodes: what fits beside a byte and a child in one slot.
    static let capacity = 1 << 24

    /// The node that `byte` leads to, or ``none``.
    @inline(__always)
    func child(of node: Node, _ byte: UInt8) -> Node {
        let key = UInt64(UInt32(bitPattern: node)) << 8 | UInt64(byte)
        var index = Int(truncatingIfNeeded: (key &* 0x9E37_79B9_7F4A_7C15) >> shift)
        while true {
            let slot = slots[index]
            if slot == 0 { return ByteTrie.none }
            if slot >> 32 == key { return Int32(truncatingIfNeeded: slot & 0xFFFF_FFFF) - 1 }
            index = (index + 1) & (slots.count - 1)
        }
    }

    /// The index of the key that ends at `node`, or ``none``.
    @inline(__always)
    func value(at node: Node) -> Int32 { values[Int(node)] }

    /// Adds `key`, or changes its index.
    /// - Returns: its previous index, or ``none``; `nil` if the trie is full.
    @discardableResult
    mutating func insert(_ key: some Sequence<UInt8>, value: Int32) -> Int32? {
        var node = ByteTrie.root
        for byte in key {
            let next = child(of: node, byte)
            if next != ByteTrie.none {
                node = next
                continue
            }
            guard values.count < ByteTrie.capacity else { return nil }
            let created = Int32(values.count)
            values.append(ByteTrie.none)
            if (transitions + 1) * 2 > slots.count { grow() }
            store(UInt64(UInt32(bitPattern: node)) << 40 | UInt64(byte) << 32 | UInt64(created + 1))
            transitions += 1
            node = created
        }
        let before = values[Int(node)]
        values[Int(node)] = value
        return before
    }

    /// The index of exactly this key, or `nil`.
    func lookUp(_ key: some Sequence<UInt8>) -> Int? {
        var node = ByteTrie.root
        for byte in key {
            node = child(of: node, byte)
            if node == ByteTrie.none { return nil }
        }
        let found = value(at: node)
        return found == ByteTrie.none ? nil : Int(found)
    }

    private mutating func store(_ slot: UInt64) {
        var index = Int(truncatingIfNeeded: ((slot >> 32) &* 0x9E37_79B9_7F4A_7C15) >> shift)
        while slots[index] != 0 { index = (index + 1) & (slots.count - 1) }
        slots[index] = slot
    }

    private mutating func grow() {
        let old = slots
        slots = [UInt64](repeating: 0, count: old.count * 2)
        shift -= 1
        for slot in old where slot != 0 { store(slot) }
    }
}
