import Foundation
import PEFTSupport
import Testing

@testable import Training

@Suite struct GenerationMetricsTests {
    @Test func agreesWithGoldenMeans() throws {
        let golden = try Fixture.read(GoldenPairs.self, from: "pairs")
        let metrics = try evaluateGeneration(
            predictions: golden.rows.map(\.prediction), references: golden.rows.map(\.references))
        let known = MetricDescription.all.filter { $0.scoreTexts != nil }.map(\.key)
        #expect(Set(metrics.keys) == Set(known).subtracting([DetailRecall.key]))
        for variant in ROUGE.Variant.allCases {
            let expected = golden.rows.reduce(0) { $0 + ($1.stemmed[variant.rawValue]?[2] ?? .nan) }
            let value = try #require(metrics[variant.rawValue])
            #expect(agrees(value.value, expected / Double(golden.rows.count)))
        }
        let whole = try #require(golden.corpora.first { $0.rows == [0, golden.rows.count] })
        #expect(agrees(try #require(metrics["bleu"]).value, whole.bleu))
        for (name, metric) in metrics {
            #expect(0 <= metric.low && metric.low <= metric.value, "\(name)")
            #expect(metric.value <= metric.high, "\(name)")
            #expect(metric.high <= (name == "nist" ? 20 : name == "cider" ? 10 : 1), "\(name)")
        }
    }

    @Test func perfectPredictionsScoreOne() throws {
        let texts = ["one two three four five", "six seven eight nine ten"]
        let metrics = try evaluateGeneration(predictions: texts, references: texts.map { [$0] })
        for (name, metric) in metrics where name != "nist" {
            // Five words in one chunk: METEOR's penalty is ½ · (1/5)³.
            let expected = name == "cider" ? 10 : name == "meteor" ? 1 - 0.5 / 125 : 1
            #expect(abs(metric.value - expected) < 1e-12 && abs(metric.low - expected) < 1e-12, "\(name)")
        }
    }

    @Test func isDeterministicAndCodable() throws {
        let predictions = ["a cat sat on the mat", "dogs bark", ""]
        let references = [["the cat sat on the mat", "a cat sat"], ["dogs barked"], ["nothing"]]
        let first = try evaluateGeneration(predictions: predictions, references: references)
        #expect(try evaluateGeneration(predictions: predictions, references: references) == first)
        let decoded = try JSONDecoder().decode([String: MetricValue].self, from: JSONEncoder().encode(first))
        #expect(decoded == first)
    }

    @Test func stemmingMatters() throws {
        let plain = try evaluateGeneration(
            predictions: ["dogs barking"], references: [["dogs barked"]], stemming: false)
        let stemmed = try evaluateGeneration(predictions: ["dogs barking"], references: [["dogs barked"]])
        #expect(plain["rouge1"]?.value == 0.5)
        #expect(stemmed["rouge1"]?.value == 1)
    }

    @Test func malformedListsNameTheProblem() {
        #expect(throws: PEFTError("there are no predictions to evaluate", remedy: "provide at least one")) {
            try evaluateGeneration(predictions: [], references: [])
        }
        #expect(throws: PEFTError("example 2 has no reference", remedy: "each prediction needs at least one")) {
            try evaluateGeneration(predictions: ["a", "b"], references: [["a"], []])
        }
        #expect(throws: PEFTError.self) { try evaluateGeneration(predictions: ["a"], references: []) }
    }
}
