import Foundation
import Torch

/// Temperature, top-k, top-p and min-p filtering: logits are divided by the temperature, and excluded tokens become
/// −∞, as with transformers' logits warpers.
struct SamplingFilter: Sendable {
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

    init(_ parameters: SamplingParameters) {
        (temperature, topK, topP) = (parameters.temperature, parameters.topK, parameters.topP)
        (minP, least) = (parameters.minP, 1)
    }

    /// - Parameter scores: `[texts, vocabulary]`, fp32.
    func callAsFunction(_ scores: Tensor) -> Tensor {
        let vocabulary = scores.dim(-1)
        var values: [Float] = scores.array()
        guard vocabulary > 0, values.count == scores.dim(0) * vocabulary else { return scores }
        for start in stride(from: 0, to: values.count, by: vocabulary) {
            var row = Array(values[start..<start + vocabulary])
            self(&row)
            values.replaceSubrange(start..<start + vocabulary, with: row)
        }
        return Tensor(values, shape: scores.shape, device: scores.device)
    }

    /// - Parameter row: the logits of one text.
    func callAsFunction(_ row: inout [Float]) {
        let divisor = Float(temperature)
        if divisor != 1 { for index in row.indices { row[index] /= divisor } }
        if topK > 0, topK < row.count {
            keep(from: Self.largest(max(topK, min(least, row.count)), of: row).last.map { row[$0] }, in: &row)
        }
        guard let most = row.max(), most.isFinite, topP < 1 || minP > 0 else { return }
        if topP < 1 {
            let total = row.reduce(0) { $0 + exp(Double($1 - most)) }
            keep(from: nucleus(row, most, total), in: &row)
        }
        if minP > 0 {
            // Probabilities relative to that of the most likely token.
            let last = Self.largest(min(least, row.count), of: row).last.map { row[$0] } ?? most
            for index in row.indices where exp(Double(row[index] - most)) < minP && row[index] < last {
                row[index] = -.infinity
            }
        }
    }

    /// The least logit of the most likely tokens that have a total probability of `topP`.
    private func nucleus(_ row: [Float], _ most: Float, _ total: Double) -> Float {
        // Few tokens have nearly all of the probability, so that few need to be sorted.
        for depth in [8, 24, Float.infinity] {
            let sorted = row.filter { $0 >= most - depth }.sorted(by: >)
            let isWhole = depth == .infinity
            var before = 0.0
            for (rank, value) in sorted.enumerated() {
                // A token remains if the tokens before it have a total probability below topP.
                if rank >= least, before / total >= topP { return sorted[rank - 1] }
                before += exp(Double(value - most))
            }
            if isWhole { return sorted.last ?? most }
        }
        return most
    }

    /// −∞ for logits below a limit.
    private func keep(from limit: Float?, in row: inout [Float]) {
        guard let limit else { return }
        for index in row.indices where row[index] < limit { row[index] = -.infinity }
    }

    /// The indices of the `count` largest values, in descending order; of equal values the first ones.
    static func largest(_ count: Int, of row: [Float]) -> [Int] {
        guard count > 0 else { return [] }
        if count > 256 {
            let order = row.indices.sorted { row[$0] > row[$1] || (row[$0] == row[$1] && $0 < $1) }
            return Array(order.prefix(count))
        }
        var best: [Int] = []
        for (index, value) in row.enumerated() {
            if best.count == count {
                guard let last = best.last, value > row[last] else { continue }
                best.removeLast()
            }
            var place = best.count
            while place > 0, row[best[place - 1]] < value { place -= 1 }
            best.insert(index, at: place)
        }
        return best
    }
}
