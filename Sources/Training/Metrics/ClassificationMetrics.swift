import PEFTSupport

/// The metrics of ``evaluateClassification(predictions:references:bootstrap:)``; raw values are
/// their keys in reports.
package enum ClassificationMetric: String, CaseIterable, Sendable, Codable {
    /// Fraction of examples with the correct class, in 0 … 1.
    case accuracy
    /// F1 averaged over the classes that occur, with equal weights, in 0 … 1.
    case macroF1
    /// F1 over all decisions pooled, in 0 … 1; equal to the accuracy if each example has one class.
    case microF1
    /// Matthews correlation coefficient of predicted and true classes (Gorodkin 2004 for more than two), in −1 … 1.
    case mcc

    static let descriptions = allCases.map(\.description)

    private var description: MetricDescription {
        switch self {
        case .accuracy:
            MetricDescription(
                key: rawValue, name: "Accuracy",
                explanation: "Examples with the correct class, in percent. Higher is better.")
        case .macroF1:
            MetricDescription(
                key: rawValue, name: "Macro F1",
                explanation:
                    "F1 per class, averaged with equal weights, in percent: rare classes count as much as frequent ones."
            )
        case .microF1:
            MetricDescription(
                key: rawValue, name: "Micro F1",
                explanation: "F1 over all decisions pooled, in percent: frequent classes count more.")
        case .mcc:
            MetricDescription(
                key: rawValue, name: "MCC", range: -1...1,
                explanation:
                    "Matthews correlation of predicted and true classes, times 100: −100 … 100, where 0 is chance level."
            )
        }
    }
}

/// Evaluates predicted classes against the true ones.
/// - Returns: every ``ClassificationMetric`` by its raw value, each in 0 … 1 except ``ClassificationMetric/mcc`` in −1 … 1.
/// - Throws: ``PEFTError`` for lists of different length or an empty list.
public func evaluateClassification(
    predictions: [String], references: [String], bootstrap: Bootstrap = .standard
) throws -> [String: MetricValue] {
    try checkPairs(predictions: predictions, references: references.map { [$0] })
    let names = Array(Set(predictions + references)).sorted()
    let numbers = Dictionary(uniqueKeysWithValues: names.enumerated().map { ($1, $0) })
    let predicted = predictions.map { numbers[$0] ?? 0 }
    let right = references.map { numbers[$0] ?? 0 }
    let accuracy = try bootstrap.mean(of: zip(predicted, right).map { $0 == $1 ? 1 : 0 })
    func counted(_ of: (ClassCounts) -> Double) throws -> MetricValue {
        try bootstrap.value(rows: right.count) { rows in
            var counts = ClassCounts(classes: names.count)
            for row in rows { counts.add(predicted: predicted[row], right: right[row]) }
            return of(counts)
        }
    }
    return [
        ClassificationMetric.accuracy.rawValue: accuracy,
        ClassificationMetric.macroF1.rawValue: try counted(\.macroF1),
        ClassificationMetric.microF1.rawValue: try counted(\.microF1),
        ClassificationMetric.mcc.rawValue: try counted(\.mcc),
    ]
}

/// Evaluates predicted label sets against the true ones: subset accuracy, and micro and macro F1 over
/// labels.
///
/// - Parameter labels: all labels. The macro average is over all of them, as scikit-learn's is over the
///   columns of its matrix; a label that neither occurs nor is predicted counts 0.
/// - Throws: ``PEFTError`` for lists of different length or an empty list.
package func evaluateMultiLabel(
    predictions: [Set<String>], references: [Set<String>], labels: [String], bootstrap: Bootstrap = .standard
) throws -> [String: MetricValue] {
    try checkPairs(predictions: predictions.map { "\($0.count)" }, references: references.map { _ in [""] })
    let numbers = Dictionary(labels.enumerated().map { ($1, $0) }, uniquingKeysWith: { first, _ in first })
    let predicted = predictions.map { $0.compactMap { numbers[$0] } }
    let right = references.map { $0.compactMap { numbers[$0] } }
    func counted(_ of: (ClassCounts) -> Double) throws -> MetricValue {
        try bootstrap.value(rows: right.count) { rows in
            var counts = ClassCounts(classes: labels.count)
            for row in rows { counts.add(predicted: predicted[row], right: right[row]) }
            return of(counts)
        }
    }
    return [
        ClassificationMetric.accuracy.rawValue: try bootstrap.mean(
            of: zip(predictions, references).map { $0 == $1 ? 1 : 0 }),
        ClassificationMetric.microF1.rawValue: try counted(\.microF1),
        ClassificationMetric.macroF1.rawValue: try counted { counts in
            counts.scores().reduce(0, +) / Double(max(1, labels.count))
        },
    ]
}

/// Counts of predictions, of true labels and of correct predictions per class.
private struct ClassCounts {
    private var hits: [Int]
    private var claimed: [Int]
    private var actual: [Int]
    private var rows = 0

    init(classes: Int) {
        hits = Array(repeating: 0, count: classes)
        (claimed, actual) = (hits, hits)
    }

    mutating func add(predicted: Int, right: Int) {
        rows += 1
        claimed[predicted] += 1
        actual[right] += 1
        if predicted == right { hits[right] += 1 }
    }

    mutating func add(predicted: [Int], right: [Int]) {
        rows += 1
        for label in predicted { claimed[label] += 1 }
        for label in right {
            actual[label] += 1
            if predicted.contains(label) { hits[label] += 1 }
        }
    }

    /// F1 of each class that occurs among predictions or references.
    func scores() -> [Double] {
        hits.indices.filter { claimed[$0] + actual[$0] > 0 }.map {
            2 * Double(hits[$0]) / Double(claimed[$0] + actual[$0])
        }
    }

    /// As scikit-learn averages: over the classes that occur.
    var macroF1: Double {
        let scores = scores()
        return scores.reduce(0, +) / Double(max(1, scores.count))
    }

    var microF1: Double {
        let all = claimed.reduce(0, +) + actual.reduce(0, +)
        return all > 0 ? 2 * Double(hits.reduce(0, +)) / Double(all) : 0
    }

    /// 0 if all predictions, or all true classes, are the same.
    var mcc: Double {
        let (s, c) = (Double(rows), Double(hits.reduce(0, +)))
        let product = zip(claimed, actual).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
        let first = s * s - claimed.reduce(0.0) { $0 + Double($1) * Double($1) }
        let second = s * s - actual.reduce(0.0) { $0 + Double($1) * Double($1) }
        return first > 0 && second > 0 ? (c * s - product) / (first * second).squareRoot() : 0
    }
}
