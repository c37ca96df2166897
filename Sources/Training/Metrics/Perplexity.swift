import Foundation
import LanguageModels
import Support
import Torch

/// exp of the mean loss, the mean being over tokens and not over rows.
public enum Perplexity {
    /// Its key in reports.
    public static let key = "perplexity"

    /// - Parameter losses: of each row the sum of its tokens' losses in nats, and their number.
    /// - Throws: ``PEFTError`` where there are no rows.
    public static func value(
        _ losses: [(sum: Double, tokens: Int)], bootstrap: Bootstrap = .standard
    ) throws -> MetricValue {
        try bootstrap.value(rows: losses.count) { rows in exp(meanLoss(rows.map { losses[$0] })) }
    }

    /// Loss per token, with its interval over rows.
    /// - Throws: ``PEFTError`` where there are no rows.
    public static func loss(
        _ losses: [(sum: Double, tokens: Int)], bootstrap: Bootstrap = .standard
    ) throws -> MetricValue {
        try bootstrap.value(rows: losses.count) { rows in meanLoss(rows.map { losses[$0] }) }
    }

    /// Loss per token.
    public static func meanLoss(_ losses: [(sum: Double, tokens: Int)]) -> Double {
        losses.reduce(0) { $0 + $1.sum } / Double(max(1, losses.reduce(0) { $0 + $1.tokens }))
    }
}

extension LanguageModel {
    /// The loss of each row, in nats, and the tokens that it is the sum over; without dropout and gradients.
    /// - Throws: ``PEFTError`` where a loss is NaN or infinite.
    public func rowLosses(_ examples: [EncodedExample]) throws -> [(sum: Double, tokens: Int)] {
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
