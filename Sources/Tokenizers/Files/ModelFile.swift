import Support

/// The `model` of a `tokenizer.json`, decoded by its type.
///
/// A vocabulary is tens of thousands of entries, so it is decoded straight into its own types.
enum ModelFile: Decodable {
    case unigram(UnigramFields)

    private enum CodingKeys: String, CodingKey { case type, vocab }

    init(from decoder: any Swift.Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        switch try fields.decodeIfPresent(String.self, forKey: .type) {
        case "Unigram": self = .unigram(try UnigramFields(from: decoder))
        case let type?:
            throw PEFTError("the model type \(type) is not supported", remedy: "supported is Unigram")
        case nil:
            // Older files name no type. Only a unigram model's vocabulary is a list.
            guard (try? fields.nestedUnkeyedContainer(forKey: .vocab)) != nil else {
                throw PEFTError(
                    "the model names no type and has no unigram vocabulary", remedy: "supported is Unigram")
            }
            self = .unigram(try UnigramFields(from: decoder))
        }
    }

    func make(file: String) throws -> any TokenizerModel {
        switch self {
        case .unigram(let fields):
            guard let unknown = fields.unknownID else {
                throw PEFTError("\(file): model: unk_id is missing", remedy: "a unigram model needs an unknown token")
            }
            return try Unigram(
                vocabulary: fields.vocabulary.map { ($0.piece, $0.score) }, unknownID: unknown,
                byteFallback: fields.byteFallback ?? false, file: file)
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
