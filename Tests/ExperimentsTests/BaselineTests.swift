import Foundation
import PEFTSupport
import TestSupport
import Testing
import Training

@testable import Experiments

@Suite struct BaselineTests {
    private func texts(
        training: [(prompt: String, target: String)], test: [(prompt: String, target: String)],
        topics: [String] = []
    ) throws -> ComparisonData.Texts {
        func examples(_ pairs: [(prompt: String, target: String)], _ file: String) -> [Example] {
            pairs.enumerated().map {
                Example(
                    prompt: "Summarize:\n\($1.prompt)\nSummary: ", target: $1.target,
                    row: .init(file: file, number: $0 + 1))
            }
        }
        var texts = ComparisonData.Texts(
            training: examples(training, "train"), validation: [], test: examples(test, "test"),
            templates: RowTemplates(
                prompt: try Template("Summarize:\n{talk}\nSummary: "), target: try Template("{short}")))
        let rows = (texts.training + texts.test).map(\.row)
        texts.fields["topic"] = Dictionary(uniqueKeysWithValues: zip(rows, topics))
        return texts
    }

    @Test func namesAreReadOnceEach() throws {
        let list = try Baseline.list("constant, typical(topic),longest-line,first-line,constant")
        #expect(list == [.constant, .typical(field: "topic"), .longestLine, .firstLine])
        for name in ["nearest", "typical", "typical()", "typical(topic", ""] {
            #expect(throws: PEFTError.self, "\(name)") { try Baseline(name) }
        }
    }

    @Test func linesAreThoseOfThePromptWithoutLabels() throws {
        let texts = try texts(
            training: [], test: [("#Person1#: Hi.\n#Person2#: I have to tell: I won.\n#Person1#: Oh.", "He won.")])
        #expect(try Baseline.firstLine.outputs(texts) == ["Hi."])
        #expect(try Baseline.longestLine.outputs(texts) == ["I have to tell: I won."])
        #expect(throws: PEFTError.self) { try Baseline.constant.outputs(texts) }
    }

    @Test func typicalTargetsAreClosestToTheOthers() throws {
        let targets = [
            "Tom buys a boat", "Tom buys a red boat", "Ann sells her red boat", "It rains today", "It rains",
        ]
        let texts = try texts(
            training: targets.map { ("x", $0) }, test: [("a", "b"), ("a", "b"), ("a", "b")],
            topics: ["boats", "boats", "boats", "weather", "weather", "boats", "weather", "music"])
        #expect(try Baseline.constant.outputs(texts) == Array(repeating: "Tom buys a red boat", count: 3))
        #expect(
            try Baseline.typical(field: "topic").outputs(texts) == [
                "Tom buys a red boat", "It rains today", "Tom buys a red boat",
            ])
    }

    /// The figures of Examples/dialogues/README.md, which baselines.py computes with the package rouge-score.
    @Test(arguments: [("constant", 27.28), ("typical(topic)", 29.80), ("longest-line", 33.46), ("first-line", 24.53)])
    func scoresOfTheDialogues(name: String, expected: Double) throws {
        let prompt = try Template("Summarize: {dialogue}")
        let templates = RowTemplates(prompt: prompt, target: try Template("{summary}"))
        let folder = Checkout.root.appendingPathComponent("Examples/dialogues")
        let (training, test) = (
            try DataSet.read(folder.appendingPathComponent("train.jsonl")),
            try DataSet.read(folder.appendingPathComponent("test.jsonl"))
        )
        var texts = ComparisonData.Texts(
            training: try templates.examples(from: training), validation: [],
            test: try templates.examples(from: test),
            templates: templates)
        for row in training + test { texts.fields["topic", default: [:]][row.location] = row["topic"]?.string }
        let value = try BaselineResult(Baseline(name), on: texts).quality["rouge1"]
        #expect(abs(100 * (try #require(value).mean) - expected) < 0.02)
    }

    @Test func reportsShowThemBesideTheMethods() throws {
        var report = ReportSamples.oneSeed()
        report.baselines = [
            BaselineResult(label: "constant target", quality: ["rouge1": Statistic([0.25], low: 0.24, high: 0.26)]),
            BaselineResult(label: "longest <line>", quality: ["rouge1": Statistic([0.3], low: 0.28, high: 0.32)]),
        ]
        let table = report.table(color: false, width: 160)
        #expect(table.contains("model-free baselines\nconstant target"))
        func words(_ text: String) -> String { text.split(whereSeparator: \.isWhitespace).joined(separator: " ") }
        #expect(
            words(table).contains(
                "at least 11.0 points better than the best model-free baseline (longest <line>, 30.0)")
        )
        let page = report.html()
        #expect(page.contains("longest &lt;line&gt;") && page.contains("<tbody class=\"baselines\">"))
        let decoded = try JSONDecoder().decode(ComparisonReport.self, from: report.json())
        #expect(decoded.baselines?.map(\.label) == ["constant target", "longest <line>"])
        // A lead within the intervals is none: by the examples' own pairs, or by intervals that overlap.
        let trained = try #require(report.runs.lastIndex { $0.isTrained })
        let quality = try #require(report.runs[trained].quality["rouge1"])
        for (index, run) in report.runs.enumerated() where run.isTrained {
            report.runs[index].quality["rouge1"] = quality
        }
        var near = Statistic([quality.mean - 0.01], low: quality.mean - 0.03, high: quality.mean + 0.01)
        report.baselines?[1].quality["rouge1"] = near
        #expect(
            words(report.table(color: false)).contains(
                "is statistically indistinguishable from the best model-free baseline"))
        near.resampled = (0..<100).map { near.mean + Double($0 % 5) / 1000 }
        for (index, run) in report.runs.enumerated() where run.isTrained {
            report.runs[index].quality["rouge1"]?.resampled = near.resampled.map { $0 + 0.01 }
        }
        report.baselines?[1].quality["rouge1"] = near
        #expect(
            words(report.table(color: false)).contains(
                "at least 1.0 points better than the best model-free baseline"))
        // A method below them is named.
        report.baselines?[1].quality["rouge1"] = Statistic([0.5])
        #expect(words(report.table(color: false)).contains("is not better than the best model-free baseline"))
        report.baselines = nil
        #expect(
            !report.table(color: false).contains("model-free") && !report.html().contains("class=\"baselines\"")
        )
    }
}
