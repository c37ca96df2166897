import Foundation
import PEFTSupport

/// Draws the tokens of one sequence from rows of logits.
///
/// The order is that of transformers' processors and warpers: logit bias, repetition penalty, then vLLM's frequency and
/// presence penalties, then the constraint; temperature, top-k, top-p and min-p. A draw is a function of the logits, the
/// seed and the position, so a sequence doesn't depend on the batch that it is in.
package struct TokenSampler: Sendable {
    /// A token with its log-probability.
    package struct LogProbability: Sendable, Equatable {
        package let token: Int
        /// Of the model's distribution, before processing.
        package let value: Double
    }

    package struct Choice: Sendable, Equatable {
        package let token: Int
        /// `nil` if none was requested.
        package let logProbability: Double?
        /// The most likely tokens, in descending order.
        package let top: [LogProbability]
    }

    package let parameters: SamplingParameters
    private let filter: SamplingFilter

    /// - Throws: ``PEFTError`` for a parameter out of range.
    package init(_ parameters: SamplingParameters) throws {
        try parameters.validate()
        self.parameters = parameters
        filter = SamplingFilter(parameters)
    }

    /// Chooses the next token.
    /// - Parameters:
    ///   - logits: one row, fp32.
    ///   - prompt: the tokens before the sequence.
    ///   - generated: the tokens of the sequence so far. Their number is the position of the draw.
    ///   - mask: the tokens that may be chosen; `nil` for all.
    /// - Throws: ``PEFTError`` if no token may be chosen, or a logit is NaN.
    package func choose(
        _ logits: [Float], prompt: [Int], generated: [Int], mask: TokenMask? = nil
    ) throws -> Choice {
        let row = processed(logits, prompt: prompt, generated: generated, mask: mask)
        let token = try pick(row, position: generated.count)
        guard let count = parameters.logProbabilities else {
            return Choice(token: token, logProbability: nil, top: [])
        }
        let total = Self.logSum(logits)
        let top = SamplingFilter.largest(min(count, logits.count), of: logits).map { index in
            LogProbability(token: index, value: Double(logits[index]) - total)
        }
        return Choice(token: token, logProbability: Double(logits[token]) - total, top: top)
    }

    /// The logits from which a token is drawn, −∞ for those that can't be.
    package func processed(
        _ logits: [Float], prompt: [Int], generated: [Int], mask: TokenMask? = nil
    ) -> [Float] {
        var row = logits
        for (token, bias) in parameters.logitBias where token < row.count { row[token] += Float(bias) }
        if parameters.repetitionPenalty != 1 {
            Self.penalize(Set(prompt + generated), by: parameters.repetitionPenalty, in: &row)
        }
        if parameters.frequencyPenalty != 0 || parameters.presencePenalty != 0 {
            var counts: [Int: Int] = [:]
            for token in generated { counts[token, default: 0] += 1 }
            for (token, count) in counts where row.indices.contains(token) {
                row[token] -= Float(parameters.frequencyPenalty) * Float(count)
                row[token] -= Float(parameters.presencePenalty)
            }
        }
        if let mask { row.withUnsafeMutableBufferPointer { mask.apply(to: $0) } }
        if parameters.temperature > 0 { filter(&row) }
        return row
    }

    /// Chooses from logits that are processed up to the temperature.
    func choose(filtering logits: [Float], position: Int) throws -> Int {
        var row = logits
        if parameters.temperature > 0 { filter(&row) }
        return try pick(row, position: position)
    }

    /// Divides these tokens' scores by a penalty, or multiplies negative ones by it (Keskar et al. 2019).
    static func penalize(_ tokens: Set<Int>, by penalty: Double, in row: inout [Float]) {
        for token in tokens where row.indices.contains(token) {
            row[token] = row[token] < 0 ? row[token] * Float(penalty) : row[token] / Float(penalty)
        }
    }

    /// A token of processed logits: the best one, or a sample.
    func pick(_ row: [Float], position: Int) throws -> Int {
        var best = -1
        for (index, value) in row.enumerated() where value > (best < 0 ? -.infinity : row[best]) { best = index }
        guard best >= 0, row[best].isFinite else {
            throw PEFTError(
                "no token can be chosen", remedy: "check that logits are finite, and which tokens are excluded")
        }
        guard parameters.temperature > 0 else { return best }
        let most = Double(row[best])
        let total = row.reduce(0) { $0 + exp(Double($1) - most) }
        guard total.isFinite else {
            throw PEFTError("a logit is NaN", remedy: "check the model's weights")
        }
        var random = SeededRandom(seed: parameters.seed, stream: UInt64(truncatingIfNeeded: position))
        var rest = Double(random.next() >> 11) * 0x1p-53 * total
        for (index, value) in row.enumerated() {
            let weight = exp(Double(value) - most)
            if rest < weight { return index }
            rest -= weight
        }
        // Rounding left a rest.
        return best
    }

    /// log Σ exp of a row.
    private static func logSum(_ row: [Float]) -> Double {
        let most = Double(row.max() ?? 0)
        return most + log(row.reduce(0) { $0 + exp(Double($1) - most) })
    }
}
