import Testing
import Training

@testable import Experiments

@Suite struct InferenceTimingTests {
    @Test func aMachineThatSlowsDownCostsNoMethodMore() {
        // Every timing takes 1.3 times as long as the one before; the other model takes twice the base's time.
        var pace = 1.0
        let (ratio, base) = InferenceTiming(prompts: []).compare(rounds: 5) { isBase, _ in
            pace *= 1.3
            return isBase ? pace : 2 * pace
        }
        // Neighbors in time differ by 1.3 in one direction in a round and the other in the next.
        #expect(ratio / 2 > 1 / 1.301 && ratio / 2 < 1.301)
        #expect(base > 1)
        let (same, _) = InferenceTiming(prompts: []).compare(rounds: 4) { _, _ in
            pace *= 1.3
            return pace
        }
        #expect(abs(same - (1.3 + 1 / 1.3) / 2) < 1e-9)
    }

    @Test func oneSlowRoundChangesNothing() {
        let (ratio, base) = InferenceTiming(prompts: []).compare(rounds: 5) { isBase, round in
            (isBase ? 10 : 11) * (round == 3 && !isBase ? 7 : 1)
        }
        #expect(abs(ratio - 1.1) < 1e-12)
        #expect(base == 10)
    }

    @Test func runsAreBroughtToOneBase() throws {
        func run(_ method: String, base: Double?, merged: Double, unmerged: Double) -> MethodRun {
            var run = ReportSamples.run(method, method, rouge1: [0.4])
            run.inference = .init(unmerged: unmerged, merged: merged, largestDifference: nil)
            run.inference?.base = base
            return run
        }
        var report = ReportSamples.report([
            run("base", base: nil, merged: 10, unmerged: 10), run("full", base: 20, merged: 20, unmerged: 20),
            run("lora", base: 5, merged: 5, unmerged: 6),
        ])
        report.bringInferenceToOneBase()
        report.bringInferenceToOneBase()
        #expect(report.runs.map { $0.inference?.merged } == [10, 10, 10])
        #expect(report.runs.map { $0.inference?.unmerged } == [10, 10, 12])
        let entries = try #require(TradeOffs(report)).entries
        #expect(entries.map { $0.values[.inference] } == [1, 1])
    }

    @Test func trialsTakeAtLeastFortySteps() {
        let plan = ComparisonPlan(methods: [], trialShare: 0.25)
        #expect([10, 40, 100, 160, 400].map { plan.trialSteps(of: $0) } == [10, 40, 40, 40, 100])
    }
}
