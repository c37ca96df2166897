/// Normalized text split into the pieces that the model encodes one by one.
///
/// All pieces are in one buffer, so that none of the hundreds of words of a text needs its own array.
struct PreTokenizedText {
    /// Valid UTF-8.
    var bytes: [UInt8]
    /// In order, not empty, at scalar boundaries; text between them is dropped.
    var pieces: [Range<Int>]
    /// Whether the first piece begins the text.
    var startsText: Bool
    /// The range of the original text for each byte, if offsets are requested.
    var origins: [Range<Int>]?

    init(_ bytes: [UInt8], startsText: Bool, origins: [Range<Int>]? = nil) {
        self.bytes = bytes
        self.origins = origins
        pieces = bytes.isEmpty ? [] : [0..<bytes.count]
        self.startsText = startsText
    }
}

/// Splits normalized text into pieces. Registered in ``preTokenizers``.
protocol PreTokenizer: Sendable {
    func split(_ text: inout PreTokenizedText)
}

/// The pre-tokenizers a tokenizer file may name, by the `type` it gives them.
let preTokenizers: [String: @Sendable (StageFields) throws -> any PreTokenizer] = [
    "Sequence": { PreTokenizerSequence(members: try $0.objects("pretokenizers").map(readPreTokenizer)) },
    "Whitespace": { _ in Whitespace() },
    "WhitespaceSplit": { _ in WhitespaceSplit() },
    "Metaspace": { MetaspacePreTokenizer(try Metaspace($0)) },
    "ByteLevel": { try ByteLevelPreTokenizer($0) },
    "Split": { try Split($0) },
    "Digits": { try CharacterSplit.digits($0) },
    "Punctuation": { try CharacterSplit.punctuation($0) },
    "CharDelimiterSplit": { try CharacterSplit.delimiter($0) },
    "BertPreTokenizer": { _ in BertPreTokenizer() },
    "FixedLength": { try FixedLength($0) },
    "UnicodeScripts": { _ in UnicodeScripts() },
]

@Sendable func readPreTokenizer(_ fields: StageFields) throws -> any PreTokenizer {
    try fields.make("pre-tokenizer", preTokenizers)
}

/// Applies pre-tokenizers one after the other, each to the pieces of the one before.
struct PreTokenizerSequence: PreTokenizer {
    let members: [any PreTokenizer]

    /// The members, with nested sequences flattened.
    var flattened: [any PreTokenizer] {
        members.flatMap { ($0 as? PreTokenizerSequence)?.flattened ?? [$0] }
    }

    func split(_ text: inout PreTokenizedText) {
        for member in members { member.split(&text) }
    }
}

/// Splits at whitespace and drops it.
struct WhitespaceSplit: PreTokenizer {
    func split(_ text: inout PreTokenizedText) {
        text.keepRuns { $0.isWhitespace ? nil : 0 }
    }
}

/// Keeps runs of word characters and runs of other characters, and drops whitespace: `\w+|[^\w\s]+`.
struct Whitespace: PreTokenizer {
    func split(_ text: inout PreTokenizedText) {
        text.keepRuns { $0.isWord ? 0 : $0.isWhitespace ? nil : 1 }
    }
}

/// Splits into chunks of a fixed number of scalars.
struct FixedLength: PreTokenizer {
    let length: Int

    init(_ fields: StageFields) throws {
        length = try fields.count("length")
        guard length > 0 else { throw fields.malformed("length is 0") }
    }

    func split(_ text: inout PreTokenizedText) {
        var result: [Range<Int>] = []
        for piece in text.pieces {
            var start = piece.lowerBound
            var index = start
            var count = 0
            while index < piece.upperBound {
                index += text.bytes.scalarLength(at: index)
                count += 1
                if count == length || index == piece.upperBound {
                    result.append(start..<index)
                    (start, count) = (index, 0)
                }
            }
        }
        text.pieces = result
    }
}

extension PreTokenizedText {
    /// Splits every piece into its longest runs of scalars of one class; scalars of class `nil` are dropped.
    @inline(__always)
    mutating func keepRuns(_ classOf: (Unicode.Scalar) -> UInt8?) {
        var result: [Range<Int>] = []
        result.reserveCapacity(pieces.reduce(0) { $0 + $1.count / 5 + 1 })
        for piece in pieces {
            var index = piece.lowerBound
            var start = index
            var current: UInt8?
            while index < piece.upperBound {
                let (scalar, length) = bytes.scalar(at: index)
                let next = classOf(scalar)
                if next != current {
                    if current != nil { result.append(start..<index) }
                    start = index
                    current = next
                }
                index += length
            }
            if current != nil { result.append(start..<index) }
        }
        if result.first?.lowerBound != pieces.first?.lowerBound { startsText = false }
        pieces = result
    }
}
