import PEFTSupport

/// What stands around one text or a pair of texts, as in `[CLS] A [SEP] B [SEP]`.
///
/// A file may name several kinds of it, all of which come down to two lists: one for a text, one for a pair.
/// Their readers are registered in ``postProcessors``.
struct PostProcessor: Equatable, Sendable {
    enum Piece: Equatable, Sendable {
        /// One of the texts, by its index, and the type of its tokens.
        case text(Int, type: Int)
        /// Tokens of the model's own, and their type.
        case special([Int], type: Int)
    }

    let single: [Piece]
    let pair: [Piece]
    /// Whether offsets leave out the spaces of byte-level tokens.
    var trimming: OffsetTrimming?

    init(single: [Piece], pair: [Piece], trimming: OffsetTrimming? = nil) {
        (self.single, self.pair, self.trimming) = (single, pair, trimming)
    }

    /// Whether it adds no token.
    var isPlain: Bool { single == PostProcessor.plain.single && pair == PostProcessor.plain.pair }

    /// Adds nothing.
    static let plain = PostProcessor(
        single: [.text(0, type: 0)], pair: [.text(0, type: 0), .text(1, type: 1)])

    func pieces(texts: Int) -> [Piece] { texts > 1 ? pair : single }

    /// How many tokens are added to `texts` texts.
    func addedTokens(texts: Int) -> Int {
        pieces(texts: texts).reduce(0) { count, piece in
            if case .special(let ids, _) = piece { count + ids.count } else { count }
        }
    }
}

/// The post-processors a tokenizer file may name, by the `type` it gives them.
let postProcessors: [String: @Sendable (StageFields) throws -> PostProcessor] = [
    "TemplateProcessing": { try .template($0) },
    "BertProcessing": {
        let tokens = try PostProcessor.tokens($0)
        return .bert(cls: tokens.cls, sep: tokens.sep)
    },
    "RobertaProcessing": {
        let tokens = try PostProcessor.tokens($0)
        var result = PostProcessor.roberta(cls: tokens.cls, sep: tokens.sep)
        result.trimming = try OffsetTrimming($0)
        return result
    },
    // Moves offsets only.
    "ByteLevel": {
        PostProcessor(
            single: PostProcessor.plain.single, pair: PostProcessor.plain.pair, trimming: try OffsetTrimming($0))
    },
    "Sequence": { try .sequence($0) },
]

@Sendable func readPostProcessor(_ fields: StageFields) throws -> PostProcessor {
    try fields.make("post-processor", postProcessors)
}

extension PostProcessor {
    /// Post-processors one after the other.
    fileprivate static func sequence(_ fields: StageFields) throws -> PostProcessor {
        let all = try fields.objects("processors").map(readPostProcessor)
        let members = all.filter { !$0.isPlain }
        // A second template would take the special tokens of the first for a text.
        guard members.count <= 1 else {
            throw fields.malformed("more than one template in a sequence is not supported")
        }
        var result = members.first ?? .plain
        result.trimming = all.compactMap(\.trimming).first
        return result
    }

    /// Lists written out in the file.
    fileprivate static func template(_ fields: StageFields) throws -> PostProcessor {
        let specials = try fields.object("special_tokens")
        return PostProcessor(
            single: try pieces("single", fields, specials, texts: ["A"]),
            pair: try pieces("pair", fields, specials, texts: ["A", "B"]))
    }

    private static func pieces(
        _ key: String, _ fields: StageFields, _ specials: StageFields, texts: [String]
    ) throws -> [Piece] {
        func type(_ item: StageFields) throws -> Int {
            item.values["type_id"] == nil ? 0 : try item.count("type_id")
        }
        return try fields.objects(key).map { item in
            if item.values["Sequence"] != nil {
                let text = try item.object("Sequence")
                let name = try text.string("id")
                guard let index = texts.firstIndex(of: name) else {
                    throw item.malformed("there is no text \(name) here, only \(texts.joined(separator: " and "))")
                }
                return .text(index, type: try type(text))
            }
            let special = try item.object("SpecialToken")
            let name = try special.string("id")
            let ids = try specials.object(name).values["ids"]?.array?.map { $0.int ?? -1 }
            guard let ids, ids.allSatisfy({ 0...Int(Int32.max) ~= $0 }) else {
                throw specials.malformed("\(name) must list its ids, which are non-negative integers")
            }
            return .special(ids, type: try type(special))
        }
    }
}
