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
                score = try pair.decode(Double.self)
            }
        }
    }
}
