import PEFTSupport

/// Byte-pair encoding: a word starts as its characters, and the adjacent pair that comes first in the list of merges
/// becomes one piece, until no merge applies (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909).
struct BPE: TokenizerModel {
    struct Configuration: Sendable {
        /// The token for characters outside the vocabulary; without one such characters are dropped.
        var unknownToken: String?
        /// Whether adjacent unknown characters become one token.
        var fusesUnknown = false
        /// Whether unknown characters become the pieces `<0x00>` … `<0xFF>` of their bytes.
        var byteFallback = false
        /// Whether a word in the vocabulary is used as it is, even if no merges produce it.
        var ignoresMerges = false
        /// Prefix of every character of a word but the first.
        var continuingPrefix = ""
        /// Suffix of the last character of a word.
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
    /// Whether no merge crosses the beginning of a word marked by "▁": then a text without a pre-tokenizer can still
    /// be split there.
    private let wordsAreSeparate: Bool
    /// Created for the first long text that can't be split into words; `nil` if its result could differ from merging.
    private let search = OnDemand<BPESearch?>()
    private let states = Pool { State() }

    /// Per-thread working memory.
    private final class State {
        let cache = WordCache()
        let word = MergedWord()
        private(set) lazy var search = BPESearch.State()
    }

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
        wordsAreSeparate =
            !ignoresMerges && prefix.isEmpty && suffix.isEmpty && vocabulary.id(for: BPE.mark) != nil
            && !list.containsMark(within: BPE.mark)
    }

    private static let mark = Array("▁".utf8)

    /// `<0xE2>`
    private static func bytePiece(_ byte: UInt8) -> String {
        let digits = String(byte, radix: 16, uppercase: true)
        return "<0x\(digits.count == 1 ? "0" : "")\(digits)>"
    }

    var vocabularySize: Int { vocabulary.count }
    func piece(for id: Int) -> String? { vocabulary.piece(for: id) }
    func id(for piece: String) -> Int? { vocabulary.id(for: piece.utf8).map { Int($0) } }

    func tokenize(_ text: PreTokenizedText, into ids: inout [Int]) {
        states.with { state in
            text.bytes.withUnsafeBufferPointer { bytes in
                guard let base = bytes.baseAddress else { return }
                for piece in text.pieces {
                    var start = piece.lowerBound
                    while start < piece.upperBound {
                        let end = wordsAreSeparate ? BPE.wordEnd(base, start, piece.upperBound) : piece.upperBound
                        append(base + start, count: end - start, readable: bytes.count - start, state, &ids)
                        start = end
                    }
                }
            }
        }
    }

    /// The position of the next "▁" that follows another character.
    @inline(__always)
    private static func wordEnd(_ bytes: UnsafePointer<UInt8>, _ start: Int, _ end: Int) -> Int {
        func isMark(_ index: Int) -> Bool {
            bytes[index] == 0xE2 && end - index > 2 && bytes[index + 1] == 0x96 && bytes[index + 2] == 0x81
        }
        var index = start
        while index < end, isMark(index) { index += 3 }
        while index < end, !isMark(index) { index += 1 }
        return index
    }

    @inline(__always)
    private func append(
        _ bytes: UnsafePointer<UInt8>, count: Int, readable: Int, _ state: State, _ ids: inout [Int]
    ) {
        if state.cache.find(bytes, count: count, readable: readable, into: &ids) { return }
        appendNew(bytes, count: count, readable: readable, state, &ids)
    }

    @inline(never)
    private func appendNew(
        _ bytes: UnsafePointer<UInt8>, count: Int, readable: Int, _ state: State, _ ids: inout [Int]
    ) {
        let start = ids.count
        let characters = UnsafeBufferPointer(start: bytes, count: count)
        if ignoresMerges, let id = vocabulary.id(for: characters) {
            ids.append(Int(id))
        } else if !wordsAreSeparate, count > BPE.longestMerged, let search = search.value(makeSearch) {
            appendFound(search, characters, state, &ids)
        } else {
            appendMerged(characters, state, &ids)
        }
        state.cache.store(bytes, count: count, readable: readable, ids[start...])
    }

    private func appendMerged(_ text: UnsafeBufferPointer<UInt8>, _ state: State, _ ids: inout [Int]) {
        fill(state.word, text)
        state.word.merge(by: merges)
        for index in 0..<state.word.count { ids.append(Int(state.word.symbols[index])) }
    }

    func place(_ piece: [UInt8]) -> [(id: Int, bytes: Range<Int>)] {
        states.with { state in
            piece.withUnsafeBufferPointer { bytes in
                if ignoresMerges, let id = vocabulary.id(for: bytes) { return [(Int(id), 0..<bytes.count)] }
                var lengths: [Int] = []
                fill(state.word, bytes) { lengths.append($0) }
                let starts = state.word.mergePlaced(by: merges)
                var place = 0
                return starts.indices.map { index in
                    let end = index + 1 < starts.count ? starts[index + 1] : lengths.count
                    let start = place
                    place += lengths[starts[index]..<end].reduce(0, +)
                    return (Int(state.word.symbols[index]), start..<min(place, piece.count))
                }
            }
        }
    }

    /// Sets `word` to the characters of a piece of text.
    /// - Parameter length: called with the length in bytes of each symbol, as the reference counts it: dropped
    ///   characters have none.
    @inline(__always)
    private func fill(
        _ word: MergedWord, _ bytes: UnsafeBufferPointer<UInt8>, length: (Int) -> Void = { _ in }
    ) {
        // Prefixes and suffixes are not symbols, but fall back to bytes together with their character.
        word.clear(room: bytes.count * (1 + prefix.count) + suffix.count)
        var decorated: [UInt8] = []
        var hasUnknown = false
        var unknownLength = 0
        func appendUnknown() {
            guard hasUnknown, let unknownID else { return }
            word.append(Int32(unknownID))
            length(unknownLength)
            unknownLength = 0
        }
        var index = 0
        while index < bytes.count {
            let lead = bytes[index]
            let size = min(lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4, bytes.count - index)
            let isFirst = index == 0
            let isLast = index + size == bytes.count
            let character = UnsafeBufferPointer(rebasing: bytes[index..<index + size])
            index += size
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
                appendUnknown()
                hasUnknown = false
                word.append(known)
                length(size)
                continue
            }
            let fallback = decorated.isEmpty ? Array(character) : decorated
            if !byteIDs.isEmpty, fallback.allSatisfy({ byteIDs[Int($0)] >= 0 }) {
                // As in the reference, a pending unknown character is emitted after these bytes.
                for byte in fallback {
                    word.append(byteIDs[Int(byte)])
                    length(1)
                }
                continue
            }
            guard unknownID != nil else { continue }
            if !fusesUnknown { appendUnknown() }
            hasUnknown = true
            unknownLength += size
        }
        appendUnknown()
    }
}

// MARK: - Long texts

extension BPE {
    /// Longer words, in bytes, are faster to search than to merge.
    private static let longestMerged = 48

    /// `nil` if a character may be dropped, so that its neighbors merge, or may merge although it is not in the
    /// vocabulary.
    private func makeSearch() -> BPESearch? {
        guard prefix.isEmpty, suffix.isEmpty, let unknownID else { return nil }
        let outside = Set(byteIDs + [Int32(unknownID)])
        guard !merges.contains(where: { outside.contains($0) || outside.contains($1) }) else { return nil }
        return BPESearch(vocabulary, merges)
    }

    private func appendFound(
        _ search: BPESearch, _ text: UnsafeBufferPointer<UInt8>, _ state: State, _ ids: inout [Int]
    ) {
        var start = 0
        while start < text.count {
            start += search.append(UnsafeBufferPointer(rebasing: text[start...]), state.search, into: &ids)
            // A character outside the vocabulary doesn't merge.
            var end = start
            while end < text.count {
                let size = min(readScalarLength(text[end]), text.count - end)
                if end > start, vocabulary.id(for: UnsafeBufferPointer(rebasing: text[end..<end + size])) != nil {
                    break
                }
                end += size
            }
            if end > start { appendMerged(UnsafeBufferPointer(rebasing: text[start..<end]), state, &ids) }
            start = end
        }
    }
}

extension BPE {
    /// The model over raw bytes instead of ``ByteCharacters``, which skips that conversion of the text. `nil` if a
    /// byte is not in the vocabulary, or words have prefixes or suffixes.
    func byteLevel() -> ByteLevelBPE? {
        guard prefix.isEmpty, suffix.isEmpty else { return nil }
        let symbols = ByteCharacters.encoded.compactMap { vocabulary.id(for: $0) }
        guard symbols.count == 256 else { return nil }
        return ByteLevelBPE(symbols: symbols, merges: merges, wholeWords: ignoresMerges ? vocabulary : nil)
    }
}
