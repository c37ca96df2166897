import LanguageModels

/// A request to continue a prompt.
package struct GenerationRequest: Sendable {
    /// Token ids of the prompt.
    package var prompt: [Int]
    /// Name of the adapter; `nil` for the base model.
    package var adapter: String?
    /// The tokenizer of the prompt and the answer, if it isn't the base's.
    package var tokenizer: SharedTokenizer?
    /// Sampling settings. ``GenerateParameters/beams`` must not be above 1.
    package var parameters = GenerateParameters()
    /// Whether tokens are sampled if neither the request nor the model names a temperature, as in OpenAI's API; otherwise
    /// decoding is greedy.
    package var samplesByDefault = true
    /// Changes of logits.
    package var bias = TokenChooser.Bias()
    /// Texts at which generation ends.
    package var stopTexts: [String] = []
    /// Tokens at which generation ends, besides the model's end tokens.
    package var stopTokens: Set<Int> = []
    /// Whether the model's end tokens do not end the generation.
    package var ignoresEndTokens = false
    /// Whether the text at which generation ends belongs to the result.
    package var includesStopText = false
    /// Whether special tokens are left out of the text.
    package var skipsSpecialTokens = true
    /// Number of independent continuations.
    package var choices = 1
    /// Number of most likely tokens to report at each position, besides the chosen one; `nil` reports none.
    package var logProbabilities: Int?
    /// What the text is, if it is restricted to JSON.
    package var responseFormat: ResponseFormat?
    /// When the request fails if it isn't complete.
    package var deadline: ContinuousClock.Instant?
    /// Whose request it is: clients take turns.
    package var client = ""
    /// Called on the engine's thread with numbers of tokens that were processed for the request: of the prompt when it starts,
    /// and of its answer when it ends in any way.
    package var onTokens: (@Sendable (Int) -> Void)?

    package init(prompt: [Int], adapter: String? = nil) { (self.prompt, self.adapter) = (prompt, adapter) }
}

/// A part of the answer to a ``GenerationRequest``.
package enum GenerationEvent: Sendable {
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
package enum FinishReason: Sendable, Equatable {
    /// An end token or a stop text, which is given.
    case stop(text: String?)
    /// The maximum number of tokens.
    case length

    /// OpenAI's name.
    package var name: String {
        switch self {
        case .stop: "stop"
        case .length: "length"
        }
    }
}

/// Number of tokens of a request.
package struct Usage: Sendable, Equatable {
    package var promptTokens: Int
    /// Generated tokens of all choices, end tokens included.
    package var completionTokens: Int
    /// Tokens of the prompt whose keys and values an earlier request had computed.
    package var cachedTokens: Int

    package init(promptTokens: Int, completionTokens: Int, cachedTokens: Int = 0) {
        (self.promptTokens, self.completionTokens) = (promptTokens, completionTokens)
        self.cachedTokens = cachedTokens
    }
}

/// The log-probability of a generated token, under unmodified logits.
package struct TokenLogProbability: Sendable, Equatable {
    package struct Entry: Sendable, Equatable {
        package let token: Int
        package let text: String
        package let logProbability: Double
    }

    package let chosen: Entry
    /// The most likely tokens, best first.
    package let best: [Entry]
}
