import PEFTSupport

/// How the tokens of one sequence are drawn. The defaults change nothing: sampling from the model's distribution.
package struct SamplingParameters: Sendable, Equatable {
    /// Sampling temperature; 0 is greedy decoding.
    package var temperature: Double
    /// Sample from the `topK` most likely tokens; 0 means all.
    package var topK: Int
    /// Sample from the most likely tokens with this total probability (Holtzman et al. 2020).
    package var topP: Double
    /// Sample from the tokens with at least this fraction of the most likely token's probability (Nguyen et al. 2024).
    package var minP: Double
    /// Factor by which positive logits of tokens of the prompt and the sequence are divided, and negative ones
    /// multiplied (Keskar et al. 2019).
    package var repetitionPenalty: Double
    /// Subtracted from the logits of generated tokens, from −2 to 2.
    package var presencePenalty: Double
    /// Subtracted from the logits of generated tokens, once for each time, from −2 to 2.
    package var frequencyPenalty: Double
    /// Added to the logits of these tokens, from −100 to 100.
    package var logitBias: [Int: Double]
    /// Seed of the draws: each is a function of the seed and the position alone.
    package var seed: UInt64
    /// The number of most likely tokens whose log-probabilities are returned, up to 20; `nil` for none, not even the
    /// chosen token's.
    package var logProbabilities: Int?

    package init(
        temperature: Double = 1, topK: Int = 0, topP: Double = 1, minP: Double = 0, repetitionPenalty: Double = 1,
        presencePenalty: Double = 0, frequencyPenalty: Double = 0, logitBias: [Int: Double] = [:], seed: UInt64 = 0,
        logProbabilities: Int? = nil
    ) {
        (self.temperature, self.topK, self.topP, self.minP) = (temperature, topK, topP, minP)
        (self.repetitionPenalty, self.presencePenalty) = (repetitionPenalty, presencePenalty)
        (self.frequencyPenalty, self.logitBias) = (frequencyPenalty, logitBias)
        (self.seed, self.logProbabilities) = (seed, logProbabilities)
    }

    /// - Throws: ``PEFTError`` naming the value that is out of range.
    package func validate() throws {
        guard temperature >= 0, temperature.isFinite else {
            throw PEFTError("the temperature is \(temperature)", remedy: "use 0 (greedy) or more")
        }
        guard topK >= 0 else { throw PEFTError("top-k is \(topK)", remedy: "use 0 (all) or more") }
        guard topP > 0, topP <= 1 else {
            throw PEFTError("top-p is \(topP)", remedy: "use a value above 0 and up to 1")
        }
        guard 0...1 ~= minP else { throw PEFTError("min-p is \(minP)", remedy: "use a value from 0 to 1") }
        guard repetitionPenalty > 0, repetitionPenalty.isFinite else {
            throw PEFTError(
                "the repetition penalty is \(repetitionPenalty)", remedy: "use a value above 0; 1 turns it off")
        }
        for (name, value) in [("presence", presencePenalty), ("frequency", frequencyPenalty)]
        where !(-2...2 ~= value) {
            throw PEFTError("the \(name) penalty is \(value)", remedy: "use a value from -2 to 2")
        }
        for (token, bias) in logitBias.sorted(by: { $0.key < $1.key }) {
            guard token >= 0, token <= Int(Int32.max) else {
                throw PEFTError("the logit bias names the token \(token)", remedy: "use a token id")
            }
            guard -100...100 ~= bias else {
                throw PEFTError(
                    "the logit bias of the token \(token) is \(bias)", remedy: "use a value from -100 to 100")
            }
        }
        if let logProbabilities, !(0...20 ~= logProbabilities) {
            throw PEFTError("logprobs is \(logProbabilities)", remedy: "use a value from 0 to 20")
        }
    }
}
