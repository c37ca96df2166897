/// Byte strings, indexed in insertion order: a hash table for exact lookups.
///
/// Unlike ``ByteTrie`` it can't find prefixes of a text, but insertions and lookups cost one probe per key instead
/// of one per byte, which matters for a file with 150,000 pieces and as many merges.
struct ByteTable: Sendable {
    /// All keys, contiguous.
    private var pool: [UInt8] = []
    /// End of each key in `pool`; it begins at the end of the previous one.
    private var ends: [Int] = []
    /// The upper half of a key's hash, and its index + 1; 0 is an empty slot.
    private var slots: [UInt64]

    init(expectedKeys: Int = 16) {
        var size = 32
        while size < expectedKeys * 2 { size *= 2 }
        slots = [UInt64](repeating: 0, count: size)
        ends.reserveCapacity(expectedKeys)
    }

    var count: Int { ends.count }

    /// The bytes of the key with this index.
    func key(_ number: Int) -> ArraySlice<UInt8> { pool[(number == 0 ? 0 : ends[number - 1])..<ends[number]] }

    /// The index of exactly this key, or `nil`.
    func number(of key: UnsafeBufferPointer<UInt8>) -> Int? {
        let hash = ByteTable.hash(key)
        return pool.withUnsafeBufferPointer { pool in
            var index = Int(truncatingIfNeeded: hash) & (slots.count - 1)
            while true {
                let slot = slots[index]
                if slot == 0 { return nil }
                if slot >> 32 == hash >> 32 {
                    let number = Int(slot & 0xFFFF_FFFF) - 1
                    if matches(number, key, pool) { return number }
                }
                index = (index + 1) & (slots.count - 1)
            }
        }
    }

    func number(of key: some Sequence<UInt8>) -> Int? {
        Array(key).withUnsafeBufferPointer { number(of: $0) }
    }

    /// Adds a key if it is new.
    /// - Returns: its index.
    @discardableResult
    mutating func insert(_ key: UnsafeBufferPointer<UInt8>) -> Int {
        if let known = number(of: key) { return known }
        let number = ends.count
        pool.append(contentsOf: key)
        ends.append(pool.count)
        if ends.count * 2 > slots.count { grow() }
        store(ByteTable.hash(key), number)
        return number
    }

    @inline(__always)
    private func matches(
        _ number: Int, _ key: UnsafeBufferPointer<UInt8>, _ pool: UnsafeBufferPointer<UInt8>
    ) -> Bool {
        let start = number == 0 ? 0 : ends[number - 1]
        guard ends[number] - start == key.count else { return false }
        var offset = 0
        while offset < key.count {
            if pool[start + offset] != key[offset] { return false }
            offset += 1
        }
        return true
    }

    /// FNV-1a, with a final step that mixes the upper bits into the lower ones.
    private static func hash(_ key: UnsafeBufferPointer<UInt8>) -> UInt64 {
        var value: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in key { value = (value ^ UInt64(byte)) &* 0x100_0000_01B3 }
        value = (value ^ value >> 32) &* 0x9E37_79B9_7F4A_7C15
        return value ^ value >> 29
    }

    private mutating func store(_ hash: UInt64, _ number: Int) {
        var index = Int(truncatingIfNeeded: hash) & (slots.count - 1)
        while slots[index] != 0 { index = (index + 1) & (slots.count - 1) }
        slots[index] = (hash & 0xFFFF_FFFF_0000_0000) | UInt64(number + 1)
    }

    private mutating func grow() {
        slots = [UInt64](repeating: 0, count: slots.count * 2)
        for number in 0..<ends.count - 1 {
            store(key(number).withUnsafeBufferPointer(ByteTable.hash), number)
        }
    }
}
