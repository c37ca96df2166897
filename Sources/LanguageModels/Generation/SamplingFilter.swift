import Torch

/// Temperature, top-k, top-p and min-p filtering: logits are divided by the temperature, and excluded tokens become
/// −∞, as with transformers' logits warpers.
struct SamplingFilter {
    let temperature: Double
    let topK: Int
    let topP: Double
    let minP: Double
    /// Minimum number of tokens that remain.
    let least: Int

    init(_ settings: GenerationSettings) {
        (temperature, topK, topP, minP) = (settings.temperature, settings.topK, settings.topP, settings.minP)
        // A beam needs a token to continue besides its end tokens.
        least = settings.beams > 1 ? max(2, settings.endTokens.count + 1) : 1
    }

    /// - Parameter scores: `[texts, vocabulary]`, fp32.
    func callAsFunction(_ scores: Tensor) -> Tensor {
        var scores = temperature == 1 ? scores : scores / temperature
        let vocabulary = scores.dim(-1)
        let isLimited = topK > 0 && topK < vocabulary
        if isLimited || topP < 1 {
            // In descending order.
            let sorted = scores.topK(isLimited ? max(topK, min(least, vocabulary)) : vocabulary).values
            var count = Tensor.full([sorted.dim(0), 1], Double(sorted.dim(1)), device: scores.device)
            if topP < 1 {
                let probabilities = sorted.softmax()
                // A token remains if the tokens before it have a total probability below topP.
                let before = probabilities.cumulativeSum(axis: -1) - probabilities
                count = before.less(than: topP).to(.float32).sum(axes: [1], keep: true)
                    .atLeast(Double(min(least, sorted.dim(1))))
            }
            scores = keeping(scores, from: sorted.gathering(axis: 1, (count - 1).to(.int64)))
        }
        guard minP > 0 else { return scores }
        let probabilities = scores.softmax()
        let best = probabilities.topK(min(least, vocabulary)).values
        let limit = best.narrowed(axis: 1, 0..<1) * minP
        let last = best.narrowed(axis: 1, (best.dim(1) - 1)..<best.dim(1))
        let lowest = limit.selecting(where: limit.less(than: last), else: last)
        return Tensor.full(scores.shape, -.infinity, device: scores.device)
            .selecting(where: probabilities.less(than: lowest), else: scores)
    }

    /// −∞ for logits below each row's limit `[texts, 1]`.
    private func keeping(_ scores: Tensor, from limit: Tensor) -> Tensor {
        Tensor.full(scores.shape, -.infinity, device: scores.device)
            .selecting(where: scores.less(than: limit), else: scores)
    }
}
