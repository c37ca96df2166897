import Testing

@testable import Experiments

@Suite struct TradeOffTests {
    private func run(
        _ label: String, _ quality: [Double], parameters: Int, speed: Double, memory: Int, inference: Double,
        merges: Bool = true
    ) -> MethodRun {
        var run = ReportSamples.run(
            label, label, rouge1: quality, trainable: parameters, tokensPerSecond: speed, peak: memory)
        run.inference = .init(unmerged: inference * 1.5, merged: inference, largestDifference: nil)
        if !merges { run.inference?.isMergeable = false }
        return run
    }

    private func base() -> MethodRun {
        var run = ReportSamples.run("base", "base", rouge1: [0.1])
        run.inference = .init(unmerged: 10, merged: 10, largestDifference: nil)
        return run
    }

    @Test func whatAnotherBeatsInAllIsNotOnTheFrontier() throws {
        let report = ReportSamples.report([
            base(), run("good", [0.40, 0.42], parameters: 1000, speed: 900, memory: 500, inference: 10),
            run("worse", [0.30, 0.32], parameters: 2000, speed: 800, memory: 600, inference: 10),
            run("small", [0.20, 0.22], parameters: 100, speed: 900, memory: 500, inference: 10),
            // Slower by less than timings vary, and larger: beaten all the same.
            run("close", [0.40, 0.42], parameters: 3000, speed: 910, memory: 501, inference: 10.1),
        ])
        let entries = try #require(TradeOffs(report)).entries
        #expect(entries.filter(\.isOnFrontier).map(\.run.label) == ["good", "small"])
    }

    @Test func theCheapestWithinTheSpreadOfTheBestIsChosen() throws {
        let report = ReportSamples.report([
            base(), run("best", [0.40, 0.44], parameters: 100_000, speed: 500, memory: 900, inference: 10),
            run("cheap", [0.39, 0.41], parameters: 1000, speed: 1000, memory: 400, inference: 10),
            run("cheapest", [0.20, 0.21], parameters: 10, speed: 1000, memory: 300, inference: 10),
        ])
        let choice = try #require(TradeOffs(report)?.choice(report))
        #expect((choice.entry.run.label, choice.best.run.label, choice.among) == ("cheap", "best", 2))
        let text = try #require(Verdict(report, numbers: .terminal).choice)
        #expect(
            text.hasPrefix(
                "Choose cheap: its ROUGE-1 40.0 is statistically indistinguishable from the best (best, 42.0)"))
        #expect(text.contains("it is the cheapest of these 2 methods"))
        #expect(text.contains("the base model's speed once merged"))
    }

    @Test func aMethodThatCannotBeMergedPaysForIt() throws {
        let report = ReportSamples.report([
            base(), run("merged", [0.40, 0.42], parameters: 1000, speed: 900, memory: 500, inference: 10),
            run("beside", [0.40, 0.42], parameters: 1000, speed: 900, memory: 500, inference: 10, merges: false),
        ])
        let entries = try #require(TradeOffs(report)).entries
        #expect(entries.map { $0.values[.inference] } == [1, 1.5])
        #expect(entries.map(\.isOnFrontier) == [true, false])
    }

    @Test func whatTrainingDidNotHelpIsNotChosen() throws {
        let report = ReportSamples.report([
            base(), run("nothing", [0.05, 0.15], parameters: 10, speed: 900, memory: 500, inference: 10),
            run("little", [0.06, 0.15], parameters: 20, speed: 900, memory: 500, inference: 10),
        ])
        #expect(try #require(TradeOffs(report)).choice(report) == nil)
    }

    /// A longer bar is more everywhere; headings say whether more is better, and bars of costs are pale.
    @Test func barsSayWhichDirectionIsBetter() {
        let page = ReportSamples.report([
            base(), run("a", [0.40, 0.42], parameters: 1000, speed: 900, memory: 500, inference: 10),
            run("b", [0.40, 0.42], parameters: 2000, speed: 900, memory: 600, inference: 20),
        ]).html()
        for heading in [
            "quality ↑", "tokens/s ↑", "peak while training ↓",
        ] {
            #expect(page.contains(heading), "\(heading)")
        }
        #expect(page.contains("Peak memory ↓") && page.contains("Training speed ↑"))
        #expect(page.contains("class=\"fill pale\" width") && page.contains("class=\"fill\" width"))
    }

    @Test func thePageNamesWhatWasLeftOut() {
        var report = ReportSamples.threeSeeds()
        report.skipped = [SkippedMethod(label: "BitFit", reason: "this t5 model has no biases")]
        let page = report.html()
        #expect(page.contains("1 method was skipped"))
        #expect(page.contains("this t5 model has no biases"))
        #expect(page.contains("Five trade-offs"))
    }
}
