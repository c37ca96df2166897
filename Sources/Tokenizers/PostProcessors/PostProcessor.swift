import Support

/// Puts special tokens around one encoded text or a pair of them. Registered in ``postProcessors``.
protocol PostProcessor: Sendable {
    /// - Parameter parts: the ids of one or two texts.
    /// - Returns: the parts, in order, with what was added as parts of their own.
    func process(_ parts: [[Int]], addSpecialTokens: Bool) -> [[Int]]
}

/// The post-processors a tokenizer file may name, by the `type` it gives them.
let postProcessors: [String: @Sendable (StageFields) throws -> any PostProcessor] = [
    "TemplateProcessing": { try TemplateProcessing($0) },
    "BertProcessing": { try PairProcessing.read($0, PairProcessing.bert) },
    "RobertaProcessing": { try PairProcessing.read($0, PairProcessing.roberta) },
    "ByteLevel": { _ in Unprocessed() },
    "Sequence": { try PostProcessorSequence($0) },
]

@Sendable func readPostProcessor(_ fields: StageFields) throws -> any PostProcessor {
    try fields.make("post-processor", postProcessors)
}

/// Applies post-processors one after the other.
struct PostProcessorSequence: PostProcessor {
    let members: [any PostProcessor]

    init(_ fields: StageFields) throws {
        members = try fields.objects("processors").map(readPostProcessor)
        // A second template would take the special tokens of the first for a text.
        guard members.count(where: { $0 is TemplateProcessing || $0 is PostProcessorSequence }) <= 1 else {
            throw fields.malformed("more than one template in a sequence is not supported")
        }
    }

    func process(_ parts: [[Int]], addSpecialTokens: Bool) -> [[Int]] {
        members.reduce(parts) { $1.process($0, addSpecialTokens: addSpecialTokens) }
    }
}

/// A template for one text and one for a pair, as in `A </s>` and `A </s> B </s>`.
struct TemplateProcessing: PostProcessor {
    enum Piece: Equatable, Sendable {
        /// One of the texts, by its index.
        case text(Int)
        case special([Int])
    }

    let single: [Piece]
    let pair: [Piece]

    init(single: [Piece], pair: [Piece]) {
        self.single = single
        self.pair = pair
    }

    init(_ fields: StageFields) throws {
        let specials = try fields.object("special_tokens")
        single = try TemplateProcessing.read("single", fields, specials, texts: ["A"])
        pair = try TemplateProcessing.read("pair", fields, specials, texts: ["A", "B"])
    }

    private static func read(
        _ key: String, _ fields: StageFields, _ specials: StageFields, texts: [String]
    ) throws -> [Piece] {
        try fields.objects(key).map { item in
            if item.values["Sequence"] != nil {
                let name = try item.object("Sequence").string("id")
                guard let index = texts.firstIndex(of: name) else {
                    throw item.malformed("there is no text \(name) here, only \(texts.joined(separator: " and "))")
                }
                return .text(index)
            }
            let name = try item.object("SpecialToken").string("id")
            let ids = try specials.object(name).values["ids"]?.array?.map { $0.int ?? -1 }
            guard let ids, ids.allSatisfy({ 0...Int(Int32.max) ~= $0 }) else {
                throw specials.malformed("\(name) must list its ids, whole numbers from 0")
            }
            return .special(ids)
        }
    }

    func process(_ parts: [[Int]], addSpecialTokens: Bool) -> [[Int]] {
        (parts.count > 1 ? pair : single).compactMap { piece in
            switch piece {
            case .text(let index): parts.indices.contains(index) ? parts[index] : nil
            case .special(let ids): addSpecialTokens ? ids : nil
            }
        }
    }
}
