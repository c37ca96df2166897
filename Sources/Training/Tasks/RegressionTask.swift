import Foundation
import LanguageModels
import PEFTSupport
import Torch

/// Regression of one value.
struct RegressionTask: HeadTask {
    func encode(_ example: Example, _ texts: TextEncoder, needsTarget: Bool) throws -> (
        row: TrainingRow, isTruncated: Bool
    ) {
        var (row, isTruncated) = try text(example, texts)
        if needsTarget { row.score = try Self.number(example) }
        return (row, isTruncated)
    }

    static func number(_ example: Example) throws -> Double {
        guard let number = Double(example.target.trimmingCharacters(in: .whitespaces)), number.isFinite else {
            throw PEFTError(
                "\(example.row): the target '\(example.target)' is not a number",
                remedy: "name a numeric field in --target, or use --task classification")
        }
        return number
    }

    func read(_ outputs: Tensor, rows: [TrainingRow]) throws -> [Prediction] {
        let numbers = outputs.to(.float64).array(Double.self)
        try checkTorchErrors()
        return numbers.map { .number($0) }
    }

    func metrics(_ predictions: [Prediction], of examples: [Example]) throws -> [String: MetricValue] {
        let numbers = predictions.map { if case .number(let number) = $0 { number } else { Double.nan } }
        return try evaluateRegression(predictions: numbers, references: examples.map(Self.number))
    }
}
