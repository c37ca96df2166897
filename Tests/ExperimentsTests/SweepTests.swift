import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Testing
import Torch

@testable import Experiments

@Suite struct SweepTests {
    private func points(_ qualities: [(String, [Double])]) -> [SweepReport.Point] {
        qualities.enumerated().map { index, entry in
            .init(
                value: entry.0,
                run: ReportSamples.run("lora", entry.0, rouge1: entry.1, trainable: 100 << index))
        }
    }

    @Test func thePlateauIsTheSmallestWithinOneDeviationOfTheBest() {
        let points = points([
            ("1", [0.20, 0.22]), ("2", [0.385, 0.395]), ("4", [0.40, 0.40]), ("8", [0.39, 0.43]),
            ("16", [0.40, 0.40]),
        ])
        // The best is 8 with 41.0 ± 2.8: 2 lies at 39.0.
        let (best, plateau) = SweepReport.plateau(points, metric: Metric(key: "rouge1"))
        #expect((best, plateau) == ("8", "2"))
    }

    @Test func theOrderOfValuesDoesNotMatter() {
        var shuffled = points([("1", [0.39, 0.41]), ("2", [0.38, 0.42]), ("4", [0.41, 0.43])])
        shuffled.reverse()
        #expect(SweepReport.plateau(shuffled, metric: Metric(key: "rouge1")).plateau == "4")
        let wide = points([("1", [0.39, 0.41]), ("2", [0.38, 0.46])]).reversed()
        #expect(SweepReport.plateau(Array(wide), metric: Metric(key: "rouge1")).plateau == "1")
    }

    @Test func oneSeedMarksNoPlateau() {
        let (best, plateau) = SweepReport.plateau(
            points([("1", [0.2]), ("2", [0.3])]), metric: Metric(key: "rouge1"))
        #expect(best == "2")
        #expect(plateau == nil)
    }

    @Test func lossIsBetterWhenLower() {
        var points = points([("1", [0.2]), ("2", [0.3])])
        points[0].run.loss = Statistic([1.0, 1.2])
        points[1].run.loss = Statistic([1.4, 1.5])
        #expect(SweepReport.plateau(points, metric: .loss).best == "1")
    }

    @Test(arguments: [
        (["4"], "a sweep needs at least 2 values of --rank (got 1)"),
        (["1", "16", "8", "16", "8"], "--rank lists the value '16' twice; list each value once"),
    ])
    func impossibleListsOfValuesAreRejected(values: [String], message: String) {
        let question = Sweep.Question(choice: MethodChoice(LoRA.self), field: "rank", values: values)
        #expect { try question.validate() } throws: { ($0 as? PEFTError)?.description == message }
    }

    // MARK: Budgets

    private func outline() throws -> ModelOutline {
        ModelOutline(
            try ModelRegistry.outline(
                [
                    "model_type": "t5", "vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2,
                    "num_heads": 4, "feed_forward_proj": "gated-gelu",
                ], file: "config.json"))
    }

    @Test(arguments: ["q", "q,v", "all-linear"]) func aBudgetIsMetAsNearlyAsARankAllows(targets: String) throws {
        let outline = try outline()
        var choice = MethodChoice(LoRA.self)
        try choice.set("targets", to: targets)
        func count(_ rank: Int) throws -> Int {
            var candidate = choice
            try candidate.set("rank", to: String(rank))
            return PlanSummary(try candidate.plan(for: outline), outline: outline).trainable
        }
        for budget in [1, 2000, 5000, 20_000] {
            let fitted = try Sweep.fitted(choice, field: "rank", to: budget, outline)
            let found = PlanSummary(try fitted.plan(for: outline), outline: outline).trainable
            let nearest = try (1...200).map { abs(try count($0) - budget) }.min()
            #expect(abs(found - budget) == nearest)
        }
    }

    // MARK: Subspaces

    private func basis(_ rows: [[Double]], value: String, seed: Int = 0) -> SubspaceBasis {
        let matrix = Tensor(rows.flatMap(\.self), shape: [rows.count, rows[0].count])
        return SubspaceBasis(value: value, seed: seed, directions: ["q": matrix.svd().vh])
    }

    @Test func similarityIsTheOneOfThePaper() throws {
        // A spans e1 and e2, the stronger first; B spans e2 alone, C nothing of it.
        let a = basis([[2, 0, 0, 0], [0, 1, 0, 0]], value: "2")
        let b = basis([[0, 3, 0, 0]], value: "1")
        let c = basis([[0, 0, 0, 1]], value: "c")
        let pairs = try SubspaceSimilarity.pairs([b, a, c], values: ["1", "2", "c"])
        let ab = try #require(pairs.first { $0.from == "1" && $0.to == "2" })
        #expect(abs(ab.whole - 1) < 1e-12)
        #expect(abs(ab.first) < 1e-12)
        #expect(ab.grid.map(\.count) == [2])
        #expect(abs(ab.random - 0.5) < 1e-12)
        let ac = try #require(pairs.first { $0.from == "2" && $0.to == "c" })
        #expect(abs(ac.whole) < 1e-12)
        let same = try SubspaceSimilarity.pairs(
            [a, basis([[0, 5, 0, 0], [9, 0, 0, 0]], value: "2", seed: 1)], values: ["2"])
        #expect(same.count == 1 && same[0].isBetweenSeeds)
        #expect(abs(same[0].whole - 1) < 1e-12)
    }

    @Test func thePageAndTheTableSayWhatWasFound() {
        let report = SweepReport(
            ReportSamples.report(
                points([("1", [0.20, 0.22]), ("2", [0.39, 0.43]), ("4", [0.40, 0.44])]).map(\.run)),
            field: "rank", method: "lora", values: ["1", "2", "4"], budget: nil, similarity: [])
        #expect((report.best, report.plateau) == ("4", "2"))
        let table = report.table()
        #expect(table.contains("The plateau begins at rank 2: ROUGE-1 41.0, within one standard deviation (2.8)"))
        // The columns of comparisons, with the standard deviation that the sentences name.
        let lines = table.split(separator: "\n")
        #expect(lines[1].hasPrefix("rank    ROUGE-1"))
        #expect(lines[4].hasPrefix("2     41.0 ±2.8") && lines[4].hasSuffix("plateau"))
        #expect(lines[5].hasPrefix("4     42.0 ±2.8") && lines[5].hasSuffix("best"))
        // Where there is little room, the least important are left out.
        let narrow = report.table(width: 40)
        #expect(table.contains("learn.") && !narrow.contains("learn.") && narrow.contains("parameters"))
        let page = report.html()
        #expect(page.contains("Quality over rank"))
        // The chart has the spread that the table has.
        #expect(
            page.contains("class=\"interval\"") && page.contains("Error bars are ± one standard deviation over seeds")
        )
        #expect(!page.contains("nan"))
    }
}
