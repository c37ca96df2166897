import Testing

@testable import Training

/// The metric that CONTRIBUTING adds.
@Suite struct WalkThroughTests {
    /// A metric in the list is among the values of generated texts, with its interval.
    @Test func aMetricOfTheListScoresTexts() throws {
        let texts = GeneratedTexts(
            predictions: ["abcd", "ab"], references: [["abcdef"], ["abcd", "x"]], prompts: nil, stemming: false)
        let values = try texts.values(of: MetricDescription.all + [LengthMatch.description], .standard)
        let value = try #require(values["lengthMatch"])
        // 4 + 2 characters of 6 + 4.
        #expect(abs(value.value - 0.6) < 1e-12)
        // Resamples with one example twice have 4 / 6 or 2 / 4.
        #expect(value.low == 0.5 && abs(value.high - 2.0 / 3) < 1e-12)
        let others = try evaluateGeneration(predictions: texts.predictions, references: texts.references)
        #expect(Set(values.keys) == Set(others.keys).union(["lengthMatch"]))
        #expect(LengthMatch.description.scale == 100 && LengthMatch.description.higherIsBetter)
    }
}
