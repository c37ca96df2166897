import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import TestSupport
import Testing
import Training

@testable import Experiments

@Suite struct EliminationTests {
    // MARK: Intervals

    private func trial(_ losses: [Double]) -> Elimination.Trial {
        .init(learningRate: 1e-3, losses: losses, tokens: losses.map { _ in 2 }, stepSeconds: 0.1)
    }

    /// Uniform numbers of mean 0.
    private func noise(_ count: Int, _ random: inout SeededRandom) -> [Double] {
        (0..<count).map { _ in Double(random.below(2_000_001)) / 1e6 - 1 }
    }

    @Test func quantilesAreThoseOfTheNormalDistribution() {
        for (count, value) in [(1, 1.959964), (2, 2.241403), (10, 2.807034), (50, 3.290527)] {
            #expect(abs(Elimination.quantile(of: count) - value) < 1e-5)
        }
    }

    /// With two tokens in each example the difference per token is half the mean difference of sums, and its interval
    /// that of a mean.
    @Test func differencesArePaired() {
        let (a, b) = (trial([5, 9, 4, 8]), trial([4, 6, 3, 7]))
        let (value, half) = Elimination.difference(a, from: b, z: 2)
        // Differences 1, 3, 1, 1: mean 1.5, standard deviation 1.
        #expect(abs(value - 0.75) < 1e-12)
        #expect(abs(half - 2 * (1 / 4.0.squareRoot()) / 2) < 1e-12)
        #expect(Elimination.difference(trial([1]), from: trial([0]), z: 2).half == .infinity)
    }

    @Test func onlyDistinguishableMethodsOutsideTheBestThirdLeave() {
        var random = SeededRandom(seed: 4)
        let base = noise(100, &random).map { $0 + 5 }
        // Methods 0 and 1 are clearly better, 2 … 5 clearly worse, with paired noise.
        var trials: [Int: Elimination.Trial] = [:]
        for (index, shift) in [0, 0.5, 1, 1.1, 1.2, 1.3].enumerated() {
            trials[index] = trial(zip(base, noise(100, &random)).map { $0 + $1 / 10 + shift })
        }
        let reasons = Elimination.eliminated(trials, labels: { "m\($0)" }, steps: 12)
        #expect(reasons.keys.sorted() == [2, 3, 4, 5])
        #expect(reasons[5]?.contains("12 steps") == true && reasons[5]?.contains("that of m0") == true)
    }

    /// The best of several methods, here one of equally good ones, is left out in at most 2.5 % of rounds.
    @Test func theBestMethodStays() {
        var random = SeededRandom(seed: 8)
        var mistakes = 0
        for _ in 0..<200 {
            let base = noise(50, &random)
            var trials: [Int: Elimination.Trial] = [:]
            for index in 0..<12 { trials[index] = trial(zip(base, noise(50, &random)).map { 5 + $0 + $1 }) }
            if Elimination.eliminated(trials, labels: { "\($0)" }, steps: 1)[0] != nil { mistakes += 1 }
        }
        #expect(mistakes <= 10, "\(mistakes) of 200")
    }

    // MARK: Rounds

    /// Methods whose losses grow with their index, but for one that diverges.
    private func comparison<Result>(steps: Int = 100, _ body: (Comparison) throws -> Result) throws -> Result {
        try withTemporaryCopy(of: Checkout.model("llama")) { folder in
            try WordTokenizer.write(WordTokenizer.words(96), to: folder)
            let examples = (0..<24).map {
                Example(
                    prompt: "w5 w\($0 + 9) w\(2 * $0 + 12)", target: "w8 w3", row: .init(file: "rows", number: $0 + 1)
                )
            }
            let data = ComparisonData(
                name: "rows",
                content: .texts(
                    .init(
                        training: examples, validation: examples, test: examples,
                        templates: RowTemplates(prompt: try Template("{q}"), target: try Template("{a}")))))
            var training = TrainingConfiguration()
            (training.steps, training.batchSize) = (steps, 1)
            let heights: [Double] = [0, 3, 6, 7, 8, .nan]
            let methods = heights.map { height in
                ComparisonPlan.Method(
                    choice: MethodChoice(LossLandscape.self, LossLandscape.Configuration({ _ in height })),
                    learningRate: 1e-3)
            }
            var plan = ComparisonPlan(methods: methods, training: training)
            plan.eliminates = true
            return try body(
                try Comparison(model: ModelFolder(folder), name: "llama", data: data, plan: plan))
        }
    }

    @Test func roundsLeaveTheBestAndAreResumed() throws {
        try comparison { comparison in
            var elimination = Elimination()
            var (tried, skipped) = (0, 0)
            let count: (ComparisonEvent) -> Void = { event in
                switch event {
                case .trying: tried += 1
                case .skipped: skipped += 1
                default: break
                }
            }
            let unlimited = TimeBudget(.infinity, spent: 0)
            let remaining = try comparison.remainingMethods(&elimination, unlimited, nil, count)
            // Two of five are kept in the first round, and no method is left out of two.
            #expect(remaining.indices == [0, 1])
            #expect(tried == 6 && skipped == 4 && remaining.skipped.count == 4)
            #expect(remaining.skipped.contains { $0.reason.contains("NaN or infinite") })
            #expect(elimination.rounds.map(\.steps) == [10])

            // From the stored rounds nothing is repeated.
            let encoder = JSONEncoder()
            var stored = try JSONDecoder().decode(Elimination.self, from: encoder.encode(elimination))
            tried = 0
            let again = try comparison.remainingMethods(&stored, unlimited, nil, count)
            #expect(tried == 0 && again.indices == [0, 1])
        }
    }

    @Test func aBudgetEndsARound() throws {
        try comparison(steps: 240) { comparison in
            var elimination = Elimination()
            var events: [Int] = []
            let remaining = try comparison.remainingMethods(&elimination, TimeBudget(1e-6, spent: 0), nil) {
                if case .notReached(let methods) = $0 { events.append(methods.count) }
            }
            #expect(remaining.indices == [0])
            #expect(remaining.skipped.count == 5 && remaining.skipped.allSatisfy { $0.reason.contains("budget") })
            // One event for all of them. The round is as short as it may be.
            #expect(events == [5])
            #expect(elimination.rounds.map(\.steps) == [10] && elimination.rounds[0].hasOneRate == true)
        }
    }

    @Test func anAmpleBudgetShortensNothing() throws {
        try comparison(steps: 240) { comparison in
            var elimination = Elimination()
            _ = try comparison.remainingMethods(&elimination, TimeBudget(1e9, spent: 0), nil, { _ in })
            #expect(elimination.rounds.first?.steps == 15 && elimination.rounds.first?.hasOneRate == nil)
        }
    }
}
