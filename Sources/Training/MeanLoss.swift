import LanguageModels
import PEFTSupport
import Torch

extension LanguageModel {
    /// Loss per target token, in nats, without dropout and gradients.
    package func meanLoss(_ examples: [EncodedExample], batchSize: Int) throws -> Double {
        try meanLoss(examples, batchSize: batchSize, isStopping: { false }) ?? .nan
    }

    /// - Returns: `nil` if stopped before a batch.
    func meanLoss(_ examples: [EncodedExample], batchSize: Int, isStopping: () -> Bool) throws -> Double? {
        try lossSum(of: examples, batchSize: batchSize, isStopping: isStopping) { _ in true }
            .map { $0.sum / Double(max(1, $0.targets)) }
    }

    /// The loss over those batches whose number `includes` accepts.
    /// - Parameter idlePasses: passes whose loss doesn't count.
    /// - Returns: `nil` if stopped before a batch.
    func lossSum(
        of examples: [EncodedExample], batchSize: Int, isStopping: () -> Bool, idlePasses: Int = 0,
        includes: (Int) -> Bool
    ) throws -> (sum: Double, targets: Int)? {
        guard !examples.isEmpty else { throw PEFTError("there are no examples to evaluate the loss on") }
        // Batches of similar length, the longest first, so that memory peaks only once.
        let order = examples.indices.sorted {
            (examples[$0].length, $0) > (examples[$1].length, $1)
        }
        return try withTorchErrors {
            withoutGradients {
                var sum = 0.0
                var targets = 0
                for (number, start) in stride(from: 0, to: order.count, by: batchSize).enumerated()
                where includes(number) {
                    guard !isStopping() else { return nil }
                    let part = order[start..<min(start + batchSize, order.count)]
                    let batch = batch(part.map { examples[$0] })
                    sum += computing { lossSum(batch, labelSmoothing: 0) }.item()
                    targets += batch.targetCount
                }
                for _ in 0..<idlePasses {
                    let batch = batch(order.suffix(1).map { examples[$0] })
                    _ = computing { lossSum(batch, labelSmoothing: 0) }.item()
                }
                return (sum, targets)
            }
        }
    }
}
