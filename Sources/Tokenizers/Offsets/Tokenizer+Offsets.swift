/// How offsets leave out the spaces that byte-level tokens begin and end with (`trim_offsets`).
struct OffsetTrimming: Equatable, Sendable {
    /// Whether a space in front of the text is one that the tokenizer put there, so that nothing is left out for it.
    let addsPrefixSpace: Bool

    /// - Returns: `nil` where the file wants offsets as they are.
    init?(_ fields: StageFields) throws {
        guard try fields.bool("trim_offsets", default: true) else { return nil }
        addsPrefixSpace = try fields.bool("add_prefix_space", default: true)
    }

    /// How many scalars a token loses at its beginning and its end.
    func trimmed(_ token: String, isFirst: Bool) -> (start: Int, end: Int) {
        func isSpace(_ scalar: Unicode.Scalar) -> Bool { scalar == "\u{120}" || scalar.isWhitespace }
        let scalars = Array(token.unicodeScalars)
        let leading = scalars.prefix(while: isSpace).count
        let trailing = scalars.reversed().prefix(while: isSpace).count
        // Of several spaces none was added.
        return (isFirst && addsPrefixSpace && leading == 1 ? 0 : leading, trailing)
    }
}

extension Tokenizer {
    /// The ids of a text without anything around it, each with its place there. Slower than ``ids(of:)``: every stage keeps
    /// track of what each character comes from.
    /// - Parameter isFirst: whether these are the first tokens of what is encoded.
    func placed(_ text: String, isFirst: Bool = true) -> Part {
        let bytes = Array(text.utf8)
        var tokens: [PlacedToken] = []
        for segment in added.segments(of: bytes) {
            switch segment {
            case .token(let id, let range):
                tokens.append(PlacedToken(id: id, bytes: range, added: bytes[range]))
            case .text(let range):
                var aligned = AlignedText(bytes[range], base: range.lowerBound)
                normalizer?.align(&aligned)
                place(aligned.bytes, aligned.byteOrigins, into: &tokens)
            }
        }
        let map = ScalarMap(bytes)
        var part = Part(ids: tokens.map(\.id))
        part.places = tokens.enumerated().map { index, token in
            let scalars = map.scalars(of: token.bytes)
            guard let trimming = postProcessor?.trimming, let piece = token.added ?? self.token(for: token.id) else {
                return (scalars, token.bytes)
            }
            let isStart = isFirst && index == 0 || scalars.lowerBound == 0
            let (start, end) = trimming.trimmed(piece, isFirst: isStart)
            guard start > 0 || end > 0 else { return (scalars, token.bytes) }
            let trimmed = Self.trim(scalars, start, end)
            return (trimmed, map.bytes(of: trimmed))
        }
        return part
    }

    private static func trim(_ range: Range<Int>, _ start: Int, _ end: Int) -> Range<Int> {
        let lower = min(range.lowerBound + start, range.upperBound)
        return lower..<(range.upperBound >= end ? max(range.upperBound - end, lower) : range.upperBound)
    }

    private struct PlacedToken {
        let id: Int
        let bytes: Range<Int>
        /// What an added token was found as, with the whitespace that it takes.
        let added: String?

        init(id: Int, bytes: Range<Int>, added: ArraySlice<UInt8>? = nil) {
            (self.id, self.bytes) = (id, bytes)
            self.added = added.map { String(decoding: $0, as: UTF8.self) }
        }
    }

    private func place(_ bytes: [UInt8], _ origins: [Range<Int>], into tokens: inout [PlacedToken]) {
        func origin(_ range: Range<Int>, _ origins: [Range<Int>]) -> Range<Int> {
            guard let last = range.last, last < origins.count else {
                let end = origins.last?.upperBound ?? 0
                return end..<end
            }
            let start = origins[range.lowerBound].lowerBound
            return start..<max(start, origins[last].upperBound)
        }
        for segment in added.segments(ofNormalized: bytes) {
            switch segment {
            case .token(let id, let range):
                tokens.append(PlacedToken(id: id, bytes: origin(range, origins), added: bytes[range]))
            case .text(let range):
                var pieces = PreTokenizedText(
                    Array(bytes[range]), startsText: origins[range.lowerBound].lowerBound == 0,
                    origins: Array(origins[range]))
                preTokenizer?.split(&pieces)
                let own = pieces.origins ?? []
                for piece in pieces.pieces {
                    for (id, part) in model.place(Array(pieces.bytes[piece])) {
                        let range = part.lowerBound + piece.lowerBound..<part.upperBound + piece.lowerBound
                        tokens.append(PlacedToken(id: id, bytes: origin(range, own)))
                    }
                }
            }
        }
    }
}

/// From bytes to scalars of a text and back.
private struct ScalarMap {
    /// Where each scalar begins, and the end; `nil` for ASCII, where every byte is one.
    private let starts: [Int]?
    /// The number of each byte's scalar, and that of the end.
    private let numbers: [Int]

    init(_ bytes: [UInt8]) {
        guard bytes.contains(where: { $0 >= 0x80 }) else {
            (starts, numbers) = (nil, [])
            return
        }
        var starts: [Int] = []
        numbers =
            bytes.indices.map { index in
                if bytes[index] & 0xC0 != 0x80 { starts.append(index) }
                return starts.count - 1
            } + [bytes.count { $0 & 0xC0 != 0x80 }]
        self.starts = starts + [bytes.count]
    }

    func scalars(of bytes: Range<Int>) -> Range<Int> {
        guard starts != nil else { return bytes }
        let last = numbers.count - 1
        return numbers[min(bytes.lowerBound, last)]..<numbers[min(bytes.upperBound, last)]
    }

    func bytes(of scalars: Range<Int>) -> Range<Int> {
        guard let starts else { return scalars }
        let last = starts.count - 1
        return starts[min(scalars.lowerBound, last)]..<starts[min(scalars.upperBound, last)]
    }
}
