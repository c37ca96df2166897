import PEFTSupport

/// The `model` of a `tokenizer.json`, decoded by its type.
///
/// A vocabulary is tens of thousands of entries: a unigram one is decoded straight into its own types, others
/// are in ``ModelTables``.
enum ModelFile: Decodable {
    case unigram(UnigramFields)
    case bpe(BPEFields)
    case wordPiece(WordPieceFields)
    case wordLevel(WordPieceFields)

    private enum CodingKeys: String, CodingKey { case type, vocab, merges }
    private static let supported = "supported are BPE, Unigram, WordLevel, WordPiece"

    init(from decoder: any Swift.Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        switch try fields.decodeIfPresent(String.self, forKey: .type) {
        case "Unigram": self = .unigram(try UnigramFields(from: decoder))
        case "BPE": self = .bpe(try BPEFields(from: decoder))
        case "WordPiece": self = .wordPiece(try WordPieceFields(from: decoder))
        case "WordLevel": self = .wordLevel(try WordPieceFields(from: decoder))
        case let type?:
            throw PEFTError("the model type \(type) is not supported", remedy: ModelFile.supported)
        case nil:
            // Older files name no type.
            if fields.contains(.merges) {
                self = .bpe(try BPEFields(from: decoder))
            } else if (try? fields.nestedUnkeyedContainer(forKey: .vocab)) != nil {
                self = .unigram(try UnigramFields(from: decoder))
            } else if let wordPiece = try? WordPieceFields(from: decoder), wordPiece.longestWord != nil {
                self = .wordPiece(wordPiece)
            } else {
                throw PEFTError(
                    "the model has no type, and its fields match no known type", remedy: ModelFile.supported)
            }
        }
    }

    func make(_ tables: ModelTables, file: String) throws -> any TokenizerModel {
        func table<Table>(_ table: Table?, _ name: String) throws -> Table {
            if let table { return table }
            throw PEFTError(
                "\(file): model.\(name) is missing or of the wrong type", remedy: "the file may be damaged")
        }
        switch self {
        case .unigram(let fields):
            guard let unknown = fields.unknownID else {
                throw PEFTError("\(file): model: unk_id is missing", remedy: "a unigram model needs an unknown token")
            }
            return try Unigram(
                vocabulary: fields.vocabulary.map { ($0.piece, $0.score) }, unknownID: unknown,
                byteFallback: fields.byteFallback ?? false, file: file)
        case .bpe(let fields):
            guard (fields.dropout ?? 0) == 0 else {
                throw PEFTError(
                    "\(file): model: dropout \(fields.dropout ?? 0) is not supported",
                    remedy: "set it to null: tokenization must be deterministic")
            }
            return try BPE(
                vocabulary: table(tables.vocabulary, "vocab"), merges: table(tables.merges, "merges"),
                configuration: fields.configuration, file: file)
        case .wordPiece(let fields):
            return try WordPiece(
                vocabulary: table(tables.vocabulary, "vocab"), unknownToken: fields.unknownToken ?? "[UNK]",
                continuingPrefix: fields.continuingPrefix ?? "##", longestWord: fields.longestWord ?? 100, file: file)
        case .wordLevel(let fields):
            return try WordLevel(
                vocabulary: table(tables.vocabulary, "vocab"), unknownToken: fields.unknownToken ?? "<unk>",
                file: file)
        }
    }

    struct BPEFields: Decodable {
        let dropout: Double?
        let unknownToken: String?
        let continuingPrefix: String?
        let wordSuffix: String?
        let fusesUnknown: Bool?
        let byteFallback: Bool?
        let ignoresMerges: Bool?

        enum CodingKeys: String, CodingKey {
            case dropout
            case unknownToken = "unk_token"
            case continuingPrefix = "continuing_subword_prefix"
            case wordSuffix = "end_of_word_suffix"
            case fusesUnknown = "fuse_unk"
            case byteFallback = "byte_fallback"
            case ignoresMerges = "ignore_merges"
        }

        var configuration: BPE.Configuration {
            BPE.Configuration(
                unknownToken: unknownToken, fusesUnknown: fusesUnknown ?? false, byteFallback: byteFallback ?? false,
                ignoresMerges: ignoresMerges ?? false, continuingPrefix: continuingPrefix ?? "",
                wordSuffix: wordSuffix ?? "")
        }
    }

    struct WordPieceFields: Decodable {
        let unknownToken: String?
        let continuingPrefix: String?
        let longestWord: Int?

        enum CodingKeys: String, CodingKey {
            case unknownToken = "unk_token"
            case continuingPrefix = "continuing_subword_prefix"
            case longestWord = "max_input_chars_per_word"
        }
    }

    struct UnigramFields: Decodable {
        let vocabulary: [Entry]
        let unknownID: Int?
        let byteFallback: Bool?

        enum CodingKeys: String, CodingKey {
            case vocabulary = "vocab"
            case unknownID = "unk_id"
            case byteFallback = "byte_fallback"
        }

        /// `["▁the", -3.2]`
        struct Entry: Decodable {
            let piece: String
            let score: Double

            init(from decoder: any Swift.Decoder) throws {
                var pair = try decoder.unkeyedContainer()
                piece = try pair.decode(String.self)
                score = ReferenceNumber.read(try pair.decode(Double.self))
            }
        }
    }
}

/// Numbers as the `tokenizers` library reads them from JSON: digits as a whole number, rounded, divided by a
/// power of ten, rounded again. A score can come out one unit in the last place beside the nearest `Double`,
/// which decides between cuts with the same pieces in another order ("mm" + "m" or "m" + "mm").
enum ReferenceNumber {
    /// What `number` becomes if it is written with as many digits as it takes, as every writer does.
    static func read(_ number: Double) -> Double {
        guard number.isFinite else { return number }
        var significand: UInt64 = 0
        var exponent = 0
        var isFraction = false
        let text = "\(number.magnitude)".utf8
        for (offset, byte) in text.enumerated() {
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"):
                // Not more than 17 digits count, and 16 zeros at most stand in front of a point.
                let (scaled, overflow) = significand.multipliedReportingOverflow(by: 10)
                guard !overflow else { return number }
                significand = scaled + UInt64(byte - UInt8(ascii: "0"))
                if isFraction { exponent -= 1 }
            case UInt8(ascii: "."): isFraction = true
            default:
                exponent += Int(Substring(text.dropFirst(offset + 1))) ?? 0
                return scale(significand, exponent, number)
            }
        }
        return scale(significand, exponent, number)
    }

    private static func scale(_ significand: UInt64, _ exponent: Int, _ number: Double) -> Double {
        // Beyond the table nothing is a log probability.
        guard powersOfTen.indices.contains(abs(exponent)) else { return number }
        let power = powersOfTen[abs(exponent)]
        let value = exponent < 0 ? Double(significand) / power : Double(significand) * power
        return number.sign == .minus ? -value : value
    }

    private static let powersOfTen = (0...308).map { Double("1e\($0)") ?? .infinity }
}
