import Support

/// Pieces with ids that a file gives them. Ids may leave gaps.
///
/// Pieces are told apart by their bytes, as everywhere here.
struct Vocabulary: Sendable {
    /// Above this an id is taken for damage, not for a place in a table.
    static let largestID = 1 << 24

    private var pieces: ByteTable
    /// The id of each piece, in the order of the table.
    private var ids: [Int32] = []
    /// The number of the piece with each id, or -1.
    private var numbers: [Int32] = []

    init(expectedPieces: Int = 16) { pieces = ByteTable(expectedKeys: expectedPieces) }

    /// The number of different pieces.
    var count: Int { pieces.count }

    /// Adds a piece; where it is there already, the new id counts.
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

/// The merges of byte-pair encoding, the most important one first: two pieces each, end to end in one buffer.
struct MergeList: Sendable {
    private(set) var bytes: [UInt8] = []
    /// Where the second piece of each merge begins, and where it ends. The middle is `nil` where the text holds
    /// more than one space, each of which may be the one between the pieces.
    private(set) var bounds: [(middle: Int?, end: Int)] = []

    mutating func append(_ left: some Sequence<UInt8>, _ right: some Sequence<UInt8>) {
        bytes.append(contentsOf: left)
        let middle = bytes.count
        bytes.append(contentsOf: right)
        bounds.append((middle, bytes.count))
    }

    /// Reads "left right". Lines that begin with "#version" say nothing.
    /// - Returns: whether there is a space.
    mutating func append(line: some BidirectionalCollection<UInt8>) -> Bool {
        if line.starts(with: "#version".utf8) { return true }
        guard let space = line.firstIndex(of: 0x20) else { return false }
        if line.lastIndex(of: 0x20) == space {
            append(line[..<space], line[line.index(after: space)...])
        } else {
            bytes.append(contentsOf: line)
            bounds.append((nil, bytes.count))
        }
        return true
    }

    /// The pieces of a merge with several spaces: the only cut that leaves two pieces and makes a third.
    func pieces(in range: Range<Int>, _ vocabulary: Vocabulary) -> (left: [UInt8], right: [UInt8])? {
        let cuts = range.lazy.filter { bytes[$0] == 0x20 }.map { space in
            (left: Array(bytes[range.lowerBound..<space]), right: Array(bytes[space + 1..<range.upperBound]))
        }
        let possible = cuts.filter { left, right in
            [left, right, left + right].allSatisfy { vocabulary.id(for: $0) != nil }
        }
        return possible.count == 1 ? possible.first : nil
    }

    /// All merges in order.
    /// - Throws: ``PEFTError`` where a text can be cut in two pieces in no way or several.
    func pairs(_ vocabulary: Vocabulary, file: String) throws -> [(left: [UInt8], right: [UInt8])] {
        var start = 0
        return try bounds.enumerated().map { rank, bound in
            defer { start = bound.end }
            if let middle = bound.middle { return (Array(bytes[start..<middle]), Array(bytes[middle..<bound.end])) }
            guard let pair = pieces(in: start..<bound.end, vocabulary) else {
                throw PEFTError(
                    "\(file): merge \(rank) is not two pieces with a space between them",
                    remedy: "the file may be damaged")
            }
            return pair
        }
    }

    /// Whether what some merge makes holds `mark` behind something else.
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
