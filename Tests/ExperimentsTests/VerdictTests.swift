import Testing

@testable import Experiments

@Suite struct VerdictTests {
    private func text(_ report: ComparisonReport) -> String {
        Verdict(report, numbers: .terminal).sentences.joined(separator: " ")
    }

    @Test func aClearGainAndAnOverlapWithFullFineTuning() {
        let text = text(ReportSamples.oneSeed(lora: 0.41))
        #expect(text.contains("LoRA r 32 raises ROUGE-1 from 20.0 to 41.0, 21.0 points better than the base model."))
        #expect(
            text.contains(
                "Full fine-tuning reaches 42.0, 1.0 points better; the difference is not statistically significant."))
        #expect(text.contains("LoRA r 32 trains 3,538,944 parameters (1.41 %)"))
        #expect(text.contains("needs 50 % of full fine-tuning's peak memory (2.00 GB instead of 4.00 GB)"))
        #expect(text.contains("trains 1.8 times as fast and saves a file of 14.2 MB instead of 1.00 GB"))
        #expect(
            text.contains(
                "One seed per method, so the variance over seeds is unknown; intervals are over test examples"))
    }

    @Test func aClearDistanceToFullFineTuning() {
        let text = text(ReportSamples.oneSeed(lora: 0.31))
        #expect(
            text.contains("Full fine-tuning reaches 42.0, 11.0 points better: LoRA r 32 retains 50 % of its gain."))
        #expect(!text.contains("not statistically significant"))
    }

    @Test func noGainOverTheBase() {
        let text = text(ReportSamples.oneSeed(lora: 0.205))
        #expect(text.contains("this comparison does not show that training helped"))
        #expect(!text.contains("raises"))
    }

    @Test func aLossAgainstTheBase() {
        #expect(
            text(ReportSamples.oneSeed(lora: 0.1)).contains("lowers ROUGE-1 from 20.0 to 10.0, 10.0 points worse"))
    }

    @Test func rivalsAndAFrugalAlternative() {
        let text = text(ReportSamples.threeSeeds())
        #expect(text.contains("LoRA r 32, the best of 3 adapters, raises ROUGE-1 from 20.0 to 40.0"))
        #expect(text.contains("retains 91 % of its gain"))
        #expect(text.contains("DoRA r 32 is statistically indistinguishable from LoRA r 32."))
        #expect(text.contains("IA³ trains 27 times fewer parameters (129,024) and reaches 35.0, 5.0 points worse."))
        #expect(text.contains("± is the standard deviation over 3 seeds."))
    }

    @Test func withoutIntervalsNothingIsCalledCertain() {
        let text = text(
            ReportSamples.report([
                ReportSamples.run("base", "base", rouge1: [0.2]), ReportSamples.run("lora", "LoRA", rouge1: [0.4]),
            ]))
        #expect(text.contains("without an interval, its significance is unknown"))
        #expect(text.contains("Full fine-tuning was not measured"))
        #expect(text.contains("no intervals were computed"))
    }

    @Test func onlyTheBaseModelOrNothing() {
        #expect(text(ReportSamples.degenerate()).contains("Only the untrained model was measured: ROUGE-L 20.0."))
        #expect(text(ReportSamples.report([])) == "This report has no methods.")
        let empty = MethodRun(method: "lora", label: "LoRA")
        #expect(text(ReportSamples.report([empty])).contains("LoRA has no finite quality figure"))
    }

    @Test func lossRanksWhereNoMetricWasMeasured() {
        var base = MethodRun(method: "base", label: "base")
        base.loss = Statistic([2.5], low: 2.4, high: 2.6)
        var lora = MethodRun(method: "lora", label: "LoRA")
        lora.loss = Statistic([1.5], low: 1.4, high: 1.6)
        let report = ReportSamples.report([base, lora])
        #expect(text(report).contains("LoRA lowers Loss from 2.500 to 1.500, 1.000 nats better than the base model."))
        #expect(report.subject?.label == "LoRA")
    }

    @Test func intervalsOfDifferentKindsAreNeverMixed() {
        let seeds = Statistic([0.3, 0.32], low: 0.2, high: 0.4)
        #expect(seeds.interval(over: .testRows) == 0.2...0.4)
        let point = Statistic([0.35], low: 0.3, high: 0.4)
        #expect(point.interval(over: .seeds) == nil)
        #expect(seeds.overlaps(point, over: .seeds) == false)
        #expect(seeds.overlaps(point, over: .testRows) == true)
        #expect(point.overlaps(point, over: .seeds) == nil)
    }
}
