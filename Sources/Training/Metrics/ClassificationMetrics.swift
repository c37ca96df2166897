import Support

/// The metrics of classes that ``evaluateClassification(predictions:references:bootstrap:)`` computes; raw values are
/// their keys in reports.
public enum ClassificationMetric: String, CaseIterable, Sendable, Codable {
    /// Share of rows whose class is right.
    case accuracy
    /// F1 of each class that occurs, averaged with equal weight.
    case macroF1
}

/// Scores predicted classes against the right ones.
/// - Returns: every ``ClassificationMetric`` by its raw value, each in 0 … 1.
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
    let macro = try bootstrap.value(rows: right.count) { rows in
        var hits = [Int](repeating: 0, count: names.count)
        var claimed = hits
        var actual = hits
        for row in rows {
            claimed[predicted[row]] += 1
            actual[right[row]] += 1
            if predicted[row] == right[row] { hits[right[row]] += 1 }
        }
        // As scikit-learn averages: over the classes that occur among predictions or references.
        let scores = names.indices.filter { claimed[$0] + actual[$0] > 0 }.map {
            2 * Double(hits[$0]) / Double(claimed[$0] + actual[$0])
        }
        return scores.reduce(0, +) / Double(max(1, scores.count))
    }
    return [ClassificationMetric.accuracy.rawValue: accuracy, ClassificationMetric.macroF1.rawValue: macro]
}
