/// Byte-pair encoding of a long text in linear time, without merging it: from left to right the longest piece that may
/// stand there.
///
/// Whether a piece may stand there is a matter of the piece before it alone. Let a text be cut into pieces each of which
/// is what merging makes of its own characters. Until the first merge that reaches over a cut, all of them merge as if
/// each were alone; and that merge, the most important one then, would come as well if its two pieces were all the text.
/// So a cut is the model's if and only if merging any two neighbors leaves these two. There is one such cut of each
/// beginning of the text: a search that goes back where nothing fits finds it, and need not come to a place twice that
/// nothing led on from.
struct BPESearch: Sendable {
    private struct Piece {
        /// In bytes.
        var length: Int32 = 0
        /// The longest other piece that it begins with, or ``ByteTrie/none``.
        var shorter = ByteTrie.none
        /// What the last merge makes it of, and the rank of that merge; ``beginning`` where it is one character, ``never``
        /// where merging its characters makes something else.
        var left = ByteTrie.none
        var right = ByteTrie.none
        var rank = never

        static let beginning: Int32 = -1
        static let never: Int32 = -2
    }

    private let merges: MergeTable
    /// By id.
    private let pieces: [Piece]
    /// The pieces that merging makes of their own characters.
    private let trie: DoubleArray

    /// - Returns: `nil` where pieces share an id, or some merge goes before those that make its pieces.
    init?(_ vocabulary: Vocabulary, _ merges: MergeTable) {
        let entries = vocabulary.entries.filter { !$0.piece.isEmpty }.sorted { $0.piece.count < $1.piece.count }
        var pieces = Array(repeating: Piece(), count: Int(entries.lazy.map(\.id).max() ?? -1) + 1)
        var reached: [(key: ArraySlice<UInt8>, number: Int32)] = []
        // What a piece is made of is shorter.
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

    /// How merging makes a piece.
    /// - Returns: `nil` where a merge goes before those that make its pieces.
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

    /// Whether two pieces come into being side by side without a merge over their cut that goes before `rank`.
    @inline(__always)
    private static func mayMeet(
        _ left: Int32, _ right: Int32, before rank: Int32, _ merges: MergeTable, _ pieces: UnsafeBufferPointer<Piece>
    ) -> Bool {
        var (left, right, rank) = (left, right, rank)
        // From the end to the beginning: what touches the cut, and the rank at which the next thing happens to it.
        while true {
            if merges.merge(left, right).rank < rank { return false }
            let (first, second) = (pieces[Int(left)], pieces[Int(right)])
            // Of equal merges the leftmost goes first.
            if first.rank > second.rank {
                (left, rank) = (first.right, first.rank)
            } else if second.rank != Piece.beginning {
                (right, rank) = (second.left, second.rank &+ 1)
            } else {
                return true
            }
        }
    }

    /// What a thread works with.
    final class State {
        fileprivate let known = KnownNeighbors()
        fileprivate var path = [Int32]()
        /// Where nothing led on from, a bit for each byte.
        fileprivate var dead = [UInt64]()
    }

    /// Appends the ids of text up to its end or the first character that is no piece.
    /// - Returns: the bytes that they cover.
    func append(_ text: UnsafeBufferPointer<UInt8>, _ state: State, into ids: inout [Int]) -> Int {
        let words = text.count / 64 + 1
        if state.dead.count < words { state.dead = Array(repeating: 0, count: 2 * words) }
        // A piece has a byte at least.
        if state.path.count < text.count { state.path = Array(repeating: 0, count: 2 * text.count) }
        return state.path.withUnsafeMutableBufferPointer { path in
            state.dead.withUnsafeMutableBufferPointer { dead in
                let (bytes, count) = pieces.withUnsafeBufferPointer { search(text, $0, state.known, path, dead) }
                for id in path[..<count] { ids.append(Int(id)) }
                return bytes
            }
        }
    }

    /// - Returns: the bytes that are covered, and by how many pieces, which are in `path` then.
    private func search(
        _ text: UnsafeBufferPointer<UInt8>, _ pieces: UnsafeBufferPointer<Piece>, _ known: KnownNeighbors,
        _ path: UnsafeMutableBufferPointer<Int32>, _ dead: UnsafeMutableBufferPointer<UInt64>
    ) -> (bytes: Int, count: Int) {
        var count = 0
        var place = 0
        // Bits are 0 between calls: what this one sets lies before the furthest place, not all the text.
        var furthest = 0
        defer { dead[...(furthest >> 6)].update(repeating: 0) }
        var left = ByteTrie.none
        var (right, end) = trie.longest(text, from: 0)
        while right != ByteTrie.none {
            // The longest piece that may stand here.
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

/// Which pieces may be neighbors, of those that were asked for last: the same ones come again and again.
private final class KnownNeighbors {
    /// The two ids of 24 bits, the answer, and one more, so that 0 is an empty entry.
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
