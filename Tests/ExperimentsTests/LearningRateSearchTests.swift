import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import TestSupport
import Testing
import Training

@testable import Experiments

/// The search on losses that are known functions of the learning rate (``LossLandscape``). Its grid is 10^(−3 + k / 2) with
/// two digits: exponents k from −3 to 3.
@Suite struct LearningRateSearchTests {
    private static let rates = [-3: 3.2e-5, -2: 1e-4, -1: 3.2e-4, 0: 1e-3, 1: 3.2e-3, 2: 1e-2, 3: 3.2e-2]

    private struct Search {
        var best: Double
        var trials: [MethodRun.LearningRateTrial]
        /// Rates in the order of the trials.
        var tried: [Double]
        /// Losses that were reported, `nil` for a diverged trial.
        var losses: [Double?]
    }

    /// Searches the rate of a landscape with trials of one step.
    private func search(_ height: @escaping @Sendable (Double) -> Double) throws -> Search {
        var (tried, losses): ([Double], [Double?]) = ([], [])
        let (best, trials) = try search(height) { event in
            switch event {
            case .trying(_, let rate): tried.append(rate)
            case .tried(_, let rate, let loss):
                #expect(rate == tried.last)
                losses.append(loss)
            default: Issue.record("an event that is none of a search")
            }
        }
        #expect(tried.count == losses.count)
        return Search(best: best, trials: trials, tried: tried, losses: losses)
    }

    private func search(
        _ height: @escaping @Sendable (Double) -> Double, _ onEvent: (ComparisonEvent) -> Void
    ) throws -> (Double, [MethodRun.LearningRateTrial]) {
        try withTemporaryCopy(of: Checkout.model("llama")) { folder in
            try WordTokenizer.write(WordTokenizer.words(96), to: folder)
            let example = Example(prompt: "w5 w9 w7", target: "w8 w3", row: .init(file: "rows", number: 1))
            let data = ComparisonData(
                name: "rows",
                content: .texts(
                    .init(
                        training: [example], validation: [example], test: [example],
                        templates: RowTemplates(prompt: try Template("{q}"), target: try Template("{a}")))))
            var training = TrainingConfiguration()
            (training.steps, training.batchSize) = (1, 1)
            let method = ComparisonPlan.Method(
                choice: MethodChoice(LossLandscape.self, LossLandscape.Configuration(height)))
            let comparison = try Comparison(
                model: ModelFolder(folder), name: "llama", data: data,
                plan: ComparisonPlan(methods: [method], training: training))
            return try comparison.tune(method, onEvent)
        }
    }

    /// A valley at 10^(−3 + k / 2): the further in half decades, the higher.
    private static func valley(at exponent: Double) -> @Sendable (Double) -> Double {
        { rate in 2 * abs(2 * (log10(rate) + 3) - exponent) }
    }

    /// The grid grows towards the best rate and ends beyond it, or at ±3.
    @Test(arguments: [
        (0, [-1, 0, 1]), (1, [-1, 0, 1, 2]), (2, [-1, 0, 1, 2, 3]), (3, [-1, 0, 1, 2, 3]), (5, [-1, 0, 1, 2, 3]),
        (-1, [-1, 0, 1, -2]), (-2, [-1, 0, 1, -2, -3]), (-3, [-1, 0, 1, -2, -3]), (-5, [-1, 0, 1, -2, -3]),
    ])
    func theLowestLossIsFound(exponent: Int, order: [Int]) throws {
        let search = try search(Self.valley(at: Double(exponent)))
        #expect(search.tried == order.compactMap { Self.rates[$0] })
        #expect(search.best == Self.rates[min(max(exponent, -3), 3)])
        // Trials are listed by rate, with the losses that were reported.
        #expect(search.trials.map(\.learningRate) == order.sorted().compactMap { Self.rates[$0] })
        let reported = zip(search.tried, search.losses).sorted { $0.0 < $1.0 }.map(\.1)
        #expect(search.trials.map(\.validationLoss) == reported)
        #expect(search.trials.min { $0.validationLoss < $1.validationLoss }?.learningRate == search.best)
    }

    /// A diverged trial has no loss, and the search goes the other way.
    @Test func divergedTrialsAreWorst() throws {
        let search = try search { $0 > 5e-4 ? .nan : Self.valley(at: -2)($0) }
        #expect(search.tried == [3.2e-4, 1e-3, 3.2e-3, 1e-4, 3.2e-5])
        #expect(search.losses.map { $0 == nil } == [false, true, true, false, false])
        #expect(search.best == 1e-4)
        #expect(search.trials.map(\.learningRate) == [3.2e-5, 1e-4, 3.2e-4])
    }

    @Test func aMethodThatDivergesAtAllRatesIsAnError() throws {
        let error = try #require(throws: PEFTError.self) { try search { _ in .nan } }
        #expect(error.description == "none of the learning rates tried for landscape converged; set one with --lr")
    }

    /// Lower rates converge where higher ones diverge.
    @Test func whereTheFirstRatesDivergeLowerOnesAreTried() throws {
        let search = try search { $0 > 2e-4 ? .nan : Self.valley(at: -2)($0) }
        #expect(search.best == 1e-4)
    }

    /// On a plateau nothing speaks against the method's default rate.
    @Test func theDefaultRateWinsTies() throws {
        let search = try search { _ in 1 }
        #expect(search.best == 1e-3)
        #expect(search.tried == [3.2e-4, 1e-3, 3.2e-3])
    }
}
