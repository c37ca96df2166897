import Foundation
import LanguageModels
import PEFTSupport
import Torch

/// Perplexity: exp of the mean loss per token (not per example), at least 1.
package enum Perplexity {
    /// Its key in reports.
    package static let key = "perplexity"

    static let description = MetricDescription(
        key: key, name: "Perplexity", range: 1 ... .infinity, higherIsBetter: false, unit: "", places: 2,
        explanation: "Exponential of the mean loss per token. Lower is better.")
    static let lossDescription = MetricDescription(
        key: lossKey, name: "Loss", range: 0 ... .infinity, higherIsBetter: false, unit: "nats", places: 3,
        explanation: "Cross-entropy per target token of the test examples, in nats. Lower is better.")
    /// The key of the loss, which reports store beside the metrics.
    package static let lossKey = "loss"

    /// - Parameter losses: for each example, the sum of its tokens' losses in nats, and their number.
    /// - Throws: ``PEFTError`` if there are no examples.
    package static func value(
        _ losses: [(sum: Double, tokens: Int)], bootstrap: Bootstrap = .standard
    ) throws -> MetricValue {
        try bootstrap.value(rows: losses.count) { rows in exp(meanLoss(rows.map { losses[$0] })) }
    }

    /// Loss per token in nats, with its bootstrap interval over examples.
    /// - Throws: ``PEFTError`` if there are no examples.
    package static func loss(
        _ losses: [(sum: Double, tokens: Int)], bootstrap: Bootstrap = .standard
    ) throws -> MetricValue {
        try bootstrap.value(rows: losses.count) { rows in meanLoss(rows.map { losses[$0] }) }
    }

    /// Loss per token in nats.
    package static func meanLoss(_ losses: [(sum: Double, tokens: Int)]) -> Double {
        losses.reduce(0) { $0 + $1.sum } / Double(max(1, losses.reduce(0) { $0 + $1.tokens }))
    }
}

extension LanguageModel {
    /// The summed loss of each example in nats, and its number of target tokens; without dropout and gradients.
    /// - Throws: ``PEFTError`` if a loss is NaN or infinite.
    package func rowLosses(_ examples: [EncodedExample]) throws -> [(sum: Double, tokens: Int)] {
        try withTorchErrors {
            try withoutGradients {
                try examples.map { example in
                    let batch = batch([example])
                    let sum = computing { lossSum(batch, labelSmoothing: 0) }.item()
                    try checkTorchErrors()
                    guard sum.isFinite else { throw nonFinite("losses") }
                    return (sum, batch.targetCount)
                }
            }
        }
    }
}
