import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Training

/// Successive halving (Jamieson & Talwalkar 2016) over training steps: in each round all remaining methods are trained for a
/// share of the steps, and those that can't be the best by their validation loss are left out.
///
/// A method is left out only if two things hold: it is not among the best third, and the lower end of the interval of its
/// difference from the best is above 0. The intervals are simultaneous and paired over the validation examples, so that the
/// method that is truly best (in such a run, on such examples) is left out in at most 2.5 % of rounds (multiple comparisons
/// with the best; Hsu 1981).
struct Elimination: Codable {
    /// Steps of the rounds as shares of a run's.
    static let shares = [1.0 / 16, 1.0 / 4]
    /// Share of the methods that a round keeps, whatever their intervals.
    static let kept = 1.0 / 3
    /// The fewest steps of a round.
    static let fewestSteps = 10
    /// Share of a budget that each round may take.
    static let budgetShare = 0.3
    /// Why methods are left out for which the budget doesn't suffice.
    static let notReached = "not reached within the budget"

    /// A shortened run of one method.
    struct Trial: Codable {
        var learningRate: Double
        /// Summed loss of each validation example, in nats.
        var losses: [Double]
        /// Target tokens of each validation example.
        var tokens: [Int]
        /// Seconds per step.
        var stepSeconds: Double

        /// Loss per target token.
        var loss: Double { losses.reduce(0, +) / Double(max(1, tokens.reduce(0, +))) }
    }

    struct Round: Codable {
        var steps: Int
        /// Whether methods are tried at one learning rate, as the budget doesn't suffice for three.
        var hasOneRate: Bool?
        /// By the index of the method.
        var trials: [Int: Trial] = [:]
        /// Methods whose loss diverged at all rates, or that failed, with the reason.
        var failures: [Int: String] = [:]
    }

    var rounds: [Round] = []
    /// Seconds that all runs took, also before an interruption.
    var seconds = 0.0

    /// The difference of a method's loss per target token from another's, with the half-width of its interval.
    /// - Parameter z: the quantile of the normal distribution.
    static func difference(_ a: Trial, from b: Trial, z: Double) -> (value: Double, half: Double) {
        let tokens = a.tokens.map(Double.init)
        let total = max(1, tokens.reduce(0, +))
        let differences = zip(a.losses, b.losses).map { $0 - $1 }
        let value = differences.reduce(0, +) / total
        // The variance of a ratio of sums over examples.
        let count = Double(differences.count)
        guard count > 1 else { return (value, .infinity) }
        let squares = zip(differences, tokens).reduce(0) { sum, pair in
            let rest = pair.0 - value * pair.1
            return sum + rest * rest
        }
        return (value, z * (squares * count / (count - 1)).squareRoot() / total)
    }

    /// The quantile of the normal distribution for 95 % intervals of `count` differences at once (Bonferroni).
    static func quantile(of count: Int) -> Double {
        let tail = 0.025 / Double(max(1, count))
        var (low, high) = (0.0, 10.0)
        for _ in 0..<60 {
            let middle = (low + high) / 2
            if erfc(middle / 2.0.squareRoot()) / 2 > tail { low = middle } else { high = middle }
        }
        return low
    }

    /// Why methods are left out after a round, by index.
    static func eliminated(_ trials: [Int: Trial], labels: (Int) -> String, steps: Int) -> [Int: String] {
        let order = trials.keys.sorted { (trials[$0]?.loss ?? .nan, $0) < (trials[$1]?.loss ?? .nan, $1) }
        guard let first = order.first, let best = trials[first] else { return [:] }
        let z = quantile(of: order.count - 1)
        let kept = max(1, Int((Double(order.count) * Self.kept).rounded(.up)))
        var reasons: [Int: String] = [:]
        for index in order.dropFirst(kept) {
            guard let trial = trials[index] else { continue }
            let (value, half) = difference(trial, from: best, z: z)
            guard value - half > 0 else { continue }
            reasons[index] = String(
                format: "left out after %d steps: validation loss %.3f, %.3f [%.3f, %.3f] above that of %@", steps,
                trial.loss, value, value - half, value + half, labels(first))
        }
        return reasons
    }
}

/// The methods of a comparison that remain, in the order in which they are measured.
struct RemainingMethods {
    var indices: [Int]
    /// The others, with the reasons.
    var skipped: [SkippedMethod] = []
    /// Predicted seconds of a run of each method, if known.
    var seconds: [Int: Double] = [:]
}

/// The time that a comparison may take, also over interruptions.
struct TimeBudget {
    let total: Double
    private let before: Double
    private let start = ContinuousClock.now

    init(_ total: Double, spent before: Double) { (self.total, self.before) = (total, before) }

    var spent: Double { before + start.duration(to: .now).inSeconds }

    /// Whether something of so many seconds fits into a share of the budget.
    func allows(_ seconds: Double, share: Double = 1) -> Bool { spent + seconds <= total * share }
}

extension Comparison {
    /// Runs the rounds of the elimination that `state` lacks.
    func remainingMethods(
        _ elimination: inout Elimination, _ budget: TimeBudget, _ state: ComparisonState?,
        _ onEvent: (ComparisonEvent) -> Void
    ) throws -> RemainingMethods {
        let untrained = plan.methods.indices.filter { plan.methods[$0].choice == nil }
        var remaining = RemainingMethods(indices: plan.methods.indices.filter { !untrained.contains($0) })
        let total = plan.training.totalSteps(rows: rows.training.count)
        func leaveOut(_ index: Int, _ reason: String) {
            let method = SkippedMethod(label: plan.methods[index].label, reason: reason)
            remaining.indices.removeAll { $0 == index }
            remaining.skipped.append(method)
            onEvent(.skipped(method))
        }
        for (number, share) in Elimination.shares.enumerated() where plan.eliminates {
            guard min(total, max(Int(Double(total) * share), Elimination.fewestSteps)) < total,
                remaining.indices.count > 2
            else { break }
            if elimination.rounds.count <= number {
                var round = Elimination.Round(steps: max(Int(Double(total) * share), Elimination.fewestSteps))
                if number == 0, budget.total.isFinite { try shorten(&round, remaining.indices, budget, onEvent) }
                elimination.rounds.append(round)
            }
            let steps = elimination.rounds[number].steps
            var unreached: [SkippedMethod] = []
            for index in remaining.indices {
                var round = elimination.rounds[number]
                guard round.trials[index] == nil, round.failures[index] == nil else { continue }
                let share = Elimination.budgetShare * Double(number + 1)
                guard budget.allows(0, share: share) || round.trials.isEmpty else {
                    unreached.append(SkippedMethod(label: plan.methods[index].label, reason: Elimination.notReached))
                    remaining.indices.removeAll { $0 == index }
                    continue
                }
                do {
                    round.trials[index] = try trial(
                        index, steps: steps, known: number > 0 ? elimination.rounds[number - 1].trials[index] : nil,
                        hasOneRate: round.hasOneRate == true, onEvent)
                } catch let error where error is PEFTError || error is TrainingDiverged {
                    guard plan.methods[index].isOptional || error is TrainingDiverged else { throw error }
                    round.failures[index] = "\(error)"
                }
                elimination.rounds[number] = round
                elimination.seconds = budget.spent
                try state?.save(elimination)
            }
            remaining.skipped += unreached
            if !unreached.isEmpty { onEvent(.notReached(unreached)) }
            let round = elimination.rounds[number]
            for index in remaining.indices {
                if let reason = round.failures[index] { leaveOut(index, reason) }
            }
            let reasons = Elimination.eliminated(
                round.trials.filter { remaining.indices.contains($0.key) }, labels: { plan.methods[$0].label },
                steps: steps)
            for index in reasons.keys.sorted() { leaveOut(index, reasons[index] ?? "") }
            for (index, trial) in round.trials { remaining.seconds[index] = trial.stepSeconds * Double(total) }
        }
        // The most promising first, if time may not suffice for all.
        if budget.total.isFinite, let last = elimination.rounds.last {
            remaining.indices.sort {
                (last.trials[$0]?.loss ?? .infinity, $0) < (last.trials[$1]?.loss ?? .infinity, $1)
            }
        }
        remaining.indices = untrained + remaining.indices
        if !budget.total.isFinite { remaining.indices.sort() }
        return remaining
    }

    /// Shortens the first round so that all methods are reached within its share of the budget, if they can be: fewer steps, and then
    /// one learning rate instead of three. The first method's shortest trial tells how long trials take.
    private func shorten(
        _ round: inout Elimination.Round, _ indices: [Int], _ budget: TimeBudget,
        _ onEvent: (ComparisonEvent) -> Void
    ) throws {
        let before = budget.spent
        let fewest = Elimination.fewestSteps
        guard let probe = indices.first,
            let trial = try? trial(probe, steps: fewest, known: nil, hasOneRate: true, onEvent)
        else { return }
        let (shortest, step) = (budget.spent - before, trial.stepSeconds)
        let left = Elimination.budgetShare * budget.total - budget.spent
        /// The steps of a trial at so many rates.
        func steps(rates: Double) -> Double {
            Double(fewest) + (left / Double(indices.count) / rates - shortest) / max(step, 1e-6)
        }
        if steps(rates: 3) >= Double(fewest) {
            round.steps = min(round.steps, Int(min(steps(rates: 3), 1e9)))
        } else {
            round.hasOneRate = true
            round.steps = min(round.steps, max(fewest, Int(min(steps(rates: 1), 1e9))))
        }
    }

    /// A shortened run: at the method's rate, at that of its earlier trial, or at the best of three.
    private func trial(
        _ index: Int, steps: Int, known: Elimination.Trial?, hasOneRate: Bool, _ onEvent: (ComparisonEvent) -> Void
    ) throws -> Elimination.Trial {
        let method = plan.methods[index]
        guard let choice = method.choice else { throw PEFTError("\(method.label) isn't trained") }
        let middle = choice.method.defaultLearningRate * plan.training.optimizer.defaultRateFactor
        let step = 10.0.squareRoot()
        let rates =
            (method.learningRate ?? known?.learningRate).map { [$0] }
            ?? (hasOneRate ? [middle] : [middle / step, middle, middle * step])
        var best: Elimination.Trial?
        var divergence: TrainingDiverged?
        for rate in rates.map(roundedRate) {
            onEvent(.trying(method: method.label, learningRate: rate))
            var configuration = plan.training
            (configuration.learningRate, configuration.steps) = (rate, steps)
            configuration.validateEvery = nil
            let adapter = try Adapter(
                choice, on: folder(for: method).load(device: plan.device),
                seed: configuration.seed &+ method.seedOffset, tokenizer: tokenizer)
            let trainer = try Trainer(adapter, training: rows.training, validation: [], configuration: configuration)
            do {
                let result = try trainer.run()
                // A loss that isn't finite is an error there, and a diverged trial here.
                guard let losses = try? adapter.model.rowLosses(rows.validation) else {
                    throw TrainingDiverged(what: "validation loss", step: steps)
                }
                let own = Elimination.Trial(
                    learningRate: rate, losses: losses.map(\.sum), tokens: losses.map(\.tokens),
                    stepSeconds: result.seconds / Double(max(1, result.steps)))
                onEvent(.tried(method: method.label, learningRate: rate, validationLoss: own.loss))
                if own.loss < best?.loss ?? .infinity { best = own }
            } catch let error as TrainingDiverged {
                divergence = error
                onEvent(.tried(method: method.label, learningRate: rate, validationLoss: nil))
            }
        }
        if let best { return best }
        throw divergence ?? TrainingDiverged(what: "validation loss", step: steps)
    }
}
