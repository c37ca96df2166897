/// Byte-pair encoding of a long text in linear time, without merging: a left-to-right search for the longest valid
/// next piece.
///
/// Whether a piece is valid depends only on the piece before it. Consider a segmentation into pieces each of which
/// is the result of merging its own characters. Until the first merge across a boundary, all pieces merge as if each
/// were alone; and that merge, which has the lowest rank at that point, would also happen if its two pieces were the
/// entire text. So a segmentation is the model's if and only if merging any two adjacent pieces leaves them as they
/// are. Each prefix of the text has exactly one such segmentation: a search that backtracks where nothing fits finds
/// it, and never needs to visit a dead end twice.
struct BPESearch: Sendable {
    private struct Piece {
        /// In bytes.
        var length: Int32 = 0
        /// Its longest proper prefix that is a piece, or ``ByteTrie/none``.
        var shorter = ByteTrie.none
        /// The two pieces of its last merge, and the rank of that merge; ``beginning`` for a single character,
        /// ``never`` if merging its characters has another result.
        var left = ByteTrie.none
        var right = ByteTrie.none
        var rank = never

        static let beginning: Int32 = -1
        static let never: Int32 = -2
    }

    private let merges: MergeTable
    /// Indexed by id.
    private let pieces: [Piece]
    /// The pieces that result from merging their own characters.
    private let trie: DoubleArray

    /// - Returns: `nil` if pieces share an id, or a merge has a lower rank than those that produce its pieces.
    init?(_ vocabulary: Vocabulary, _ merges: MergeTable) {
        let entries = vocabulary.entries.filter { !$0.piece.isEmpty }.sorted { $0.piece.count < $1.piece.count }
        var pieces = Array(repeating: Piece(), count: Int(entries.lazy.map(\.id).max() ?? -1) + 1)
        var reached: [(key: ArraySlice<UInt8>, number: Int32)] = []
        // The two parts of a piece are shorter than the piece.
        for (text, id) in entries {
            guard pieces[Int(id)].length == 0,
                var piece = BPESearch.piece(Array(text), id, vocabulary, merges, pieces)
            else { return nil }
            piece.length = Int32(text.count)
            pieces[Int(id)] = piece
            if piece.rank != Piece.never { reached.append((text, id)) }
        }
        guard let trie = DoubleArray(reached) else { return nil }
        for (text, id) in reached {
            pieces[Int(id)].shorter = text.dropLast().withUnsafeBufferPointer { trie.longest($0, from: 0).number }
        }
        (self.merges, self.pieces, self.trie) = (merges, pieces, trie)
    }

    /// How merging produces a piece.
    /// - Returns: `nil` if a merge has a lower rank than those that produce its pieces.
    private static func piece(
        _ text: [UInt8], _ id: Int32, _ vocabulary: Vocabulary, _ merges: MergeTable, _ pieces: [Piece]
    ) -> Piece? {
        if readScalarLength(text[0]) >= text.count { return Piece(rank: Piece.beginning) }
        var found = Piece()
        for middle in 1..<text.count where text[middle] & 0xC0 != 0x80 {
            guard let left = vocabulary.id(for: text[..<middle]), let right = vocabulary.id(for: text[middle...]),
                pieces[Int(left)].rank != Piece.never, pieces[Int(right)].rank != Piece.never
            else { continue }
            let merge = merges.merge(left, right)
            guard merge.result == id else { continue }
            guard merge.rank > max(pieces[Int(left)].rank, pieces[Int(right)].rank) else { return nil }
            let isMade = pieces.withUnsafeBufferPointer { mayMeet(left, right, before: merge.rank, merges, $0) }
            if isMade { found = Piece(left: left, right: right, rank: merge.rank) }
        }
        return found
    }

    /// Whether two pieces form side by side without a merge across their boundary of lower rank than `rank`.
    @inline(__always)
    private static func mayMeet(
        _ left: Int32, _ right: Int32, before rank: Int32, _ merges: MergeTable, _ pieces: UnsafeBufferPointer<Piece>
    ) -> Bool {
        var (left, right, rank) = (left, right, rank)
        // From the last merge back to the first: the pieces at the boundary, and the rank of the next merge of each.
        while true {
            if merges.merge(left, right).rank < rank { return false }
            let (first, second) = (pieces[Int(left)], pieces[Int(right)])
            // Of equal merges the leftmost comes first.
            if first.rank > second.rank {
                (left, rank) = (first.right, first.rank)
            } else if second.rank != Piece.beginning {
                (right, rank) = (second.left, second.rank &+ 1)
            } else {
                return true
            }
        }
    }

    /// Per-thread working memory.
    final class State {
        fileprivate let known = KnownNeighbors()
        fileprivate var path = [Int32]()
        /// Dead ends, one bit per byte.
        fileprivate var dead = [UInt64]()
    }

    /// Appends the ids of text up to its end or the first character outside the vocabulary.
    /// - Returns: the number of bytes covered.
    func append(_ text: UnsafeBufferPointer<UInt8>, _ state: State, into ids: inout [Int]) -> Int {
        let words = text.count / 64 + 1
        if state.dead.count < words { state.dead = Array(repeating: 0, count: 2 * words) }
        // A piece has at least one byte.
        if state.path.count < text.count { state.path = Array(repeating: 0, count: 2 * text.count) }
        return state.path.withUnsafeMutableBufferPointer { path in
            state.dead.withUnsafeMutableBufferPointer { dead in
                let (bytes, count) = pieces.withUnsafeBufferPointer { search(text, $0, state.known, path, dead) }
                for id in path[..<count] { ids.append(Int(id)) }
                return bytes
            }
        }
    }

    /// - Returns: the number of bytes covered, and the number of pieces, which are in `path`.
    private func search(
        _ text: UnsafeBufferPointer<UInt8>, _ pieces: UnsafeBufferPointer<Piece>, _ known: KnownNeighbors,
        _ path: UnsafeMutableBufferPointer<Int32>, _ dead: UnsafeMutableBufferPointer<UInt64>
    ) -> (bytes: Int, count: Int) {
        var count = 0
        var place = 0
        // Bits are 0 between calls: only those before the furthest position need clearing, not those of all the
        // text.
        var furthest = 0
        defer { dead[...(furthest >> 6)].update(repeating: 0) }
        var left = ByteTrie.none
        var (right, end) = trie.longest(text, from: 0)
        while right != ByteTrie.none {
            // The longest valid piece here.
            while true {
                if dead[end >> 6] >> UInt64(end & 63) & 1 == 0 {
                    if left == ByteTrie.none { break }
                    let areNeighbors = known.areNeighbors(left, right) {
                        BPESearch.mayMeet(left, right, before: .max, merges, pieces)
                    }
                    if areNeighbors { break }
                }
                right = pieces[Int(right)].shorter
                if right == ByteTrie.none { break }
                end = place + Int(pieces[Int(right)].length)
            }
            if right != ByteTrie.none {
                path[count] = right
                count += 1
                (place, left) = (end, right)
                furthest = max(furthest, place)
                (right, end) = trie.longest(text, from: place)
            } else if count > 0 {
                dead[place >> 6] |= 1 << UInt64(place & 63)
                (right, end) = (left, place)
                count -= 1
                place -= Int(pieces[Int(right)].length)
                left = count > 0 ? path[count - 1] : ByteTrie.none
            }
        }
        return (place, count)
    }
}

/// Caches which pieces may be adjacent, since pairs repeat.
private final class KnownNeighbors {
    /// Two 24-bit ids, the result, and a constant 1 bit, so that 0 is an empty entry.
    private let entries: UnsafeMutablePointer<UInt64>
    private static let bits: UInt64 = 15

    init() {
        entries = .allocate(capacity: 1 << Int(KnownNeighbors.bits))
        entries.initialize(repeating: 0, count: 1 << Int(KnownNeighbors.bits))
    }

    deinit { entries.deallocate() }

    @inline(__always)
    func areNeighbors(_ left: Int32, _ right: Int32, orElse find: () -> Bool) -> Bool {
        let key = UInt64(UInt32(bitPattern: left)) << 24 | UInt64(UInt32(bitPattern: right))
        let slot = Int(truncatingIfNeeded: (key &* 0x9E37_79B9_7F4A_7C15) >> (64 - KnownNeighbors.bits))
        let entry = entries[slot] &- 1
        if entry >> 1 == key { return entry & 1 == 1 }
        let found = find()
        entries[slot] = (key << 1 | (found ? 1 : 0)) + 1
        return found
    }
}
