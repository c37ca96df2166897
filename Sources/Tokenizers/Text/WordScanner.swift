/// Hand-written scanners for the regular expressions that split text in byte-level tokenizers: these take most of
/// the encoding time, and they depend only on the class of each character.
///
/// - GPT-2: `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
/// - Llama 3 and Qwen 2 match contractions in either case, let a word begin with any one character that is no
///   letter, digit or line break, split digits into threes or ones, and keep line breaks together.
/// - GPT-4o splits words where lowercase letters are followed by uppercase ones, and leaves contractions attached to
///   their words; later Mistral models do so without contractions, and split digits into ones.
///
/// Each of them matches everywhere, so the matches partition the text.
struct WordScanner: Sendable, Equatable {
    private enum Style { case gpt2, llama3, gpt4o, tekken }

    private let style: Style
    /// Maximum digits per match.
    private let longestNumber: Int

    static let gpt2 = WordScanner(style: .gpt2, longestNumber: .max)

    private init(style: Style, longestNumber: Int) {
        self.style = style
        self.longestNumber = longestNumber
    }

    /// The scanner for a regular expression, if it is one of these.
    init?(expression: String) {
        guard let scanner = WordScanner.expressions[expression] else { return nil }
        self = scanner
    }

    private static let expressions: [String: WordScanner] = {
        func llama3(_ number: String) -> String {
            #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"# + number
                + #"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
        }
        func gpt4o(_ suffix: String, _ number: String) -> String {
            #"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"# + suffix
                + #"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"# + suffix
                + "|" + number + #"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
        }
        return [
            #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#: .gpt2,
            llama3(#"\p{N}{1,3}"#): WordScanner(style: .llama3, longestNumber: 3),
            llama3(#"\p{N}"#): WordScanner(style: .llama3, longestNumber: 1),
            // The same with possessive quantifiers, as in tiktoken.
            #"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"#:
                WordScanner(style: .llama3, longestNumber: 3),
            gpt4o("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", #"\p{N}{1,3}"#): WordScanner(style: .gpt4o, longestNumber: 3),
            gpt4o("", #"\p{N}"#): WordScanner(style: .tekken, longestNumber: 1),
        ]
    }()

    /// Character classes, one bit each.
    private enum Kind {
        /// `\p{Lu}`, `\p{Lt}`
        static let upper: UInt8 = 1
        /// `\p{Ll}`
        static let lower: UInt8 = 2
        /// `\p{Lm}`, `\p{Lo}`
        static let caseless: UInt8 = 4
        static let mark: UInt8 = 8
        static let number: UInt8 = 16
        static let space: UInt8 = 32
        static let lineBreak: UInt8 = 64
        static let other: UInt8 = 128

        static let letter = upper | lower | caseless
        static let whiteSpace = space | lineBreak
        /// `[^\s\p{L}\p{N}]`
        static let symbol = mark | other
    }

    private static func kind(of scalar: Unicode.Scalar) -> UInt8 {
        if scalar == "\n" || scalar == "\r" { return Kind.lineBreak }
        if scalar.isWhitespace { return Kind.space }
        switch scalar.properties.generalCategory {
        case .uppercaseLetter, .titlecaseLetter: return scalar.isOf(unicode: 16) ? Kind.upper : Kind.other
        case .lowercaseLetter: return scalar.isOf(unicode: 16) ? Kind.lower : Kind.other
        case .modifierLetter, .otherLetter: return scalar.isOf(unicode: 16) ? Kind.caseless : Kind.other
        case .nonspacingMark, .spacingMark, .enclosingMark: return scalar.isOf(unicode: 16) ? Kind.mark : Kind.other
        default: return scalar.isNumber() ? Kind.number : Kind.other
        }
    }

    static func makeKinds() -> ScalarTable { ScalarTable(kind(of:)) }
    private static let kinds = Pool { makeKinds() }

    /// The words of `bytes[range]`, contiguous.
    func words(in bytes: [UInt8], _ range: Range<Int>) -> [Range<Int>] {
        var words: [Range<Int>] = []
        words.reserveCapacity(range.count / 4 + 1)
        bytes.withUnsafeBufferPointer { buffer in
            guard let base = buffer.baseAddress else { return }
            WordScanner.kinds.with { kinds in
                let text = Text(bytes: base, end: range.upperBound, kinds: kinds)
                var start = range.lowerBound
                while start < range.upperBound {
                    let end = self.end(of: start, in: text)
                    words.append(start..<end)
                    start = end
                }
            }
        }
        return words
    }

    /// Text to scan, and the classes of its characters.
    struct Text {
        let bytes: UnsafePointer<UInt8>
        let end: Int
        private let kinds: ScalarTable
        private let ascii: UnsafePointer<UInt8>

        init(bytes: UnsafePointer<UInt8>, end: Int, kinds: ScalarTable) {
            self.bytes = bytes
            self.end = end
            self.kinds = kinds
            ascii = kinds.ascii
        }

        /// The class of the character at `index` and its length.
        @inline(__always)
        fileprivate func kind(at index: Int) -> (kind: UInt8, length: Int) {
            let byte = bytes[index]
            if byte < 0x80 { return (ascii[Int(byte)], 1) }
            let (value, length) = readScalar(bytes, index)
            return (kinds.property(of: value), length)
        }

        /// The end of the run of characters of some classes that begins at `index`.
        @inline(__always)
        fileprivate func run(of wanted: UInt8, from start: Int, atMost limit: Int = .max) -> Int {
            var index = start
            var count = 0
            while index < end, count < limit {
                let next = kind(at: index)
                if next.kind & wanted == 0 { break }
                index += next.length
                count += 1
            }
            return index
        }

        fileprivate func byte(at index: Int) -> UInt8? { index < end ? bytes[index] : nil }

        /// The end of the whitespace that begins at `start`, where its last character begins, and where its
        /// last line break ends, if it has one.
        fileprivate func whiteSpace(from start: Int) -> (end: Int, last: Int, lineBreak: Int?) {
            var (index, last) = (start, start)
            var lineBreak: Int?
            while index < end {
                let next = kind(at: index)
                guard next.kind & Kind.whiteSpace != 0 else { break }
                last = index
                index += next.length
                if next.kind == Kind.lineBreak { lineBreak = index }
            }
            return (index, last, lineBreak)
        }
    }

    /// The end of the word that begins at `start`, which is before the text's end.
    @inline(__always)
    func end(of start: Int, in text: Text) -> Int {
        switch style {
        case .gpt2: gpt2Word(text, start)
        case .llama3: llama3Word(text, start)
        case .gpt4o, .tekken: gpt4oWord(text, start)
        }
    }

    @inline(__always)
    private func gpt2Word(_ text: Text, _ start: Int) -> Int {
        var first = text.kind(at: start)
        var index = start
        if text.bytes[start] == 0x20, start + 1 < text.end {
            first = text.kind(at: start + 1)
            index = start + 1
            if first.kind & Kind.whiteSpace != 0 { return whiteSpaceBeforeWord(text, start) }
        } else if first.kind & Kind.whiteSpace != 0 {
            return whiteSpaceBeforeWord(text, start)
        } else if text.bytes[start] == UInt8(ascii: "'"), let end = contraction(text, start) {
            return end
        }
        index += first.length
        if first.kind & Kind.letter != 0 { return text.run(of: Kind.letter, from: index) }
        return text.run(of: first.kind == Kind.number ? Kind.number : Kind.symbol, from: index)
    }

    @inline(__always)
    private func llama3Word(_ text: Text, _ start: Int) -> Int {
        if text.bytes[start] == UInt8(ascii: "'"), let end = contraction(text, start) { return end }
        let first = text.kind(at: start)
        if first.kind & Kind.letter != 0 { return text.run(of: Kind.letter, from: start + first.length) }
        if first.kind == Kind.number {
            return text.run(of: Kind.number, from: start + first.length, atMost: longestNumber - 1)
        }
        let behind = start + first.length
        if first.kind != Kind.lineBreak, behind < text.end {
            let second = text.kind(at: behind)
            if second.kind & Kind.letter != 0 { return text.run(of: Kind.letter, from: behind + second.length) }
            if text.bytes[start] == 0x20, second.kind & Kind.symbol != 0 { return symbols(text, behind) }
        }
        if first.kind & Kind.symbol != 0 { return symbols(text, start) }
        if let lineBreak = text.whiteSpace(from: start).lineBreak { return lineBreak }
        return whiteSpaceBeforeWord(text, start)
    }

    @inline(__always)
    private func gpt4oWord(_ text: Text, _ start: Int) -> Int {
        let first = text.kind(at: start)
        if first.kind == Kind.number {
            return text.run(of: Kind.number, from: start + first.length, atMost: longestNumber - 1)
        }
        let behind = start + first.length
        let isPrefix = first.kind & (Kind.letter | Kind.lineBreak) == 0
        // Either alternative first tries with the prefix, then without; without it, only a mark can match.
        if isPrefix, let end = endingSmall(text, behind) { return end }
        if !isPrefix || first.kind == Kind.mark, let end = endingSmall(text, start) { return end }
        if isPrefix, let end = capitals(text, behind) { return end }
        if first.kind & Kind.letter != 0, let end = capitals(text, start) { return end }
        if text.bytes[start] == 0x20, behind < text.end, text.kind(at: behind).kind & Kind.symbol != 0 {
            return symbols(text, behind)
        }
        if first.kind & Kind.symbol != 0 { return symbols(text, start) }
        if let lineBreak = text.whiteSpace(from: start).lineBreak { return lineBreak }
        return whiteSpaceBeforeWord(text, start)
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+` and a contraction.
    @inline(__always)
    private func endingSmall(_ text: Text, _ start: Int) -> Int? {
        var index = start
        /// After the last character that is in both classes: how far the first one backtracks.
        var shared: Int?
        while index < text.end {
            let next = text.kind(at: index)
            guard next.kind & (Kind.upper | Kind.caseless | Kind.mark) != 0 else { break }
            index += next.length
            if next.kind != Kind.upper { shared = index }
        }
        let end = text.run(of: Kind.lower | Kind.caseless | Kind.mark, from: index)
        return end > index ? withContraction(text, end) : shared.map { withContraction(text, $0) }
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+` and a contraction, if no lowercase letter follows.
    private func capitals(_ text: Text, _ start: Int) -> Int? {
        let end = text.run(of: Kind.upper | Kind.caseless | Kind.mark, from: start)
        return end > start ? withContraction(text, end) : nil
    }

    /// The end of a contraction that follows a word ending at `end`, or `end`.
    private func withContraction(_ text: Text, _ end: Int) -> Int {
        style == .gpt4o ? contraction(text, end) ?? end : end
    }

    /// `[^\s\p{L}\p{N}]+[\r\n]*`; GPT-4o's counts slashes as line breaks.
    private func symbols(_ text: Text, _ start: Int) -> Int {
        var index = text.run(of: Kind.symbol, from: start)
        while let byte = text.byte(at: index) {
            guard byte == 0x0A || byte == 0x0D || byte == 0x2F && style != .llama3 else { break }
            index += 1
        }
        return index
    }

    /// `\s+(?!\S)|\s+`: the last space before a word is left for that word.
    private func whiteSpaceBeforeWord(_ text: Text, _ start: Int) -> Int {
        let space = text.whiteSpace(from: start)
        return space.end == text.end || space.last == start ? space.end : space.last
    }

    /// The end of a contraction such as `'s` at `start`.
    private func contraction(_ text: Text, _ start: Int) -> Int? {
        guard text.byte(at: start) == UInt8(ascii: "'") else { return nil }
        /// Lowercased if case is ignored.
        func letter(_ index: Int) -> UInt8? {
            guard let byte = text.byte(at: index) else { return nil }
            return style != .gpt2 && 0x41...0x5A ~= byte ? byte | 0x20 : byte
        }
        guard let first = letter(start + 1) else { return nil }
        switch first {
        case UInt8(ascii: "s"), UInt8(ascii: "t"), UInt8(ascii: "m"), UInt8(ascii: "d"): return start + 2
        case UInt8(ascii: "r"), UInt8(ascii: "v"): return letter(start + 2) == UInt8(ascii: "e") ? start + 3 : nil
        case UInt8(ascii: "l"): return letter(start + 2) == first ? start + 3 : nil
        // U+017F, long s, matches s if case is ignored.
        case 0xC5 where style != .gpt2 && text.byte(at: start + 2) == 0xBF: return start + 3
        default: return nil
        }
    }
}
