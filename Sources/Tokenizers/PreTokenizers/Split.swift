/// What happens to the matches of a pre-tokenizer's delimiter.
enum SplitBehavior: String, Sendable {
    /// They are dropped.
    case removed = "Removed"
    /// Each is a piece.
    case isolated = "Isolated"
    /// Each is appended to the piece before it.
    case mergedWithPrevious = "MergedWithPrevious"
    /// Each is prepended to the piece after it.
    case mergedWithNext = "MergedWithNext"
    /// Adjacent ones become one piece.
    case contiguous = "Contiguous"

    init(_ fields: StageFields, default fallback: SplitBehavior? = nil) throws {
        guard let name = fields.values["behavior"], name != .null else {
            guard let fallback else { throw fields.malformed("behavior is missing") }
            self = fallback
            return
        }
        guard let behavior = name.string.flatMap(SplitBehavior.init) else {
            throw fields.malformed(
                "behavior must be Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous")
        }
        self = behavior
    }
}

/// Splits at the matches of a pattern.
struct Split: PreTokenizer {
    let pattern: TextPattern
    let behavior: SplitBehavior
    /// Whether to split at the text between matches instead.
    let isInverted: Bool

    init(_ fields: StageFields) throws {
        pattern = try TextPattern(fields.object("pattern"))
        behavior = try SplitBehavior(fields)
        isInverted = try fields.bool("invert", default: false)
    }

    /// The scanner whose words are the pieces, if it is equivalent.
    var words: WordScanner? {
        if case .words(let scanner) = pattern, behavior == .isolated, !isInverted { scanner } else { nil }
    }

    func split(_ text: inout PreTokenizedText) {
        text.split(behavior, isInverted: isInverted) { bytes, piece in
            // Lookaround sees the piece only, not the text around it.
            if piece.count == bytes.count { return pattern.matches(in: bytes) }
            return pattern.matches(in: Array(bytes[piece])).map {
                $0.lowerBound + piece.lowerBound..<$0.upperBound + piece.lowerBound
            }
        }
    }
}

/// Splits at characters of a class, each a match of its own.
struct CharacterSplit: PreTokenizer {
    let behavior: SplitBehavior
    let isMatch: @Sendable (Unicode.Scalar) -> Bool

    /// Digits and other numbers.
    static func digits(_ fields: StageFields) throws -> CharacterSplit {
        let areAlone = try fields.bool("individual_digits", default: false)
        return CharacterSplit(behavior: areAlone ? .isolated : .contiguous) { $0.isNumber(unicode: 17) }
    }

    static func punctuation(_ fields: StageFields) throws -> CharacterSplit {
        CharacterSplit(behavior: try SplitBehavior(fields, default: .isolated)) { $0.isPunctuation }
    }

    static func delimiter(_ fields: StageFields) throws -> CharacterSplit {
        let delimiter = try fields.scalar("delimiter")
        return CharacterSplit(behavior: .removed) { $0 == delimiter }
    }

    func split(_ text: inout PreTokenizedText) {
        text.split(behavior, isInverted: false) { bytes, piece in
            var matches: [Range<Int>] = []
            var index = piece.lowerBound
            while index < piece.upperBound {
                let (scalar, length) = bytes.scalar(at: index)
                if isMatch(scalar) { matches.append(index..<index + length) }
                index += length
            }
            return matches
        }
    }
}

/// Splits at whitespace, which is dropped, and makes every punctuation mark a piece.
struct BertPreTokenizer: PreTokenizer {
    private enum Kind: UInt8 { case word, space, mark }

    private static let ascii: [Kind] = (UInt8(0)..<128).map { kind(of: Unicode.Scalar($0)) }

    private static func kind(of scalar: Unicode.Scalar) -> Kind {
        scalar.isWhitespace ? .space : scalar.isPunctuation ? .mark : .word
    }

    func split(_ text: inout PreTokenizedText) {
        var result: [Range<Int>] = []
        result.reserveCapacity(text.bytes.count / 4 + 1)
        let ascii = BertPreTokenizer.ascii
        for piece in text.pieces {
            /// The start of the current word.
            var start = piece.lowerBound
            var index = start
            while index < piece.upperBound {
                var kind: Kind
                var length = 1
                if text.bytes[index] < 0x80 {
                    kind = ascii[Int(text.bytes[index])]
                } else {
                    let (scalar, count) = text.bytes.scalar(at: index)
                    (kind, length) = (BertPreTokenizer.kind(of: scalar), count)
                }
                let end = index + length
                if kind != .word {
                    if start < index { result.append(start..<index) }
                    if kind == .mark { result.append(index..<end) }
                    start = end
                }
                index = end
            }
            if start < index { result.append(start..<index) }
        }
        if result.first?.lowerBound != text.pieces.first?.lowerBound { text.startsText = false }
        text.pieces = result
    }
}

extension PreTokenizedText {
    /// Splits every piece at its matches.
    /// - Parameter matches: the matches in a piece of `bytes`, in order.
    mutating func split(
        _ behavior: SplitBehavior, isInverted: Bool, at matches: (_ bytes: [UInt8], Range<Int>) -> [Range<Int>]
    ) {
        var result: [Range<Int>] = []
        var parts: [(range: Range<Int>, isMatch: Bool)] = []
        for piece in pieces {
            parts.removeAll(keepingCapacity: true)
            var index = piece.lowerBound
            for match in matches(bytes, piece) {
                if index < match.lowerBound { parts.append((index..<match.lowerBound, isInverted)) }
                parts.append((match, !isInverted))
                index = match.upperBound
            }
            if index < piece.upperBound { parts.append((index..<piece.upperBound, isInverted)) }
            PreTokenizedText.append(parts, behavior, to: &result)
        }
        if result.first?.lowerBound != pieces.first?.lowerBound { startsText = false }
        pieces = result
    }

    private static func append(
        _ parts: [(range: Range<Int>, isMatch: Bool)], _ behavior: SplitBehavior, to result: inout [Range<Int>]
    ) {
        var merged: [Range<Int>] = []
        switch behavior {
        case .isolated: merged = parts.map(\.range)
        case .removed: merged = parts.filter { !$0.isMatch }.map(\.range)
        case .contiguous:
            var wasMatch = false
            for part in parts {
                if part.isMatch == wasMatch, let last = merged.popLast() {
                    merged.append(last.lowerBound..<part.range.upperBound)
                } else {
                    merged.append(part.range)
                }
                wasMatch = part.isMatch
            }
        case .mergedWithPrevious:
            var wasMatch = false
            for part in parts {
                if part.isMatch, !wasMatch, let last = merged.popLast() {
                    merged.append(last.lowerBound..<part.range.upperBound)
                } else {
                    merged.append(part.range)
                }
                wasMatch = part.isMatch
            }
        case .mergedWithNext:
            var wasMatch = false
            for part in parts.reversed() {
                if part.isMatch, !wasMatch, let last = merged.popLast() {
                    merged.append(part.range.lowerBound..<last.upperBound)
                } else {
                    merged.append(part.range)
                }
                wasMatch = part.isMatch
            }
            merged.reverse()
        }
        result.append(contentsOf: merged.lazy.filter { !$0.isEmpty })
    }
}
