import Support

/// Byte-pair encoding: a word begins as its characters, and the two neighbours that come first in the list of
/// merges become one piece until none are left (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909).
struct BPE: TokenizerModel {
    struct Configuration: Sendable {
        /// What stands for a character outside the vocabulary; without one such characters are dropped.
        var unknownToken: String?
        /// Whether neighbouring unknown characters are one token.
        var fusesUnknown = false
        /// Whether unknown characters become the pieces `<0x00>` … `<0xFF>` of their bytes.
        var byteFallback = false
        /// Whether a word that is a piece is taken as it is, even if no merges lead to it.
        var ignoresMerges = false
        /// What stands before every character of a word but the first.
        var continuingPrefix = ""
        /// What stands behind the last character of a word.
        var wordSuffix = ""
    }

    let unknownID: Int?
    private let vocabulary: Vocabulary
    private let merges: MergeTable
    private let fusesUnknown: Bool
    private let ignoresMerges: Bool
    private let prefix: [UInt8]
    private let suffix: [UInt8]
    /// The id of the piece for each byte, or -1; empty without byte fallback.
    private let byteIDs: [Int32]
    private let cache = WordCache()

    init(vocabulary: Vocabulary, merges list: MergeList, configuration: Configuration, file: String) throws {
        self.vocabulary = vocabulary
        prefix = Array(configuration.continuingPrefix.utf8)
        suffix = Array(configuration.wordSuffix.utf8)
        fusesUnknown = configuration.fusesUnknown
        ignoresMerges = configuration.ignoresMerges
        unknownID = configuration.unknownToken.flatMap { vocabulary.id(for: $0.utf8) }.map { Int($0) }
        merges = try MergeTable(list, vocabulary, prefixLength: prefix.count, file: file)
        byteIDs =
            configuration.byteFallback
            ? (0..<256).map { vocabulary.id(for: BPE.bytePiece(UInt8($0)).utf8) ?? -1 } : []
    }

    /// `<0xE2>`
    private static func bytePiece(_ byte: UInt8) -> String {
        let digits = String(byte, radix: 16, uppercase: true)
        return "<0x\(digits.count == 1 ? "0" : "")\(digits)>"
    }

    var vocabularySize: Int { vocabulary.count }
    func piece(for id: Int) -> String? { vocabulary.piece(for: id) }
    func id(for piece: String) -> Int? { vocabulary.id(for: piece.utf8).map { Int($0) } }

    func tokenize(_ text: PreTokenizedText, into ids: inout [Int]) {
        var word = Word()
        let hasCache = cache.begin()
        defer { if hasCache { cache.end() } }
        text.bytes.withUnsafeBufferPointer { bytes in
            for piece in text.pieces {
                let characters = UnsafeBufferPointer(rebasing: bytes[piece])
                if ignoresMerges, let id = vocabulary.id(for: characters) {
                    ids.append(Int(id))
                    continue
                }
                let isCached = hasCache && characters.count <= WordCache.longestWord
                if isCached, cache.find(characters, into: &ids) { continue }
                let start = ids.count
                fill(&word, characters)
                word.merge(by: merges)
                word.read(into: &ids)
                if isCached { cache.store(characters, ids[start...]) }
            }
        }
    }

    /// Makes `word` the characters of a piece of text.
    private func fill(_ word: inout Word, _ bytes: UnsafeBufferPointer<UInt8>) {
        word.symbols.removeAll(keepingCapacity: true)
        var decorated: [UInt8] = []
        var hasUnknown = false
        var index = 0
        while index < bytes.count {
            let lead = bytes[index]
            let length = min(lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4, bytes.count - index)
            let isFirst = index == 0
            let isLast = index + length == bytes.count
            let character = UnsafeBufferPointer(rebasing: bytes[index..<index + length])
            index += length
            if !prefix.isEmpty && !isFirst || !suffix.isEmpty && isLast {
                decorated.removeAll(keepingCapacity: true)
                if !isFirst { decorated += prefix }
                decorated += character
                if isLast { decorated += suffix }
            } else {
                decorated.removeAll(keepingCapacity: true)
            }
            let known: Int32? =
                decorated.isEmpty
                ? vocabulary.id(for: character) : decorated.withUnsafeBufferPointer { vocabulary.id(for: $0) }
            if let known {
                if hasUnknown, let unknownID { word.symbols.append(Int32(unknownID)) }
                hasUnknown = false
                word.symbols.append(known)
                continue
            }
            let fallback = decorated.isEmpty ? Array(character) : decorated
            if !byteIDs.isEmpty, fallback.allSatisfy({ byteIDs[Int($0)] >= 0 }) {
                // As in the reference, an unknown character that waits to be fused stays behind these bytes.
                for byte in fallback { word.symbols.append(byteIDs[Int(byte)]) }
                continue
            }
            guard let unknownID else { continue }
            if hasUnknown, !fusesUnknown { word.symbols.append(Int32(unknownID)) }
            hasUnknown = true
        }
        if hasUnknown, let unknownID { word.symbols.append(Int32(unknownID)) }
    }
}

/// Which neighbours merge, how early, and into what: an open-addressing table from two ids to a rank.
struct MergeTable: Sendable {
    private var keys: [UInt64]
    private var ranks: [Int32]
    /// The id that a merge leads to, by its rank.
    private var results: [Int32] = []
    /// No pair of ids looks like this, since ids end far below.
    private static let empty = UInt64.max

    init(_ list: MergeList, _ vocabulary: Vocabulary, prefixLength: Int, file: String) throws {
        var size = 32
        while size < list.bounds.count * 2 { size *= 2 }
        keys = [UInt64](repeating: MergeTable.empty, count: size)
        ranks = [Int32](repeating: 0, count: size)
        results.reserveCapacity(list.bounds.count)
        /// The id of a piece of merge `rank`.
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
                if prefixLength == 0, let middle {
                    let left = try id(UnsafeBufferPointer(rebasing: bytes[start..<middle]), rank)
                    let right = try id(UnsafeBufferPointer(rebasing: bytes[middle..<end]), rank)
                    insert(left, right, try id(UnsafeBufferPointer(rebasing: bytes[start..<end]), rank))
                    continue
                }
                let pair =
                    middle.map { (left: Array(bytes[start..<$0]), right: Array(bytes[$0..<end])) }
                    ?? list.pieces(in: start..<end, vocabulary)
                guard let (left, right) = pair else {
                    throw PEFTError(
                        "\(file): merge \(rank) is not two pieces with a space between them",
                        remedy: "the file may be damaged")
                }
                insert(try id(left, rank), try id(right, rank), try id(left + right.dropFirst(prefixLength), rank))
            }
        }
    }

    /// Adds the next merge. Of equal ones the last one counts.
    private mutating func insert(_ left: Int32, _ right: Int32, _ result: Int32) {
        let key = MergeTable.key(left, right)
        let slot = slot(of: key)
        keys[slot] = key
        ranks[slot] = Int32(results.count)
        results.append(result)
    }

    @inline(__always)
    private static func key(_ left: Int32, _ right: Int32) -> UInt64 {
        UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
    }

    /// Where `key` is or would be.
    @inline(__always)
    private func slot(of key: UInt64) -> Int {
        var hash = (key ^ key >> 29) &* 0x9E37_79B9_7F4A_7C15
        hash ^= hash >> 32
        var index = Int(truncatingIfNeeded: hash) & (keys.count - 1)
        while keys[index] != MergeTable.empty, keys[index] != key { index = (index + 1) & (keys.count - 1) }
        return index
    }

    @inline(__always)
    func rank(_ left: Int32, _ right: Int32) -> Int32? {
        let slot = slot(of: MergeTable.key(left, right))
        return keys[slot] == MergeTable.empty ? nil : ranks[slot]
    }

    func result(_ rank: Int32) -> Int32 { results[Int(rank)] }
}

/// The symbols of a word while they are merged. Kept for all words of a text, so that they cost no allocation.
private struct Word {
    /// Ids; -1 for what its left neighbour has taken in.
    var symbols: [Int32] = []
    private var previous: [Int32] = []
    private var next: [Int32] = []
    /// A binary heap of merges that may be possible: the rank, then the position of the left symbol, so that of
    /// equal merges the leftmost goes first.
    private var queue: [UInt64] = []

    /// Takes n log n steps for n symbols: texts without a pre-tokenizer are one word.
    mutating func merge(by merges: MergeTable) {
        let count = symbols.count
        guard count > 1 else { return }
        previous.removeAll(keepingCapacity: true)
        next.removeAll(keepingCapacity: true)
        queue.removeAll(keepingCapacity: true)
        for position in 0..<count {
            previous.append(Int32(position - 1))
            next.append(position + 1 < count ? Int32(position + 1) : -1)
        }
        for position in 0..<count - 1 { offer(position, merges) }
        while let top = pop() {
            let position = Int(top & 0xFFFF_FFFF)
            let rank = Int32(top >> 32)
            guard symbols[position] >= 0, next[position] >= 0 else { continue }
            let right = Int(next[position])
            // Whatever has changed since has another rank or none.
            guard merges.rank(symbols[position], symbols[right]) == rank else { continue }
            symbols[position] = merges.result(rank)
            symbols[right] = -1
            next[position] = next[right]
            if next[right] >= 0 { previous[Int(next[right])] = Int32(position) }
            if previous[position] >= 0 { offer(Int(previous[position]), merges) }
            if next[position] >= 0 { offer(position, merges) }
        }
    }

    func read(into ids: inout [Int]) {
        for symbol in symbols where symbol >= 0 { ids.append(Int(symbol)) }
    }

    /// Queues the merge of a symbol with the one behind it, if there is one.
    @inline(__always)
    private mutating func offer(_ position: Int, _ merges: MergeTable) {
        guard let rank = merges.rank(symbols[position], symbols[Int(next[position])]) else { return }
        let entry = UInt64(rank) << 32 | UInt64(position)
        queue.append(entry)
        var child = queue.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard queue[parent] > entry else { break }
            queue[child] = queue[parent]
            child = parent
        }
        queue[child] = entry
    }

    private mutating func pop() -> UInt64? {
        guard let top = queue.first, let last = queue.popLast() else { return nil }
        guard !queue.isEmpty else { return top }
        var parent = 0
        while true {
            var child = 2 * parent + 1
            guard child < queue.count else { break }
            if child + 1 < queue.count, queue[child + 1] < queue[child] { child += 1 }
            guard queue[child] < last else { break }
            queue[parent] = queue[child]
            parent = child
        }
        queue[parent] = last
        return top
    }
}
