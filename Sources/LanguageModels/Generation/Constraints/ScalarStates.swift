/// A place in a JSON number of at most 18 digits before the exponent, and at most two in it.
struct NumberState {
    private enum Part: Int {
        case start, sign, zero, integer, point, fraction, mark, exponentSign, exponent
    }

    private var part: Part
    /// Digits so far; in the exponent those of the exponent.
    private var digits: Int

    static let start = NumberState(part: .start, digits: 0)
    private static let mostDigits = 18

    private init(part: Part, digits: Int) { (self.part, self.digits) = (part, digits) }

    init(code: Int) { self.init(part: Part(rawValue: code >> 8) ?? .start, digits: code & 0xFF) }

    var code: Int { part.rawValue << 8 | digits }

    var isComplete: Bool { part == .zero || part == .integer || part == .fraction || part == .exponent }

    func next(_ byte: UInt8) -> NumberState? {
        let isFull = digits >= Self.mostDigits
        switch (part, byte) {
        case (.start, UInt8(ascii: "-")): return NumberState(part: .sign, digits: 0)
        case (.start, 0x30), (.sign, 0x30): return NumberState(part: .zero, digits: 1)
        case (.start, 0x31...0x39), (.sign, 0x31...0x39): return NumberState(part: .integer, digits: 1)
        case (.integer, 0x30...0x39): return isFull ? nil : NumberState(part: .integer, digits: digits + 1)
        case (.zero, UInt8(ascii: ".")), (.integer, UInt8(ascii: ".")):
            return isFull ? nil : NumberState(part: .point, digits: digits)
        case (.point, 0x30...0x39), (.fraction, 0x30...0x39):
            return isFull ? nil : NumberState(part: .fraction, digits: digits + 1)
        case (.zero, 0x45), (.zero, 0x65), (.integer, 0x45), (.integer, 0x65), (.fraction, 0x45), (.fraction, 0x65):
            return NumberState(part: .mark, digits: 0)
        case (.mark, UInt8(ascii: "+")), (.mark, UInt8(ascii: "-")):
            return NumberState(part: .exponentSign, digits: 0)
        case (.mark, 0x30...0x39), (.exponentSign, 0x30...0x39): return NumberState(part: .exponent, digits: 1)
        case (.exponent, 0x30...0x39): return digits >= 2 ? nil : NumberState(part: .exponent, digits: 2)
        default: return nil
        }
    }
}

/// A place in a JSON string after its opening quote.
struct StringState {
    enum Outcome { case rejected, open, ended }

    /// The state of the rule's automaton, or the length so far as far as it matters.
    private(set) var place: Int
    /// The place in a character of several bytes; 0 between characters.
    private(set) var partial: Int

    init(place: Int, partial: Int) { (self.place, self.partial) = (place, partial) }

    /// `partial` is a tag, and below it what is known of the character.
    private enum Tag: Int {
        case none
        /// Bits so far ≪ 8 | bytes of the character ≪ 4 | bytes that follow.
        case bytes
        /// Bytes that follow, if every character that may come leads to the same place: place ≪ 4 | bytes.
        case certain
        case backslash
        /// Value so far ≪ 4 | hexadecimal digits that follow, of a character of four digits.
        case hexadecimal
        /// A high surrogate that a low one must follow: its lower bits.
        case pair, pairEscape
        /// Lower bits of the high surrogate ≪ 20 | value so far ≪ 4 | digits that follow.
        case low
    }

    private static let tagShift = 40

    private mutating func set(_ tag: Tag, _ value: Int) { partial = tag.rawValue << Self.tagShift | value }

    mutating func advance(_ byte: UInt8, _ rule: Grammar.StringRule) -> Outcome {
        let tag = Tag(rawValue: partial >> Self.tagShift) ?? .none
        let value = partial & (1 << Self.tagShift - 1)
        switch tag {
        case .none: return begin(byte, rule)
        case .bytes:
            guard byte & 0xC0 == 0x80 else { return .rejected }
            return read(
                bits: (value >> 8) << 6 | Int(byte & 0x3F), length: value >> 4 & 0xF, left: value & 0xF - 1, rule)
        case .certain:
            guard byte & 0xC0 == 0x80 else { return .rejected }
            guard value & 0xF > 1 else {
                (place, partial) = (value >> 4, 0)
                return .open
            }
            set(.certain, value - 1)
            return .open
        case .backslash: return escape(byte, rule)
        case .hexadecimal: return hexadecimal(byte, value >> 4, value & 0xF - 1, rule)
        case .pair:
            guard byte == UInt8(ascii: "\\") else { return .rejected }
            set(.pairEscape, value)
            return .open
        case .pairEscape:
            guard byte == UInt8(ascii: "u") else { return .rejected }
            set(.low, value << 20 | 4)
            return .open
        case .low: return low(byte, high: value >> 20, bits: value >> 4 & 0xFFFF, left: value & 0xF - 1, rule)
        }
    }

    // MARK: Places

    private func meets(_ range: ClosedRange<UInt32>, _ rule: Grammar.StringRule) -> Bool {
        if let automaton = rule.automaton { return automaton.meets(place, range) }
        return rule.most.map { place < $0 } ?? true
    }

    /// The place after any character of the range, if it is the same.
    private func uniform(_ range: ClosedRange<UInt32>, _ rule: Grammar.StringRule) -> Int? {
        if let automaton = rule.automaton { return automaton.uniform(place, range) }
        return meets(range, rule) ? longer(rule) : nil
    }

    private func longer(_ rule: Grammar.StringRule) -> Int { min(place + 1, rule.most ?? rule.least) }

    private mutating func append(_ scalar: UInt32, _ rule: Grammar.StringRule) -> Outcome {
        if let automaton = rule.automaton {
            guard let next = automaton.next(place, scalar) else { return .rejected }
            place = next
        } else {
            guard meets(scalar...scalar, rule) else { return .rejected }
            place = longer(rule)
        }
        partial = 0
        return .open
    }

    // MARK: Characters

    private mutating func begin(_ byte: UInt8, _ rule: Grammar.StringRule) -> Outcome {
        switch byte {
        case UInt8(ascii: "\""):
            let isAccepted = rule.automaton.map { $0.accepts[place] } ?? (place >= rule.least)
            return isAccepted ? .ended : .rejected
        case UInt8(ascii: "\\"):
            guard meets(0...0x10FFFF, rule) else { return .rejected }
            set(.backslash, 0)
            return .open
        case 0x20...0x7F: return append(UInt32(byte), rule)
        case 0xC2...0xDF: return read(bits: Int(byte & 0x1F), length: 2, left: 1, rule)
        case 0xE0...0xEF: return read(bits: Int(byte & 0x0F), length: 3, left: 2, rule)
        case 0xF0...0xF4: return read(bits: Int(byte & 0x07), length: 4, left: 3, rule)
        default: return .rejected
        }
    }

    /// UTF-8, as far as a character that may come begins with these bits.
    private mutating func read(bits: Int, length: Int, left: Int, _ rule: Grammar.StringRule) -> Outcome {
        if left == 0 { return append(UInt32(bits), rule) }
        let (first, last) = (bits << (6 * left), (bits + 1) << (6 * left) - 1)
        let least = length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000
        var (low, high) = (max(first, least), min(last, 0x10FFFF))
        // Surrogates are no characters.
        if low >= 0xD800, low <= 0xDFFF { low = 0xE000 }
        if high >= 0xD800, high <= 0xDFFF { high = 0xD7FF }
        guard low <= high, meets(UInt32(low)...UInt32(high), rule) else { return .rejected }
        if low == first, high == last, let target = uniform(UInt32(low)...UInt32(high), rule) {
            set(.certain, target << 4 | left)
        } else {
            set(.bytes, bits << 8 | length << 4 | left)
        }
        return .open
    }

    private mutating func escape(_ byte: UInt8, _ rule: Grammar.StringRule) -> Outcome {
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return append(UInt32(byte), rule)
        case UInt8(ascii: "b"): return append(0x08, rule)
        case UInt8(ascii: "f"): return append(0x0C, rule)
        case UInt8(ascii: "n"): return append(0x0A, rule)
        case UInt8(ascii: "r"): return append(0x0D, rule)
        case UInt8(ascii: "t"): return append(0x09, rule)
        case UInt8(ascii: "u"):
            set(.hexadecimal, 4)
            return .open
        default: return .rejected
        }
    }

    private static func digit(_ byte: UInt8) -> Int? {
        switch byte {
        case 0x30...0x39: Int(byte - 0x30)
        case 0x41...0x46: Int(byte - 0x37)
        case 0x61...0x66: Int(byte - 0x57)
        default: nil
        }
    }

    private mutating func hexadecimal(_ byte: UInt8, _ before: Int, _ left: Int, _ rule: Grammar.StringRule)
        -> Outcome
    {
        guard let digit = Self.digit(byte) else { return .rejected }
        let bits = before << 4 | digit
        guard left == 0 else {
            let range = (bits << (4 * left))...((bits + 1) << (4 * left) - 1)
            // The characters that such an escape can begin: itself, or a pair of surrogates.
            let plain = [range.clamped(to: 0...0xD7FF), range.clamped(to: 0xE000...0xFFFF)].contains { part in
                range.overlaps(part) && meets(UInt32(part.lowerBound)...UInt32(part.upperBound), rule)
            }
            let high = range.overlaps(0xD800...0xDBFF) ? range.clamped(to: 0xD800...0xDBFF) : nil
            guard plain || high.map({ meets(Self.pairs($0), rule) }) ?? false else { return .rejected }
            set(.hexadecimal, bits << 4 | left)
            return .open
        }
        if 0xD800...0xDBFF ~= bits {
            guard meets(Self.pairs(bits...bits), rule) else { return .rejected }
            set(.pair, bits - 0xD800)
            return .open
        }
        guard !(0xDC00...0xDFFF ~= bits) else { return .rejected }
        return append(UInt32(bits), rule)
    }

    /// The characters whose pairs begin with these high surrogates.
    private static func pairs(_ high: ClosedRange<Int>) -> ClosedRange<UInt32> {
        UInt32(
            0x10000 + (high.lowerBound - 0xD800) << 10)...UInt32(0x10000 + (high.upperBound - 0xD800) << 10 + 0x3FF)
    }

    private mutating func low(_ byte: UInt8, high: Int, bits before: Int, left: Int, _ rule: Grammar.StringRule)
        -> Outcome
    {
        guard let digit = Self.digit(byte) else { return .rejected }
        let bits = before << 4 | digit
        let range = (bits << (4 * left))...((bits + 1) << (4 * left) - 1)
        guard range.overlaps(0xDC00...0xDFFF) else { return .rejected }
        let part = range.clamped(to: 0xDC00...0xDFFF)
        let base = 0x10000 + high << 10 - 0xDC00
        guard meets(UInt32(base + part.lowerBound)...UInt32(base + part.upperBound), rule) else { return .rejected }
        if left == 0 { return append(UInt32(base + bits), rule) }
        set(.low, high << 20 | bits << 4 | left)
        return .open
    }
}
