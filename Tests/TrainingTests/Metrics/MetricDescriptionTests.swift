import Testing

@testable import Training

@Suite struct MetricDescriptionTests {
    @Test func keysAreUnique() {
        let keys = MetricDescription.all.map(\.key)
        #expect(Set(keys).count == keys.count)
        #expect(MetricDescription.ordered(["unknown", "bleu", "accuracy"]) == ["accuracy", "bleu", "unknown"])
    }

    @Test(arguments: [
        ("rouge1", 0.0, 1.0, 100.0), ("mcc", -1, 1, 100), ("spearman", -1, 1, 100), ("cider", 0, 10, 1),
        ("nist", 0, .infinity, 1), ("mse", 0, .infinity, 1), ("mae", 0, .infinity, 1), ("loss", 0, .infinity, 1),
        ("perplexity", 1, .infinity, 1), ("unknown", 0, 1, 100),
    ])
    func rangesDetermineScales(_ key: String, _ low: Double, _ high: Double, _ scale: Double) {
        let metric = MetricDescription.of(key)
        #expect(metric.range == low...high && metric.scale == scale, "\(key)")
    }

    /// Every result of an evaluation is described and within its range.
    @Test func resultsAreDescribed() throws {
        let texts = ["one two three four five", "six seven eight", "nine"]
        let references = [["one two four five"], ["six eight seven", "seven"], ["ten"]]
        let classes = ["a", "b", "b", "c"]
        let results = [
            try evaluateGeneration(predictions: texts, references: references, prompts: texts),
            try evaluateClassification(predictions: classes, references: classes.reversed()),
            try evaluateEntities(
                predictions: [["B-x", "O"], ["B-y", "I-y"]], references: [["B-x", "O"], ["O", "B-y"]]),
            try evaluateRegression(predictions: [1, 2, 3], references: [1, 3, 2]),
            try evaluateSimilarity([0.1, 0.2, 0.3], references: [1, 3, 2]),
        ]
        for (key, value) in results.joined() {
            let metric = try #require(MetricDescription.all.first { $0.key == key }, "\(key)")
            #expect(metric.range.contains(value.value), "\(key)")
            #expect(!metric.name.isEmpty && !metric.explanation.isEmpty)
        }
        #expect(results[0]["detailRecall"] != nil)
    }
}
