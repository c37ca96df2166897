import LanguageModels

/// A request to continue a prompt.
public struct GenerationRequest: Sendable {
    /// Token ids of the prompt.
    public var prompt: [Int]
    /// Name of the adapter; `nil` for the base model.
    public var adapter: String?
    /// Sampling settings. ``GenerateParameters/beams`` must not be above 1.
    public var parameters = GenerateParameters()
    /// Changes of logits.
    public var bias = TokenChooser.Bias()
    /// Texts at which generation ends.
    public var stopTexts: [String] = []
    /// Tokens at which generation ends, besides the model's end tokens.
    public var stopTokens: Set<Int> = []
    /// Whether the model's end tokens do not end the generation.
    public var ignoresEndTokens = false
    /// Whether the text at which generation ends belongs to the result.
    public var includesStopText = false
    /// Whether special tokens are left out of the text.
    public var skipsSpecialTokens = true
    /// Number of independent continuations.
    public var choices = 1
    /// Number of most likely tokens to report at each position, besides the chosen one; `nil` reports none.
    public var logProbabilities: Int?
    /// What the text is, if it is restricted to JSON.
    package var responseFormat: ResponseFormat?
    /// When the request fails if it isn't complete.
    public var deadline: ContinuousClock.Instant?

    public init(prompt: [Int], adapter: String? = nil) { (self.prompt, self.adapter) = (prompt, adapter) }
}

/// A part of the answer to a ``GenerationRequest``.
public enum GenerationEvent: Sendable {
    /// A token of a choice, with the text that is final after it; the text is often empty.
    case token(choice: Int, id: Int, text: String, logProbability: TokenLogProbability?)
    /// The end of a choice, with the rest of its text.
    case finished(choice: Int, text: String, FinishReason)
    /// The end of the request; no events follow.
    case done(Usage)
    /// The request failed; no events follow.
    case failed(ServingError)
}

/// Why a choice ended.
public enum FinishReason: Sendable, Equatable {
    /// An end token or a stop text, which is given.
    case stop(text: String?)
    /// The maximum number of tokens.
    case length

    /// OpenAI's name.
    public var name: String {
        switch self {
        case .stop: "stop"
        case .length: "length"
        }
    }
}

/// Number of tokens of a request.
public struct Usage: Sendable, Equatable {
    public var promptTokens: Int
    /// Generated tokens of all choices, end tokens included.
    public var completionTokens: Int

    public init(promptTokens: Int, completionTokens: Int) {
        (self.promptTokens, self.completionTokens) = (promptTokens, completionTokens)
    }
}

/// The log-probability of a generated token, under unmodified logits.
public struct TokenLogProbability: Sendable, Equatable {
    public struct Entry: Sendable, Equatable {
        public let token: Int
        public let text: String
        public let logProbability: Double
    }

    public let chosen: Entry
    /// The most likely tokens, best first.
    public let best: [Entry]
}
