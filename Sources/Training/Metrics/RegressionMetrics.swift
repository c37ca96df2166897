import PEFTSupport

/// The metrics of ``evaluateRegression(predictions:references:bootstrap:)``; raw values are their
/// keys in reports.
package enum RegressionMetric: String, CaseIterable, Sendable, Codable {
    /// Pearson correlation of the values and Spearman correlation of their ranks, in −1 … 1; 0 if all predictions are equal.
    case pearson, spearman
    /// Mean squared error and mean absolute error, at least 0 and unbounded; lower is better.
    case mse, mae

    static let descriptions = [
        MetricDescription(
            key: RegressionMetric.spearman.rawValue, name: "Spearman", range: -1...1,
            explanation: Correlation.spearmanExplanation),
        MetricDescription(
            key: RegressionMetric.pearson.rawValue, name: "Pearson", range: -1...1,
            explanation: Correlation.pearsonExplanation),
        MetricDescription(
            key: RegressionMetric.mse.rawValue, name: "MSE", range: 0 ... .infinity, higherIsBetter: false, unit: "",
            places: 3, explanation: "Mean squared error. Lower is better."),
        MetricDescription(
            key: RegressionMetric.mae.rawValue, name: "MAE", range: 0 ... .infinity, higherIsBetter: false, unit: "",
            places: 3, explanation: "Mean absolute error. Lower is better."),
    ]
}

/// Evaluates predicted values against the true ones.
/// - Returns: every ``RegressionMetric`` by its raw value.
/// - Throws: ``PEFTError`` for lists of different length or an empty list.
package func evaluateRegression(
    predictions: [Double], references: [Double], bootstrap: Bootstrap = .standard
) throws -> [String: MetricValue] {
    try checkPairs(predictions: predictions.map { "\($0)" }, references: references.map { ["\($0)"] })
    func correlation(_ of: ([Double], [Double]) -> Double) throws -> MetricValue {
        try bootstrap.value(rows: predictions.count) { rows in
            of(rows.map { predictions[$0] }, rows.map { references[$0] })
        }
    }
    let errors = zip(predictions, references).map { $0 - $1 }
    return [
        RegressionMetric.pearson.rawValue: try correlation(Correlation.pearson),
        RegressionMetric.spearman.rawValue: try correlation(Correlation.spearman),
        RegressionMetric.mse.rawValue: try bootstrap.mean(of: errors.map { $0 * $0 }),
        RegressionMetric.mae.rawValue: try bootstrap.mean(of: errors.map(abs)),
    ]
}
