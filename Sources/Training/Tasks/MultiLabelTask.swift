import LanguageModels
import PEFTSupport
import Torch

/// Multi-label classification with binary cross-entropy. A target has zero or more labels, one per line, as a list field
/// renders in a template.
struct MultiLabelTask: HeadTask {
    private let numbers: LabelNumbers

    init(labels: [String]) { numbers = LabelNumbers(labels) }

    /// The labels of a target.
    static func labels(_ target: String) -> [String] {
        target.split(separator: "\n").map { $0.trimmingPrefix { $0 == " " } }.filter { !$0.isEmpty }
            .map(String.init)
    }

    func encode(_ example: Example, _ texts: TextEncoder, needsTarget: Bool) throws -> (
        row: TrainingRow, isTruncated: Bool
    ) {
        var (row, isTruncated) = try text(example, texts)
        if needsTarget {
            row.target = try Self.labels(example.target).map { try numbers.number(of: $0, in: example.row) }
        }
        return (row, isTruncated)
    }

    func unknownLabels(of example: Example) -> [String] {
        Self.labels(example.target).filter { numbers[$0] == nil }
    }

    func read(_ outputs: Tensor, rows: [TrainingRow]) throws -> [Prediction] {
        let all = outputs.sigmoid().to(.float64).array(Double.self)
        try checkTorchErrors()
        let count = numbers.labels.count
        return rows.indices.map { row in
            let own = all[(row * count)..<((row + 1) * count)]
            let likely = own.indices.filter { own[$0] > 0.5 }
            return .labels(
                likely.map { numbers.labels[$0 - own.startIndex] }, probabilities: likely.map { own[$0] })
        }
    }

    func metrics(_ predictions: [Prediction], of examples: [Example]) throws -> [String: MetricValue] {
        // Labels that the model doesn't have count as missed.
        let unknown = Set(examples.flatMap(unknownLabels)).sorted()
        return try evaluateMultiLabel(
            predictions: predictions.map { Set(Self.labels($0.text)) },
            references: examples.map { Set(Self.labels($0.target).map(numbers.canonical)) },
            labels: numbers.labels + unknown)
    }
}
