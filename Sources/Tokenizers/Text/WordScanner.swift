/// The expressions with which byte-level tokenizers cut text into words, run by hand: they take most of the time
/// of encoding, and they look at a class of each character only.
///
/// - GPT-2: `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
/// - Llama 3 and Qwen 2 match contractions in either case, let a word begin with any one character that is no
///   letter, digit or line break, cut digits into threes or ones, and keep line breaks together.
///
/// Each of them matches everywhere, so a text falls into its matches.
struct WordScanner: Sendable, Equatable {
    /// Whether it is one of the newer expressions.
    private let isModern: Bool
    /// How many digits a match holds.
    private let longestNumber: Int

    static let gpt2 = WordScanner(isModern: false, longestNumber: .max)

    private init(isModern: Bool, longestNumber: Int) {
        self.isModern = isModern
        self.longestNumber = longestNumber
    }

    private static let gpt2Expression = #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#
    private static func modernExpression(_ number: String) -> String {
        #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"# + number
            + #"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
    }

    /// The scanner for an expression, if it is one of these.
    init?(expression: String) {
        switch expression {
        case WordScanner.gpt2Expression: self = .gpt2
        case WordScanner.modernExpression(#"\p{N}{1,3}"#): self.init(isModern: true, longestNumber: 3)
        case WordScanner.modernExpression(#"\p{N}"#): self.init(isModern: true, longestNumber: 1)
        default: return nil
        }
    }

    private enum Kind: UInt8 {
        case letter, number, space, lineBreak, other
    }

    private static let asciiKinds: [Kind] = (UInt8(0)..<128).map { byte in
        switch byte {
        case 0x41...0x5A, 0x61...0x7A: .letter
        case 0x30...0x39: .number
        case 0x0A, 0x0D: .lineBreak
        case 0x09...0x0D, 0x20: .space
        default: .other
        }
    }

    private static func kind(of scalar: Unicode.Scalar) -> Kind {
        if scalar.isWhitespace { return .space }
        if scalar.isLetter { return .letter }
        return scalar.isNumber() ? .number : .other
    }

    /// The words of `bytes[range]`, end to end.
    func words(in bytes: [UInt8], _ range: Range<Int>) -> [Range<Int>] {
        var words: [Range<Int>] = []
        words.reserveCapacity(range.count / 4 + 1)
        var cursor = Cursor(bytes: bytes, end: range.upperBound, kinds: WordScanner.asciiKinds)
        var start = range.lowerBound
        while start < range.upperBound {
            let end = isModern ? modernWord(&cursor, start) : gpt2Word(&cursor, start)
            words.append(start..<end)
            start = end
        }
        return words
    }

    /// Reads classes of characters from one text.
    private struct Cursor {
        let bytes: [UInt8]
        let end: Int
        let kinds: [Kind]

        /// The class of the character at `index` and its length.
        @inline(__always)
        func kind(at index: Int) -> (kind: Kind, length: Int) {
            if bytes[index] < 0x80 { return (kinds[Int(bytes[index])], 1) }
            let (scalar, length) = bytes.scalar(at: index)
            return (WordScanner.kind(of: scalar), length)
        }

        /// The end of the run of one class that begins at `index`.
        func run(of kind: Kind, from index: Int, atMost limit: Int = .max) -> Int {
            var index = index
            var count = 0
            while index < end, count < limit {
                let next = self.kind(at: index)
                guard next.kind == kind else { break }
                index += next.length
                count += 1
            }
            return index
        }

        func byte(at index: Int) -> UInt8? { index < end ? bytes[index] : nil }

        /// The end of the white space that begins at `start`, where its last character begins, and where its
        /// last line break ends, if it has one.
        func whiteSpace(from start: Int) -> (end: Int, last: Int, lineBreak: Int?) {
            var (index, last) = (start, start)
            var lineBreak: Int?
            while index < end {
                let next = kind(at: index)
                guard next.kind == .space || next.kind == .lineBreak else { break }
                last = index
                index += next.length
                if next.kind == .lineBreak { lineBreak = index }
            }
            return (index, last, lineBreak)
        }
    }

    private func gpt2Word(_ cursor: inout Cursor, _ start: Int) -> Int {
        if let end = contraction(cursor, start) { return end }
        let first = cursor.kind(at: start)
        if first.kind != .space, first.kind != .lineBreak { return cursor.run(of: first.kind, from: start) }
        if cursor.bytes[start] == 0x20, start + 1 < cursor.end {
            let second = cursor.kind(at: start + 1)
            if second.kind != .space, second.kind != .lineBreak {
                return cursor.run(of: second.kind, from: start + 1)
            }
        }
        return whiteSpaceBeforeWord(cursor, start)
    }

    private func modernWord(_ cursor: inout Cursor, _ start: Int) -> Int {
        if let end = contraction(cursor, start) { return end }
        let first = cursor.kind(at: start)
        switch first.kind {
        case .letter: return cursor.run(of: .letter, from: start)
        case .number: return cursor.run(of: .number, from: start, atMost: longestNumber)
        case .space, .other:
            let behind = start + first.length
            guard behind < cursor.end else { break }
            let second = cursor.kind(at: behind).kind
            if second == .letter { return cursor.run(of: .letter, from: behind) }
            if first.kind == .space, cursor.bytes[start] == 0x20, second == .other { return symbols(cursor, behind) }
        case .lineBreak: break
        }
        if first.kind == .other { return symbols(cursor, start) }
        if let lineBreak = cursor.whiteSpace(from: start).lineBreak { return lineBreak }
        return whiteSpaceBeforeWord(cursor, start)
    }

    /// `[^\s\p{L}\p{N}]+[\r\n]*`
    private func symbols(_ cursor: Cursor, _ start: Int) -> Int {
        cursor.run(of: .lineBreak, from: cursor.run(of: .other, from: start))
    }

    /// `\s+(?!\S)|\s+`: the last space before a word is left to it.
    private func whiteSpaceBeforeWord(_ cursor: Cursor, _ start: Int) -> Int {
        let space = cursor.whiteSpace(from: start)
        return space.end == cursor.end || space.last == start ? space.end : space.last
    }

    /// The end of `'s` and its like at `start`.
    private func contraction(_ cursor: Cursor, _ start: Int) -> Int? {
        guard cursor.bytes[start] == UInt8(ascii: "'") else { return nil }
        /// In lower case if that doesn't matter.
        func letter(_ index: Int) -> UInt8? {
            guard let byte = cursor.byte(at: index) else { return nil }
            return isModern && 0x41...0x5A ~= byte ? byte | 0x20 : byte
        }
        guard let first = letter(start + 1) else { return nil }
        switch first {
        case UInt8(ascii: "s"), UInt8(ascii: "t"), UInt8(ascii: "m"), UInt8(ascii: "d"): return start + 2
        case UInt8(ascii: "r"), UInt8(ascii: "v"): return letter(start + 2) == UInt8(ascii: "e") ? start + 3 : nil
        case UInt8(ascii: "l"): return letter(start + 2) == first ? start + 3 : nil
        // U+017F, a long s, is an s without regard to case.
        case 0xC5 where isModern && cursor.byte(at: start + 2) == 0xBF: return start + 3
        default: return nil
        }
    }
}
