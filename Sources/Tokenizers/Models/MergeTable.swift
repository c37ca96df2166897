import PEFTSupport

/// The merges of byte-pair encoding: an open-addressing table from two ids to the merge's rank and resulting id.
final class MergeTable: @unchecked Sendable {
    // Written in `init` only.
    private let entries: UnsafeMutablePointer<Entry>
    private let mask: Int
    private let shift: UInt64

    private struct Entry {
        var key: UInt64
        var merge: Merge
    }

    struct Merge {
        var rank: Int32
        /// The resulting id.
        var result: Int32

        static let none = Merge(rank: .max, result: -1)
    }

    /// Marks an empty slot: ids are much smaller.
    private static let empty = UInt64.max

    init(_ list: MergeList, _ vocabulary: Vocabulary, prefixLength: Int, file: String) throws {
        var bits = 5
        while 1 << bits < list.bounds.count * 2 { bits += 1 }
        entries = .allocate(capacity: 1 << bits)
        entries.initialize(repeating: Entry(key: MergeTable.empty, merge: .none), count: 1 << bits)
        mask = 1 << bits - 1
        shift = UInt64(64 - bits)
        /// The id of a piece that merge `rank` joins or produces.
        func id(_ piece: UnsafeBufferPointer<UInt8>, _ rank: Int) throws -> Int32 {
            if let id = vocabulary.id(for: piece) { return id }
            throw PEFTError(
                "\(file): merge \(rank) needs \(String(decoding: piece, as: UTF8.self)), which is not in the vocabulary",
                remedy: "the vocabulary and the merges must belong together")
        }
        func id(_ piece: [UInt8], _ rank: Int) throws -> Int32 {
            try piece.withUnsafeBufferPointer { try id($0, rank) }
        }
        try list.bytes.withUnsafeBufferPointer { bytes in
            var start = 0
            for (rank, (middle, end)) in list.bounds.enumerated() {
                defer { start = end }
                if prefixLength == 0 {
                    let left = try id(UnsafeBufferPointer(rebasing: bytes[start..<middle]), rank)
                    let right = try id(UnsafeBufferPointer(rebasing: bytes[middle..<end]), rank)
                    insert(left, right, rank, try id(UnsafeBufferPointer(rebasing: bytes[start..<end]), rank))
                    continue
                }
                let (left, right) = (Array(bytes[start..<middle]), Array(bytes[middle..<end]))
                insert(
                    try id(left, rank), try id(right, rank), rank, try id(left + right.dropFirst(prefixLength), rank))
            }
        }
    }

    deinit { entries.deallocate() }

    /// Adds a merge. A later duplicate replaces an earlier one.
    private func insert(_ left: Int32, _ right: Int32, _ rank: Int, _ result: Int32) {
        let key = MergeTable.key(left, right)
        entries[slot(of: key)] = Entry(key: key, merge: Merge(rank: Int32(rank), result: result))
    }

    @inline(__always)
    private static func key(_ left: Int32, _ right: Int32) -> UInt64 {
        UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
    }

    /// The slot of `key`, occupied or free.
    @inline(__always)
    private func slot(of key: UInt64) -> Int {
        let hash = (key ^ key >> 29) &* 0x9E37_79B9_7F4A_7C15
        var index = Int(truncatingIfNeeded: hash >> shift)
        while entries[index].key != MergeTable.empty, entries[index].key != key { index = (index + 1) & mask }
        return index
    }

    /// The merge of two adjacent ids; ``Merge/none`` if there is none.
    @inline(__always)
    func merge(_ left: Int32, _ right: Int32) -> Merge { entries[slot(of: MergeTable.key(left, right))].merge }

    func contains(where isWanted: (_ left: Int32, _ right: Int32) -> Bool) -> Bool {
        (0...mask).contains { index in
            let key = entries[index].key
            return key != MergeTable.empty
                && isWanted(Int32(truncatingIfNeeded: key >> 32), Int32(truncatingIfNeeded: key))
        }
    }
}
