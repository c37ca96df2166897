import PEFTSupport
import Torch

/// Chooses the next token of one sequence of a ``SequenceBatch`` from its logits, with the sequence's own settings and
/// random numbers, so that the choice does not depend on the sequences beside it.
package struct TokenChooser {
    /// Additive changes of logits, with OpenAI's meanings.
    package struct Bias: Sendable, Equatable {
        /// Subtracted from the logits of tokens that were generated.
        package var presencePenalty: Double
        /// Subtracted once per occurrence among the generated tokens.
        package var frequencyPenalty: Double
        /// Added to the logits of tokens.
        package var logitBias: [Int: Double]

        package init(presencePenalty: Double = 0, frequencyPenalty: Double = 0, logitBias: [Int: Double] = [:]) {
            (self.presencePenalty, self.frequencyPenalty, self.logitBias) = (
                presencePenalty, frequencyPenalty, logitBias
            )
        }

        var isNeutral: Bool { presencePenalty == 0 && frequencyPenalty == 0 && logitBias.isEmpty }
    }

    /// The log-probability of a token.
    package struct Score: Sendable, Equatable {
        package let token: Int
        package let logProbability: Double
    }

    private let settings: GenerationSettings
    private let bias: Bias
    /// The prompt, and the tokens that the sequence starts with: the prompt or an encoder-decoder's start token.
    private let prompt: [Int]
    private let before: [Int]
    /// Maximum and minimum number of new tokens.
    private let most: Int
    private let least: Int
    private let sampler: TokenSampler
    private var constraint: (any TokenConstraint)?

    /// - Parameters:
    ///   - settings: the sequence's generation settings; beams are ignored.
    ///   - prompt: the sequence's prompt.
    ///   - most: maximum number of new tokens; `least`: the minimum before an end token.
    ///   - constraint: restricts the tokens.
    ///   - number: index of the sequence among those of its request. The draws are those of the ``Generator`` for the
    ///     prompt with this number.
    /// - Throws: ``PEFTError`` for a setting out of range.
    package init(
        _ settings: GenerationSettings, bias: Bias = Bias(), constraint: (any TokenConstraint)? = nil, prompt: [Int],
        most: Int, least: Int = 0, number: Int = 0
    ) throws {
        (self.settings, self.bias, self.prompt, self.most, self.least) = (settings, bias, prompt, most, least)
        before = settings.startToken.map { [$0] } ?? prompt
        self.constraint = constraint
        sampler = try settings.sampler(number: number)
    }

    /// Whether the choice is the largest unmodified logit.
    package var isGreedy: Bool {
        settings.temperature == 0 && settings.leavesScores && bias.isNeutral && constraint == nil
    }

    /// Whether the sequence must end after the tokens so far, as its constraint is satisfied.
    package var mustEnd: Bool { constraint?.mustEnd ?? false }

    /// Chooses a token from logits `[1, vocabulary]` after the generated ones.
    /// - Throws: ``PEFTError`` if no token can be chosen.
    package func choose(_ logits: Tensor, generated: [Int]) throws -> Int {
        var scores = logits.to(.float32)
        if !bias.logitBias.isEmpty { scores = scores + row(bias.logitBias, like: scores) }
        let text = ScoreProcessor.Text(
            source: prompt, before: before, made: generated, most: most, least: least,
            forced: settings.forcedFirstToken)
        scores = ScoreProcessor(settings: settings)(scores, [text])
        if bias.presencePenalty != 0 || bias.frequencyPenalty != 0 {
            let counts = generated.reduce(into: [Int: Int]()) { $0[$1, default: 0] += 1 }
            let changes = counts.mapValues { -bias.presencePenalty - bias.frequencyPenalty * Double($0) }
            scores = scores + row(changes, like: scores)
        }
        var values: [Float] = scores.array()
        try checkTorchErrors()
        if let constraint {
            var mask = TokenMask(vocabulary: values.count)
            constraint.allow(into: &mask)
            if !mask.tokens.contains(where: { values.indices.contains($0) && values[$0] > -.infinity }) {
                // Everything that the constraint allows is excluded by other settings.
                values = logits.to(.float32).array()
            }
            values.withUnsafeMutableBufferPointer { mask.apply(to: $0) }
        }
        return try sampler.choose(filtering: values, position: generated.count)
    }

    /// Advances the constraint by a generated token.
    package mutating func accept(_ token: Int) throws { try constraint?.accept(token: token) }

    private func row(_ values: [Int: Double], like scores: Tensor) -> Tensor {
        let size = scores.dim(-1)
        var row = [Float](repeating: 0, count: size)
        for (token, value) in values where row.indices.contains(token) { row[token] = Float(value) }
        return Tensor(row, shape: [1, size], device: scores.device)
    }

    /// The log-probabilities of a token and of the `count` most likely ones under unmodified logits `[1, vocabulary]`.
    package static func scores(_ logits: Tensor, token: Int, count: Int) -> (chosen: Score, best: [Score]) {
        let logs = logits.to(.float32).logSoftmax()
        let own = logs.narrowed(axis: 1, token..<(token + 1)).item()
        guard count > 0 else { return (Score(token: token, logProbability: own), []) }
        let (values, indices) = logs.topK(min(count, logs.dim(-1)))
        let best = zip(indices.array(Int.self), values.array(Float.self)).map {
            Score(token: $0, logProbability: Double($1))
        }
        return (Score(token: token, logProbability: own), best)
    }
}
