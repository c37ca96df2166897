import PEFTSupport

/// Pieces with the ids of a file. Ids may have gaps.
///
/// Pieces are compared by their bytes, as everywhere in this module.
struct Vocabulary: Sendable {
    /// A larger id means a damaged file.
    static let largestID = 1 << 24

    private var pieces: ByteTable
    /// The id of each piece, in the order of the table.
    private var ids: [Int32] = []
    /// The index of the piece with each id, or -1.
    private var numbers: [Int32] = []

    init(expectedPieces: Int = 16) { pieces = ByteTable(expectedKeys: expectedPieces) }

    /// The number of distinct pieces.
    var count: Int { pieces.count }

    /// Adds a piece; a later duplicate replaces the id.
    /// - Parameter id: from 0 up to ``largestID``.
    mutating func insert(_ piece: [UInt8], id: Int) {
        let number = piece.withUnsafeBufferPointer { pieces.insert($0) }
        if number == ids.count { ids.append(Int32(id)) } else { ids[number] = Int32(id) }
        while numbers.count <= id { numbers.append(-1) }
        numbers[id] = Int32(number)
    }

    func id(for piece: UnsafeBufferPointer<UInt8>) -> Int32? { pieces.number(of: piece).map { ids[$0] } }
    func id(for piece: some Sequence<UInt8>) -> Int32? { pieces.number(of: piece).map { ids[$0] } }

    func piece(for id: Int) -> String? {
        guard numbers.indices.contains(id), numbers[id] >= 0 else { return nil }
        return String(decoding: pieces.key(Int(numbers[id])), as: UTF8.self)
    }

    /// All pieces with their ids.
    var entries: some Sequence<(piece: ArraySlice<UInt8>, id: Int32)> {
        (0..<pieces.count).lazy.map { (pieces.key($0), ids[$0]) }
    }
}

/// The merges of byte-pair encoding in order of rank: two pieces each, contiguous in one buffer.
struct MergeList: Sendable {
    private(set) var bytes: [UInt8] = []
    /// The start of each merge's second piece, and its end.
    private(set) var bounds: [(middle: Int, end: Int)] = []

    mutating func append(_ left: some Sequence<UInt8>, _ right: some Sequence<UInt8>) {
        bytes.append(contentsOf: left)
        let middle = bytes.count
        bytes.append(contentsOf: right)
        bounds.append((middle, bytes.count))
    }

    /// Parses "left right". Lines that begin with "#version" are skipped.
    /// - Returns: whether there is exactly one space, as the `tokenizers` library requires: with several, the
    ///   separator is ambiguous.
    mutating func append(line: some BidirectionalCollection<UInt8>) -> Bool {
        if line.starts(with: "#version".utf8) { return true }
        guard let space = line.firstIndex(of: 0x20), line.lastIndex(of: 0x20) == space else { return false }
        append(line[..<space], line[line.index(after: space)...])
        return true
    }

    /// All merges in order.
    var pairs: [(left: [UInt8], right: [UInt8])] {
        var start = 0
        return bounds.map { bound in
            defer { start = bound.end }
            return (Array(bytes[start..<bound.middle]), Array(bytes[bound.middle..<bound.end]))
        }
    }

    /// Whether some merge's result contains `mark` after another character.
    func containsMark(within mark: [UInt8]) -> Bool {
        var start = 0
        for (_, end) in bounds {
            var index = start
            while index < end, bytes[index..<end].starts(with: mark) { index += mark.count }
            while index < end {
                if bytes[index] == mark[0], bytes[index..<end].starts(with: mark) { return true }
                index += 1
            }
            start = end
        }
        return false
    }
}
