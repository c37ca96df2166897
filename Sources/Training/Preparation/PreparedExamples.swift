import Foundation
import LanguageModels
import PEFTTokenizers

/// Examples with the encoder of a model for them.
public enum PreparedExamples {
    case texts([Example], RowEncoder)
    case chats([Conversation], ChatEncoder)

    /// Token ids of the examples, and their counts.
    package func encoded() throws -> (examples: [EncodedExample], summary: EncodingSummary) {
        switch self {
        case .texts(let examples, let encoder): try encoder.encode(examples)
        case .chats(let conversations, let encoder): try encoder.encode(conversations)
        }
    }

    /// Prompt and target of each example as text; of a conversation the last assistant turn and all before it, rendered.
    package func questions() throws -> [(prompt: String, target: String)] {
        switch self {
        case .texts(let examples, _): return examples.map { ($0.prompt, $0.target) }
        case .chats(let conversations, let encoder):
            return try conversations.map { conversation in
                let question = try encoder.question(conversation)
                return (encoder.tokenizer.decode(tokens: question.prompt, skipSpecialTokens: false), question.answer)
            }
        }
    }

    /// Tokens that contribute to the loss, without examples whose labels the model doesn't have.
    package func lossTokens() throws -> Int {
        switch self {
        case .texts(let examples, let encoder):
            try encoder.encode(examples.filter(encoder.knowsLabels)).summary.targetTokens
        case .chats(let conversations, let encoder): try encoder.encode(conversations).summary.targetTokens
        }
    }

    /// Evaluates a model on the examples.
    /// - Parameters:
    ///   - evaluator: the model with its tokenizer and the settings of generation.
    ///   - onProgress: called with the number of finished examples.
    public func evaluate(with evaluator: Evaluator, onProgress: (Int) -> Void = { _ in }) throws -> EvaluationResult {
        switch self {
        case .texts(let examples, let encoder):
            var evaluator = evaluator
            evaluator.maxInputTokens = encoder.maxInputTokens
            return try evaluator.evaluate(examples, onProgress: onProgress)
        case .chats(let conversations, let encoder):
            return try evaluator.evaluate(conversations, encoder, onProgress: onProgress)
        }
    }
}

extension Examples {
    /// - Parameters:
    ///   - folder: the tokenizer's folder, with its chat template.
    ///   - maxInputTokens: maximum number of tokens of a prompt, or of a text that a model with a head reads; conversations
    ///     have a limit of their own (``ChatSettings/maxLength``).
    /// - Throws: ``PEFTError`` for a model that the examples don't fit.
    package func prepared(
        _ tokenizer: Tokenizer, folder: URL, for model: any LanguageModel, maxInputTokens: Int
    ) throws -> PreparedExamples {
        switch self {
        case .texts(let examples):
            .texts(examples, try RowEncoder(tokenizer, for: model, maxInputTokens: maxInputTokens))
        case .chats(let conversations, let settings):
            .chats(conversations, try settings.encoder(tokenizer, folder: folder, for: model))
        }
    }
}
