import PEFTSupport

/// WordPiece (greedy longest match first, from left to right); a word that can't be segmented becomes the unknown
/// token (Devlin et al. 2019, https://arxiv.org/abs/1810.04805).
struct WordPiece: TokenizerModel {
    let unknownID: Int?
    private let vocabulary: Vocabulary
    private let unknown: Int
    private let longestWord: Int
    private let trie: ByteTrie
    /// The trie node where continuation pieces begin, or ``ByteTrie/none``.
    private let continuation: ByteTrie.Node
    private let caches = Pool { WordCache() }

    /// - Parameters:
    ///   - continuingPrefix: the prefix of continuation pieces, such as "##".
    ///   - longestWord: words with more characters are unknown.
    init(
        vocabulary: Vocabulary, unknownToken: String, continuingPrefix: String, longestWord: Int, file: String
    ) throws {
        guard let id = vocabulary.id(for: unknownToken.utf8) else {
            throw PEFTError(
                "\(file): the unknown token \(unknownToken) is not in the vocabulary",
                remedy: "unk_token must name a piece")
        }
        self.vocabulary = vocabulary
        self.longestWord = longestWord
        unknown = Int(id)
        unknownID = Int(id)
        var trie = ByteTrie(expectedKeys: vocabulary.count)
        for (piece, id) in vocabulary.entries where !piece.isEmpty {
            guard trie.insert(piece, value: id) != nil else {
                throw PEFTError("\(file): the vocabulary is too large: more than 16 million distinct prefixes")
            }
        }
        var node = ByteTrie.root
        for byte in continuingPrefix.utf8 where node != ByteTrie.none { node = trie.child(of: node, byte) }
        continuation = node
        self.trie = trie
    }

    var vocabularySize: Int { vocabulary.count }
    func piece(for id: Int) -> String? { vocabulary.piece(for: id) }
    func id(for piece: String) -> Int? { vocabulary.id(for: piece.utf8).map { Int($0) } }

    func tokenize(_ text: PreTokenizedText, into ids: inout [Int]) {
        caches.with { cache in
            text.bytes.withUnsafeBufferPointer { bytes in
                guard let base = bytes.baseAddress else { return }
                for piece in text.pieces {
                    let word = base + piece.lowerBound
                    let readable = bytes.count - piece.lowerBound
                    if cache.find(word, count: piece.count, readable: readable, into: &ids) { continue }
                    let start = ids.count
                    if !cut(text.bytes, piece, into: &ids) { ids.append(unknown) }
                    cache.store(word, count: piece.count, readable: readable, ids[start...])
                }
            }
        }
    }

    func place(_ piece: [UInt8]) -> [(id: Int, bytes: Range<Int>)] {
        var ids: [Int] = []
        var ends: [Int] = []
        guard cut(piece, 0..<piece.count, into: &ids, ends: { ends.append($0) }) else {
            return [(unknown, 0..<piece.count)]
        }
        return ids.indices.map { (ids[$0], ($0 == 0 ? 0 : ends[$0 - 1])..<ends[$0]) }
    }

    /// Appends the ids of a word.
    /// - Parameter ends: called with the end of each piece, including pieces that are then discarded.
    /// - Returns: whether pieces cover the word; if not, nothing is appended.
    @inline(__always)
    private func cut(
        _ bytes: [UInt8], _ word: Range<Int>, into ids: inout [Int], ends: (Int) -> Void = { _ in }
    ) -> Bool {
        if word.count > longestWord {
            // Counting the bytes that begin a character.
            guard bytes[word].count(where: { $0 & 0xC0 != 0x80 }) <= longestWord else { return false }
        }
        let before = ids.count
        var start = word.lowerBound
        while start < word.upperBound {
            var node = start == word.lowerBound ? ByteTrie.root : continuation
            var end = start
            var found: (end: Int, id: Int32)?
            while node != ByteTrie.none, end < word.upperBound {
                node = trie.child(of: node, bytes[end])
                if node == ByteTrie.none { break }
                end += 1
                let id = trie.value(at: node)
                if id != ByteTrie.none { found = (end, id) }
            }
            guard let found else {
                ids.removeLast(ids.count - before)
                return false
            }
            ids.append(Int(found.id))
            ends(found.end)
            start = found.end
        }
        return true
    }
}
