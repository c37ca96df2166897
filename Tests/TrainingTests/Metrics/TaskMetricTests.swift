import PEFTSupport
import Testing

@testable import Training

/// The metrics of tasks against scikit-learn, SciPy and seqeval (`make_task_metric_fixtures.py`).
@Suite struct TaskMetricTests {
    private static let fixture = try? Fixture.read(JSON.self, from: "task-metrics")
    private static let few = try? Bootstrap(resamples: 20)

    private func cases(_ key: String) throws -> [JSON] {
        let cases = try #require(Self.fixture?[key]?.array)
        #expect(!cases.isEmpty)
        return cases
    }

    private func expect(
        _ made: [String: MetricValue], _ item: JSON, sourceLocation: SourceLocation = #_sourceLocation
    ) {
        #expect(!made.isEmpty, sourceLocation: sourceLocation)
        for (key, value) in made {
            let expected = item[key]?.double ?? .nan
            #expect(abs(value.value - expected) < 1e-9, "\(key)", sourceLocation: sourceLocation)
            #expect(value.low <= value.high, "\(key)", sourceLocation: sourceLocation)
        }
    }

    private func texts(_ value: JSON?) -> [String] { (value?.array ?? []).compactMap(\.string) }

    @Test func classes() throws {
        let few = try #require(Self.few)
        for item in try cases("classes") {
            let made = try evaluateClassification(
                predictions: texts(item["predictions"]), references: texts(item["references"]), bootstrap: few)
            #expect(Set(made.keys) == Set(ClassificationMetric.allCases.map(\.rawValue)))
            expect(made, item)
        }
    }

    @Test func labels() throws {
        let few = try #require(Self.few)
        func sets(_ value: JSON?) -> [Set<String>] { (value?.array ?? []).map { Set(texts($0)) } }
        for item in try cases("labels") {
            expect(
                try evaluateMultiLabel(
                    predictions: sets(item["predictions"]), references: sets(item["references"]),
                    labels: texts(Self.fixture?["labelNames"]), bootstrap: few), item)
        }
    }

    @Test func numbers() throws {
        let few = try #require(Self.few)
        func values(_ value: JSON?) -> [Double] { (value?.array ?? []).compactMap(\.double) }
        for item in try cases("numbers") {
            expect(
                try evaluateRegression(
                    predictions: values(item["predictions"]), references: values(item["references"]), bootstrap: few),
                item)
        }
        #expect(Correlation.pearson([1, 1, 1], [1, 2, 3]) == 0)
        #expect(Correlation.ranks([3, 1, 3, 2]) == [3.5, 1, 3.5, 2])
    }

    @Test func entities() throws {
        let few = try #require(Self.few)
        func rows(_ value: JSON?) -> [[String]] { (value?.array ?? []).map(texts) }
        for item in try cases("entities") {
            expect(
                try evaluateEntities(
                    predictions: rows(item["predictions"]), references: rows(item["references"]), bootstrap: few),
                item)
        }
        #expect(throws: PEFTError.self) { try evaluateEntities(predictions: [["O"]], references: [["O", "O"]]) }
    }

    @Test func vectors() throws {
        func matrix(_ value: JSON?) -> [[Float]] {
            (value?.array ?? []).map { ($0.array ?? []).compactMap(\.double).map(Float.init) }
        }
        let item = try #require(Self.fixture?["retrieval"])
        expect(
            try evaluateRetrieval(
                queries: matrix(item["queries"]), documents: matrix(item["documents"]), names: texts(item["names"])),
            item)
        let recall = item["recall1"]?.double ?? 0
        #expect(recall > 0 && recall < 1)
    }

    @Test func perplexityIsOverTokens() throws {
        let value = try Perplexity.value([(sum: 2, tokens: 1), (sum: 1, tokens: 5)])
        #expect(abs(value.value - 1.6487212707001282) < 1e-12)
    }
}
