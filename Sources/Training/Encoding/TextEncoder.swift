import LanguageModels
import PEFTTokenizers

/// Encodes the texts that a model with a head reads, truncated with the closing special token kept.
struct TextEncoder: Sendable {
    let tokenizer: Tokenizer
    /// Maximum number of tokens of a text, or of a pair of texts.
    let maxTokens: Int
    /// Whether the model has token type ids for the texts of a pair.
    private let hasSegments: Bool

    init(_ tokenizer: Tokenizer, for model: any LanguageModel, maxTokens: Int) {
        self.init(
            tokenizer, hasSegments: model.modelFamily.tokenTypes.areSeveral(in: model.configuration),
            maxTokens: maxTokens)
    }

    init(_ tokenizer: Tokenizer, hasSegments: Bool, maxTokens: Int) {
        (self.tokenizer, self.hasSegments, self.maxTokens) = (tokenizer, hasSegments, maxTokens)
    }

    func encode(_ text: String) -> (ids: [Int], isTruncated: Bool) {
        let ids = tokenizer.encode(text: text)
        guard ids.count > maxTokens else { return (ids, false) }
        // BERT's inputs end with [SEP].
        let bare = tokenizer.encode(text: text, addSpecialTokens: false)
        let isClosed = ids.last != bare.last
        return (ids.prefix(maxTokens - (isClosed ? 1 : 0)) + (isClosed ? [ids[ids.count - 1]] : []), true)
    }

    /// Encodes a pair of texts with token type ids. If the pair is too long, the longer text is truncated.
    func encode(_ first: String, pair second: String) -> (ids: [Int], segments: [Int], isTruncated: Bool) {
        let encoding = tokenizer.encode(text: first, pair: second, maxTokens: maxTokens)
        return (encoding.ids, hasSegments ? encoding.typeIDs : [], encoding.isTruncated)
    }
}
