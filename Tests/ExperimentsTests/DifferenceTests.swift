import Foundation
import PEFTSupport
import Testing
import Training

@testable import Experiments

/// Verdicts by paired differences, on rows that were made up for it.
@Suite struct DifferenceTests {
    private static let rows = 200
    /// How hard each row is: methods agree on that.
    private static let hardness: [Double] = {
        var random = SeededRandom(seed: 7)
        return (0..<rows).map { _ in Double(random.below(1000)) / 1000 }
    }()

    private func run(_ method: String, _ seeds: [[Double]], trainable: Int = 1000) throws -> MethodRun {
        var run = MethodRun(method: method, label: method)
        run.quality["rouge1"] = Statistic(try seeds.map { try Bootstrap.standard.mean(of: $0) })
        run.trainable = trainable
        run.total = 10_000
        return run
    }

    private func compared(_ runs: [MethodRun]) -> ComparisonReport {
        var report = ReportSamples.report(runs)
        report.findDifferences()
        return report
    }

    /// Better by 0.05 on every row but for a little noise.
    private func smallSteadyGain() throws -> ComparisonReport {
        var random = SeededRandom(seed: 8)
        let better = Self.hardness.map { $0 + 0.05 + Double(random.below(100)) / 1e4 }
        return compared([
            try run("base", [Self.hardness.map { $0 / 4 }]), try run("lora", [Self.hardness]),
            try run("dora", [better]),
        ])
    }

    @Test func intervalsOverlapAndPairsDiffer() throws {
        let report = try smallSteadyGain()
        let rouge = Metric(key: "rouge1")
        let (lora, dora) = (report.reportedRuns[1], report.reportedRuns[2])
        #expect(
            try #require(lora.statistic(rouge)).overlaps(try #require(dora.statistic(rouge)), over: .testRows) == true
        )
        #expect(report.isWithinSpread(lora, of: dora, by: rouge) == false)
        let difference = try #require(report.difference(of: lora, to: dora, by: rouge))
        #expect(abs(difference.value + 0.055) < 0.001)
        #expect(difference.low < difference.value && difference.value < difference.high && difference.high < -0.05)
        let verdict = Verdict(report, numbers: .terminal)
        #expect(verdict.rivals == nil)
        #expect(verdict.choice?.contains("is clearly the best") == true)
        #expect(verdict.spread?.contains("paired bootstrap") == true)
    }

    @Test func theIntervalIsThatOfTheRowsDifferences() throws {
        // The bootstrap of a mean of differences has the standard error s / √n.
        var random = SeededRandom(seed: 9)
        let other = Self.hardness.map { $0 + Double(random.below(1000)) / 1e4 - 0.05 }
        let differences = zip(other, Self.hardness).map { $0 - $1 }
        let mean = differences.reduce(0, +) / Double(Self.rows)
        let variance = differences.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(Self.rows)
        let error = (variance / Double(Self.rows)).squareRoot()
        let report = compared([try run("lora", [Self.hardness]), try run("dora", [other])])
        let found = try #require(
            report.difference(of: report.reportedRuns[1], to: report.reportedRuns[0], by: Metric(key: "rouge1")))
        #expect(abs(found.value - mean) < 1e-12)
        #expect(abs((found.high - found.low) / (2 * 1.96 * error) - 1) < 0.1)
    }

    @Test func rowsDifferButSeedsDoNotTell() throws {
        // With one seed the gap is clear; another seed turns it round.
        let (low, high) = (Self.hardness, Self.hardness.map { $0 + 0.3 })
        let rouge = Metric(key: "rouge1")
        let one = compared([try run("lora", [low]), try run("dora", [high])])
        #expect(one.isWithinSpread(one.reportedRuns[0], of: one.reportedRuns[1], by: rouge) == false)
        #expect(
            try #require(one.runs[0].statistic(rouge)).overlaps(
                try #require(one.runs[1].statistic(rouge)), over: .testRows) == false)
        let three = compared([try run("lora", [low, high, low]), try run("dora", [high, low, high])])
        #expect(three.isWithinSpread(three.reportedRuns[0], of: three.reportedRuns[1], by: rouge) == true)
    }

    @Test func twoDeviationsApartIsNotSureWithTwoSeeds() throws {
        // 42 ± 1.4 and 39 ± 1.4: the bars don't touch, and t with 2 degrees of freedom is 4.3.
        let report = ReportSamples.report([
            ReportSamples.run("lora", "LoRA", rouge1: [0.41, 0.43]),
            ReportSamples.run("dora", "DoRA", rouge1: [0.38, 0.40]),
        ])
        let (a, b) = (report.reportedRuns[0], report.reportedRuns[1])
        let rouge = Metric(key: "rouge1")
        #expect(try #require(a.statistic(rouge)).overlaps(try #require(b.statistic(rouge)), over: .seeds) == false)
        #expect(report.isWithinSpread(a, of: b, by: rouge) == true)
        let difference = try #require(report.difference(of: a, to: b, by: rouge))
        #expect(abs(difference.high - (0.03 + 4.303 * 0.0141421)) < 1e-4)
    }

    /// Two seeds of two methods say little of how seeds vary; those of ten methods together say more.
    @Test func allMethodsTellHowSeedsVary() throws {
        let pair = [
            ReportSamples.run("lora", "LoRA", rouge1: [0.41, 0.43]),
            ReportSamples.run("dora", "DoRA", rouge1: [0.36, 0.38]),
        ]
        let others = (0..<8).map { ReportSamples.run("ia3", "other \($0)", rouge1: [0.2, 0.22]) }
        let rouge = Metric(key: "rouge1")
        func difference(_ runs: [MethodRun]) throws -> Difference {
            let report = ReportSamples.report(runs)
            return try #require(
                report.difference(of: report.reportedRuns[0], to: report.reportedRuns[1], by: rouge))
        }
        #expect(try difference(pair).isWithinSpread)
        let sure = try difference(pair + others)
        #expect(!sure.isWithinSpread)
        // Each pair of seeds has the variance 2 · 0.01², and ten have ten degrees of freedom.
        #expect(abs(sure.high - (0.05 + 2.228 * 0.0141421)) < 1e-4)
        // Where the two vary more than the rest, that counts.
        let wide = [pair[0], ReportSamples.run("dora", "DoRA", rouge1: [0.27, 0.47])]
        let unsure = try difference(wide + others)
        #expect(abs(unsure.high - (0.05 + 2.228 * 0.1 * (2.0 / 2 * 1.01).squareRoot())) < 2e-3)
    }

    @Test func studentsQuantiles() {
        for (freedom, expected) in [
            (1, 12.7062), (2, 4.3027), (12, 2.1788), (10, 2.2281), (11, 2.2010), (30, 2.0423), (1000, 1.9623),
        ] {
            #expect(abs(Difference.studentQuantile(freedom) - expected) < 0.0005)
        }
    }

    @Test func metricsOfTheCorpusAreComputedAnewFromTheSameRows() throws {
        // B is right wherever A is, and on every tenth row more.
        let right = (0..<Self.rows).map { "\($0 % 3)" }
        func wrong(_ label: String) -> String { label == "0" ? "1" : "0" }
        let a = right.enumerated().map { $0 % 3 == 0 && $0 % 2 == 0 ? wrong($1) : $1 }
        let b = right.enumerated().map { $0 % 3 == 0 && $0 % 2 == 0 && $0 % 10 != 0 ? wrong($1) : $1 }
        var (first, second) = (MethodRun(method: "lora", label: "LoRA"), MethodRun(method: "dora", label: "DoRA"))
        first.quality = try evaluateClassification(predictions: a, references: right).mapValues { Statistic([$0]) }
        second.quality = try evaluateClassification(predictions: b, references: right).mapValues { Statistic([$0]) }
        let report = compared([first, second])
        for key in ["macroF1", "mcc"] {
            let metric = Metric(key: key)
            #expect(
                try #require(first.statistic(metric)).overlaps(
                    try #require(second.statistic(metric)), over: .testRows) == true)
            #expect(report.isWithinSpread(report.reportedRuns[0], of: report.reportedRuns[1], by: metric) == false)
        }
    }

    /// Runs are told apart by their place, even if labels and figures are equal.
    @Test func equalRunsAreDifferentRuns() throws {
        let twin = try run("lora", [Self.hardness])
        let report = compared([try run("base", [Self.hardness.map { $0 / 4 }]), twin, twin])
        #expect(report.reportedRuns.map(\.id) == [0, 1, 2])
        #expect(
            report.runs.map { $0.differences?.filter { $0.metric == "rouge1" }.map(\.to) } == [[1], [0], [0, 1]])
        #expect(Verdict(report, numbers: .terminal).rivals?.hasPrefix("Lora is statistically") == true)
    }

    @Test func aReportReadAgainSaysTheSame() throws {
        let report = try smallSteadyGain()
        let data = try report.json()
        let text = String(decoding: data, as: UTF8.self)
        #expect(text.contains("\"differences\"") && !text.contains("resampled"))
        #expect(data.count < 20_000)
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID().uuidString).json")
        defer { try? FileManager.default.removeItem(at: file) }
        try data.write(to: file)
        let again = try ComparisonReport.read(file)
        #expect(again.html() == report.html())
        #expect(again.table(color: false) == report.table(color: false))
        #expect(Verdict(again, numbers: .terminal).sentences == Verdict(report, numbers: .terminal).sentences)
    }

    @Test func thePageAndTheTableShowTheDistance() throws {
        let report = try smallSteadyGain()
        #expect(report.html().contains(">vs. best <small>"))
        #expect(report.html().contains("\u{2212}5.5 <span class=\"spread\">[\u{2212}5."))
        #expect(report.table(color: false, width: 160).contains("-5.5 [-5."))
    }
}
