/// The words that NIST, CIDEr and METEOR compare: lowercased `13a` tokens, with ids in order of first use.
struct WordTokenizer {
    private var table = TokenTable()
    /// Words by id.
    private(set) var words: [String] = []

    mutating func tokens(of text: String) -> [Int32] {
        BLEUTokenizer.tokens(of: text.lowercased()).map { token in
            let word = String(String.UnicodeScalarView(token))
            let id = table.id(of: Array(word.utf8))
            if Int(id) == words.count { words.append(word) }
            return id
        }
    }
}

/// An n-gram of word ids.
struct WordNGram: Hashable {
    let words: ArraySlice<Int32>

    var order: Int { words.count }
    /// Without its last word.
    var beginning: WordNGram { WordNGram(words: words.dropLast()) }

    static func == (a: Self, b: Self) -> Bool { a.words.elementsEqual(b.words) }
    func hash(into hasher: inout Hasher) {
        hasher.combine(words.count)
        for word in words { hasher.combine(word) }
    }

    /// Counts of the n-grams of 1 … `longest` words.
    static func counts(_ tokens: [Int32], longest: Int) -> [WordNGram: Int] {
        var counts: [WordNGram: Int] = [:]
        counts.reserveCapacity(tokens.count * longest)
        for start in tokens.indices {
            for end in (start + 1)...min(start + longest, tokens.count) where end > start {
                counts[WordNGram(words: tokens[start..<end]), default: 0] += 1
            }
        }
        return counts
    }
}
