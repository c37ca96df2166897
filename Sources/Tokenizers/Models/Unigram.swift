import PEFTSupport

/// The unigram language model of SentencePiece: of all segmentations of a text into pieces of the vocabulary,
/// the one with the highest sum of log probabilities (Kudo 2018, https://arxiv.org/abs/1804.10959).
struct Unigram: TokenizerModel {
    /// The penalty of an uncovered character relative to the least likely piece.
    private static let unknownPenalty = 10.0

    let unknownID: Int?
    private let unknown: Int32
    private let unknownScore: Double
    private let pieces: [String]
    private let scores: [Double]
    private let trie: ByteTrie
    /// The id of the piece for each byte, or ``ByteTrie/none``; empty without byte fallback.
    private let byteIDs: [Int32]
    private let states = Pool { State() }

    /// - Parameters:
    ///   - vocabulary: pieces with their log probabilities; the index is the id. A later duplicate replaces an
    ///     earlier one.
    ///   - unknownID: the id of the unknown token.
    ///   - byteFallback: whether text that no piece covers becomes the pieces `<0x00>` … `<0xFF>` of its bytes.
    ///   - file: the file name for errors.
    init(
        vocabulary: [(piece: String, score: Double)], unknownID: Int, byteFallback: Bool, file: String
    ) throws {
        guard vocabulary.indices.contains(unknownID) else {
            throw PEFTError(
                "\(file): unk_id is \(unknownID), but the vocabulary has \(vocabulary.count) pieces",
                remedy: "the file may be damaged")
        }
        self.unknownID = unknownID
        unknown = Int32(unknownID)
        pieces = vocabulary.map(\.piece)
        scores = vocabulary.map(\.score)
        if let wrong = scores.firstIndex(where: { !$0.isFinite }) {
            throw PEFTError(
                "\(file): the score of piece \(wrong) is not a finite number", remedy: "the file may be damaged")
        }
        unknownScore = (scores.min() ?? 0) - Unigram.unknownPenalty
        var trie = ByteTrie(expectedKeys: vocabulary.count)
        for (id, entry) in vocabulary.enumerated() {
            // An empty piece would match everywhere without advancing.
            guard !entry.piece.utf8.isEmpty else { continue }
            guard trie.insert(entry.piece.utf8, value: Int32(id)) != nil else {
                throw PEFTError("\(file): the vocabulary is too large: more than 16 million distinct prefixes")
            }
        }
        self.trie = trie
        byteIDs =
            byteFallback
            ? (0..<256).map { byte in
                let digits = String(byte, radix: 16, uppercase: true)
                let piece = "<0x\(digits.count == 1 ? "0" : "")\(digits)>"
                return Int32(trie.lookUp(piece.utf8) ?? Int(ByteTrie.none))
            } : []
    }

    var vocabularySize: Int { pieces.count }
    func piece(for id: Int) -> String? { pieces.indices.contains(id) ? pieces[id] : nil }
    func id(for piece: String) -> Int? { piece.isEmpty ? nil : trie.lookUp(piece.utf8) }

    func tokenize(_ text: PreTokenizedText, into ids: inout [Int]) {
        states.with { state in
            text.bytes.withUnsafeBufferPointer { bytes in
                guard let base = bytes.baseAddress else { return }
                for piece in text.pieces {
                    let word = base + piece.lowerBound
                    let readable = bytes.count - piece.lowerBound
                    if state.cache.find(word, count: piece.count, readable: readable, into: &ids) { continue }
                    let start = ids.count
                    append(UnsafeBufferPointer(start: word, count: piece.count), state.lattice, into: &ids)
                    state.cache.store(word, count: piece.count, readable: readable, ids[start...])
                }
            }
        }
    }

    /// Appends the ids of a piece.
    func append(_ piece: UnsafeBufferPointer<UInt8>, _ lattice: Lattice, into ids: inout [Int]) {
        fill(lattice, piece)
        readBack(lattice, piece) { id, _ in ids.append(id) }
    }

    /// Per-thread working memory.
    private final class State {
        let cache = WordCache()
        let lattice = Lattice()
    }

    /// The best path to each byte position of a piece, reused for all pieces to avoid allocations.
    final class Lattice {
        /// One per position.
        fileprivate private(set) var nodes: UnsafeMutablePointer<Node>
        private var capacity = 64
        fileprivate var path: [(range: Range<Int>, id: Int32)] = []

        fileprivate struct Node {
            /// Sum of the log probabilities up to here.
            var score = 0.0
            /// Start of the last piece; -1 if the position is unreachable.
            var start: Int32 = -1
            /// The last piece.
            var id: Int32 = 0
        }

        init() { nodes = .allocate(capacity: capacity) }
        deinit { nodes.deallocate() }

        /// Reserves room for pieces of that many bytes.
        fileprivate func reserve(_ longest: Int) {
            guard longest >= capacity else { return }
            nodes.deallocate()
            capacity = longest + longest / 2 + 1
            nodes = .allocate(capacity: capacity)
        }

        /// Keeps the first of equally likely paths, as the reference does.
        @inline(__always)
        fileprivate func offer(end: Int, start: Int, score: Double, id: Int32) {
            guard nodes[end].start < 0 || score > nodes[end].score else { return }
            nodes[end] = Node(score: score, start: Int32(truncatingIfNeeded: start), id: id)
        }
    }

    /// Viterbi's forward pass over a piece of text.
    private func fill(_ lattice: Lattice, _ bytes: UnsafeBufferPointer<UInt8>) {
        let size = bytes.count
        lattice.reserve(size)
        lattice.nodes.initialize(repeating: Lattice.Node(), count: size + 1)
        var begin = 0
        while begin < size {
            let soFar = lattice.nodes[begin].score
            let length = min(readScalarLength(bytes[begin]), size - begin)
            var hasSingle = false
            var node = ByteTrie.root
            var end = begin
            while end < size {
                node = trie.child(of: node, bytes[end])
                if node == ByteTrie.none { break }
                end += 1
                let id = trie.value(at: node)
                if id == ByteTrie.none { continue }
                lattice.offer(end: end, start: begin, score: soFar + scores[Int(id)], id: id)
                if end - begin == length { hasSingle = true }
            }
            if !hasSingle {
                lattice.offer(end: begin + length, start: begin, score: soFar + unknownScore, id: unknown)
            }
            begin += length
        }
    }

    func place(_ piece: [UInt8]) -> [(id: Int, bytes: Range<Int>)] {
        var result: [(id: Int, bytes: Range<Int>)] = []
        states.with { state in
            piece.withUnsafeBufferPointer { bytes in
                fill(state.lattice, bytes)
                readBack(state.lattice, bytes) { result.append(($0, $1)) }
            }
        }
        return result
    }

    /// Backtracks the best path. Adjacent unknown characters are one token, or the pieces of all their bytes.
    @inline(__always)
    private func readBack(
        _ lattice: Lattice, _ piece: UnsafeBufferPointer<UInt8>, append: (_ id: Int, _ bytes: Range<Int>) -> Void
    ) {
        lattice.path.removeAll(keepingCapacity: true)
        var end = piece.count
        while end > 0 {
            let start = Int(lattice.nodes[end].start)
            let id = lattice.nodes[end].id
            if id == unknown, let last = lattice.path.last, last.id == unknown {
                lattice.path[lattice.path.count - 1].range = start..<last.range.upperBound
            } else {
                lattice.path.append((start..<end, id))
            }
            end = start
        }
        for (range, id) in lattice.path.reversed() {
            guard id == unknown else {
                append(Int(id), range)
                continue
            }
            let rest = piece[range]
            if let known = trie.lookUp(rest) {
                // Several unknown characters together can be a piece that was too unlikely on its own.
                append(known, range)
            } else if !byteIDs.isEmpty, rest.allSatisfy({ byteIDs[Int($0)] != ByteTrie.none }) {
                for byte in rest { append(Int(byteIDs[Int(byte)]), range) }
            } else {
                append(Int(unknown), range)
            }
        }
    }
}
