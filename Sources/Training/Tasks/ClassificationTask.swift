import LanguageModels
import PEFTSupport
import Torch

/// Single-label classification with softmax cross-entropy.
struct ClassificationTask: HeadTask {
    private let numbers: LabelNumbers

    init(labels: [String]) { numbers = LabelNumbers(labels) }

    func encode(_ example: Example, _ texts: TextEncoder, needsTarget: Bool) throws -> (
        row: TrainingRow, isTruncated: Bool
    ) {
        var (row, isTruncated) = try text(example, texts)
        row.target = needsTarget ? [try numbers.number(of: example.target, in: example.row)] : [0]
        return (row, isTruncated)
    }

    func unknownLabels(of example: Example) -> [String] {
        numbers[example.target] == nil ? [example.target] : []
    }

    func read(_ outputs: Tensor, rows: [TrainingRow]) throws -> [Prediction] {
        let (values, indices) = outputs.softmax().topK(1)
        let probabilities = values.to(.float64).array(Double.self)
        let classes = indices.array(Int.self)
        try checkTorchErrors()
        return zip(classes, probabilities).map { .label(numbers.labels[$0], probability: $1) }
    }

    func metrics(_ predictions: [Prediction], of examples: [Example]) throws -> [String: MetricValue] {
        try evaluateClassification(
            predictions: predictions.map(\.text), references: examples.map { numbers.canonical($0.target) })
    }
}
