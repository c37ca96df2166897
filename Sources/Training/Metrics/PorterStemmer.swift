/// The Porter stemmer for lowercase ASCII words (digits count as consonants).
///
/// M. F. Porter, *An algorithm for suffix stripping*, Program 14(3), 1980, with the changes that NLTK makes
/// by default (`NLTK_EXTENSIONS`), because the Python package `rouge_score` stems with those: a table of
/// irregular words, `-ies` and `-ied` in words of four letters, `y` after a consonant, `-alli` first in step
/// 2, `-bli`, `-fulli`, `-logi`, and two-letter stems as *o.
enum PorterStemmer {
    typealias Word = [UInt8]

    static func stem(_ word: Word) -> Word {
        guard word.count > 2 else { return word }
        if let irregular = irregular[word] { return irregular }
        var word = word
        step1a(&word)
        step1b(&word)
        step1c(&word)
        step2(&word)
        apply(step3, to: &word) { _ in 0 }
        step4(&word)
        step5(&word)
        return word
    }

    static func stem(_ word: String) -> String { String(decoding: stem(Word(word.utf8)), as: UTF8.self) }

    private static let irregular: [Word: Word] = {
        let forms = [
            "sky": ["sky", "skies"], "die": ["dying"], "lie": ["lying"], "tie": ["tying"], "news": ["news"],
            "inning": ["inning", "innings"], "outing": ["outing", "outings"], "canning": ["canning", "cannings"],
            "howe": ["howe"], "proceed": ["proceed"], "exceed": ["exceed"], "succeed": ["succeed"],
        ]
        var table: [Word: Word] = [:]
        for (stem, words) in forms { for word in words { table[Word(word.utf8)] = Word(stem.utf8) } }
        return table
    }()

    // MARK: Conditions of the paper

    /// Whether each letter is a consonant: neither a, e, i, o, u nor a `y` that follows a consonant.
    private static func consonants(_ word: ArraySlice<UInt8>) -> [Bool] {
        var flags: [Bool] = []
        flags.reserveCapacity(word.count)
        for letter in word {
            switch letter {
            case UInt8(ascii: "a"), UInt8(ascii: "e"), UInt8(ascii: "i"), UInt8(ascii: "o"), UInt8(ascii: "u"):
                flags.append(false)
            case UInt8(ascii: "y"): flags.append(!(flags.last ?? false))
            default: flags.append(true)
            }
        }
        return flags
    }

    /// m: how many times a vowel is followed by a consonant.
    private static func measure(_ stem: ArraySlice<UInt8>) -> Int {
        let flags = consonants(stem)
        return zip(flags, flags.dropFirst()).count { !$0 && $1 }
    }

    /// *v*
    private static func containsVowel(_ stem: ArraySlice<UInt8>) -> Bool { consonants(stem).contains(false) }

    /// *d
    private static func endsInDoubleConsonant(_ word: Word) -> Bool {
        guard word.count >= 2, word[word.count - 1] == word[word.count - 2] else { return false }
        return consonants(word[...])[word.count - 1]
    }

    /// *o: consonant, vowel, consonant other than w, x, y; or a word of one vowel and one consonant.
    private static func endsInShortSyllable(_ word: ArraySlice<UInt8>) -> Bool {
        let flags = consonants(word)
        guard flags.count >= 3, let last = word.last else { return flags == [false, true] }
        return flags.suffix(3) == [true, false, true]
            && last != UInt8(ascii: "w") && last != UInt8(ascii: "x") && last != UInt8(ascii: "y")
    }

    // MARK: Rules

    /// `suffix → replacement`, to apply where the stem's measure is above a bound.
    private struct Rule {
        let suffix: Word
        let replacement: Word

        init(_ suffix: String, _ replacement: String = "") {
            (self.suffix, self.replacement) = (Word(suffix.utf8), Word(replacement.utf8))
        }
    }

    private static func ends(_ word: Word, in suffix: Word) -> Bool {
        word.count >= suffix.count && word[(word.count - suffix.count)...].elementsEqual(suffix)
    }

    private static func ends(_ word: Word, in suffix: StaticString) -> Bool {
        suffix.withUTF8Buffer { suffix in
            word.count >= suffix.count && word[(word.count - suffix.count)...].elementsEqual(suffix)
        }
    }

    private static func replace(_ count: Int, of word: inout Word, with replacement: Word) {
        word.removeLast(count)
        word.append(contentsOf: replacement)
    }

    /// Applies the first rule whose suffix fits, if its stem's measure exceeds `bound(rule)`. Where it
    /// doesn't, no later rule is tried.
    private static func apply(_ rules: [Rule], to word: inout Word, bound: (Rule) -> Int) {
        guard let rule = rules.first(where: { ends(word, in: $0.suffix) }) else { return }
        guard measure(word.dropLast(rule.suffix.count)) > bound(rule) else { return }
        replace(rule.suffix.count, of: &word, with: rule.replacement)
    }

    // MARK: Steps

    private static func step1a(_ word: inout Word) {
        if ends(word, in: "ies"), word.count == 4 {
            word.removeLast()
        } else if ends(word, in: "sses") || ends(word, in: "ies") {
            word.removeLast(2)
        } else if ends(word, in: "s"), !ends(word, in: "ss") {
            word.removeLast()
        }
    }

    private static func step1b(_ word: inout Word) {
        if ends(word, in: "ied") {
            word.removeLast(word.count == 4 ? 1 : 2)
            return
        }
        if ends(word, in: "eed") {
            if measure(word.dropLast(3)) > 0 { word.removeLast() }
            return
        }
        let removed = ends(word, in: "ed") ? 2 : ends(word, in: "ing") ? 3 : 0
        guard removed > 0, containsVowel(word.dropLast(removed)) else { return }
        word.removeLast(removed)
        if ends(word, in: "at") || ends(word, in: "bl") || ends(word, in: "iz") {
            word.append(UInt8(ascii: "e"))
        } else if endsInDoubleConsonant(word) {
            if !ends(word, in: "l"), !ends(word, in: "s"), !ends(word, in: "z") { word.removeLast() }
        } else if measure(word[...]) == 1, endsInShortSyllable(word[...]) {
            word.append(UInt8(ascii: "e"))
        }
    }

    private static func step1c(_ word: inout Word) {
        guard ends(word, in: "y"), word.count > 2, consonants(word.dropLast()).last == true else { return }
        replace(1, of: &word, with: [UInt8(ascii: "i")])
    }

    private static let step2Rules = [
        Rule("ational", "ate"), Rule("tional", "tion"), Rule("enci", "ence"), Rule("anci", "ance"),
        Rule("izer", "ize"), Rule("bli", "ble"), Rule("alli", "al"), Rule("entli", "ent"), Rule("eli", "e"),
        Rule("ousli", "ous"), Rule("ization", "ize"), Rule("ation", "ate"), Rule("ator", "ate"),
        Rule("alism", "al"), Rule("iveness", "ive"), Rule("fulness", "ful"), Rule("ousness", "ous"),
        Rule("aliti", "al"), Rule("iviti", "ive"), Rule("biliti", "ble"), Rule("fulli", "ful"),
    ]

    private static func step2(_ word: inout Word) {
        // radicalli → radical, and again: nationalli → national → nation …
        while ends(word, in: "alli"), measure(word.dropLast(4)) > 0 { word.removeLast(2) }
        if ends(word, in: "logi") {
            // The l counts to the stem, so that geologi becomes geolog.
            if measure(word.dropLast(3)) > 0 { word.removeLast() }
            return
        }
        apply(step2Rules, to: &word) { _ in 0 }
    }

    private static let step3 = [
        Rule("icate", "ic"), Rule("ative"), Rule("alize", "al"), Rule("iciti", "ic"), Rule("ical", "ic"),
        Rule("ful"), Rule("ness"),
    ]

    private static let step4Rules = [
        "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism",
        "ate", "iti", "ous", "ive", "ize",
    ].map { Rule($0) }

    private static func step4(_ word: inout Word) {
        if ends(word, in: "ion"), !ends(word, in: "sion"), !ends(word, in: "tion") { return }
        apply(step4Rules, to: &word) { _ in 1 }
    }

    private static func step5(_ word: inout Word) {
        if ends(word, in: "e") {
            let m = measure(word.dropLast())
            if m > 1 || (m == 1 && !endsInShortSyllable(word.dropLast())) { word.removeLast() }
        }
        if ends(word, in: "ll"), measure(word.dropLast()) > 1 { word.removeLast() }
    }
}
