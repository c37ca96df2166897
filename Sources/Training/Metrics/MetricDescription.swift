/// What reports say about a metric, declared beside its arithmetic and listed in ``all``.
package struct MetricDescription: Sendable {
    /// Where a place has room for a few metrics only.
    package enum Prominence: Sendable {
        /// Shown while there is room, in the order of ``MetricDescription/all``.
        case ordinary
        /// Shown beside the others.
        case always
        /// Left to the table of all results.
        case never
    }

    /// Its key in reports and in the results of an evaluation.
    package let key: String
    /// Its name for readers.
    package let name: String
    /// The values it can have. An infinite bound means that there is none.
    package let range: ClosedRange<Double>
    package let higherIsBetter: Bool
    /// The unit of displayed values; may be empty.
    package let unit: String
    /// Decimal places of displayed values.
    package let places: Int
    /// What it measures, in a sentence.
    package let explanation: String
    package let prominence: Prominence
    /// The score of generated texts, `nil` if they have none; no function for metrics of models with a head and of losses, which
    /// their tasks and the evaluator compute.
    let scoreTexts: TextScore?

    typealias TextScore = @Sendable (GeneratedTexts, Bootstrap) throws -> MetricValue?

    /// A metric is shown in percent points with one decimal place unless declared otherwise.
    init(
        key: String, name: String, range: ClosedRange<Double> = 0...1, higherIsBetter: Bool = true,
        unit: String = "points", places: Int = 1, prominence: Prominence = .ordinary, explanation: String,
        scoreTexts: TextScore? = nil
    ) {
        (self.key, self.name, self.range, self.higherIsBetter) = (key, name, range, higherIsBetter)
        (self.unit, self.places, self.prominence) = (unit, places, prominence)
        (self.explanation, self.scoreTexts) = (explanation, scoreTexts)
    }

    /// Factor from the value to the displayed one: 100 for scores and correlations, 1 for values outside −1 … 1.
    package var scale: Double { range.lowerBound >= -1 && range.upperBound <= 1 ? 100 : 1 }
}

extension MetricDescription {
    /// Every metric, in the order that reports show them. A new metric is one line here.
    package static let all: [MetricDescription] = [
        ClassificationMetric.descriptions,
        EntityMetric.descriptions,
        RegressionMetric.descriptions,
        EmbeddingMetric.descriptions,
        [ROUGE.rouge1, ROUGE.rouge2, ROUGE.rougeL],
        [DetailRecall.description],
        [ROUGE.rougeLsum],
        [BLEU.description],
        [NIST.description],
        [METEOR.description],
        [CIDEr.description],
        [ExactMatch.description],
        [Perplexity.description],
        [Perplexity.lossDescription],
    ].flatMap(\.self)

    private static let byKey = Dictionary(all.map { ($0.key, $0) }, uniquingKeysWith: { first, _ in first })

    /// The metric with a key; one that is not in the list, such as a later version's, counts as a score in 0 … 1.
    package static func of(_ key: String) -> MetricDescription {
        byKey[key]
            ?? MetricDescription(
                key: key, name: key, explanation: "A score between 0 and 1, in percent. Higher is better.")
    }

    /// Keys in the order that readers expect; unknown ones follow by name.
    package static func ordered(_ keys: Set<String>) -> [String] {
        let known = all.map(\.key).filter(keys.contains)
        return known + keys.subtracting(known).sorted()
    }
}
