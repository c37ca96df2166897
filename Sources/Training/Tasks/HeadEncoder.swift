import LanguageModels
import PEFTTokenizers

/// Encodes texts for a model with a head as `peft predict` does.
package struct HeadEncoder: Sendable {
    private let task: any HeadTask
    private let texts: TextEncoder

    /// - Parameters:
    ///   - hasSegments: whether the model has token type ids for the texts of a pair.
    ///   - maxTokens: maximum number of tokens of a text, or of a pair of texts.
    /// - Returns: `nil` for a model that generates text.
    package init?(_ head: ModelHead, _ tokenizer: Tokenizer, hasSegments: Bool, maxTokens: Int) {
        guard let task = head.headTask else { return nil }
        self.task = task
        texts = TextEncoder(tokenizer, hasSegments: hasSegments, maxTokens: maxTokens)
    }

    /// - Parameter text: for token classification, words on lines of their own.
    /// - Throws: ``PEFTError`` for a text without tokens.
    package func encode(_ text: String, pair: String? = nil) throws -> (row: TrainingRow, isTruncated: Bool) {
        var example = Example(prompt: text, target: "")
        example.pair = pair
        return try withTokenizerErrors { try task.encode(example, texts, needsTarget: false) }
    }
}
