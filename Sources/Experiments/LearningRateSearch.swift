import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Torch
import Training

extension ComparisonPlan {
    /// Steps of one trial: a fraction of the run's, but at least 40, or all of a shorter run. The best rate for few steps is
    /// too high for many.
    func trialSteps(of total: Int) -> Int { max(Int(Double(total) * trialShare), min(total, 40)) }
}

extension Comparison {
    /// Searches the learning rate of one method and uses it for all.
    mutating func tuneOnce(at index: Int, _ state: ComparisonState?, _ onEvent: (ComparisonEvent) -> Void) throws {
        guard plan.methods.indices.contains(index), plan.methods[index].choice != nil else { return }
        // Before the rate is one of the settings.
        try state?.begin(stateSettings())
        let rate = try state?.learningRate() ?? tune(plan.methods[index], onEvent).0
        try state?.save(learningRate: rate)
        for index in plan.methods.indices { plan.methods[index].learningRate = rate }
    }

    /// Grid search in half decades around the method's default rate with shortened runs, extended while the best rate is at
    /// an edge of the grid.
    func tune(
        _ method: ComparisonPlan.Method, _ onEvent: (ComparisonEvent) -> Void
    ) throws -> (Double, [MethodRun.LearningRateTrial]) {
        guard let choice = method.choice else { throw PEFTError("\(method.label) has no learning rate") }
        let label = method.label
        let step = 10.0.squareRoot()
        let middle = choice.method.defaultLearningRate * plan.training.optimizer.defaultRateFactor
        var losses: [Int: Double] = [:]
        func attempt(_ exponent: Int) throws {
            guard losses[exponent] == nil else { return }
            let rate = roundedRate(middle * pow(step, Double(exponent)))
            onEvent(.trying(method: label, learningRate: rate))
            var configuration = plan.training
            configuration.learningRate = rate
            let total = plan.training.totalSteps(rows: rows.training.count)
            configuration.steps = plan.trialSteps(of: total)
            configuration.validateEvery = configuration.steps
            let adapter = try Adapter(
                choice, on: folder(for: method).load(device: plan.device), seed: configuration.seed,
                tokenizer: tokenizer)
            let trainer = try Trainer(adapter, training: rows.training, validation: [], configuration: configuration)
            do {
                try trainer.run()
                let loss = try adapter.model.meanLoss(rows.validation, batchSize: plan.training.batchSize)
                losses[exponent] = loss.isFinite ? loss : .infinity
            } catch is TrainingDiverged {
                // A diverged trial counts as an infinite loss.
                losses[exponent] = .infinity
            }
            let loss = losses[exponent].flatMap { $0.isFinite ? $0 : nil }
            onEvent(.tried(method: label, learningRate: rate, validationLoss: loss))
        }
        for exponent in -1...1 { try attempt(exponent) }
        // Of equal losses that nearest to the default rate; if all diverged, the lowest rate.
        func best() -> Int? {
            let exponents = losses.keys.sorted { (abs($0), $0) < (abs($1), $1) }
            guard let best = exponents.min(by: { losses[$0, default: .infinity] < losses[$1, default: .infinity] })
            else { return nil }
            return losses[best] == .infinity ? exponents.min() : best
        }
        while let best = best(), abs(best) < 3 {
            let lowest = losses.keys.min() ?? 0
            let highest = losses.keys.max() ?? 0
            guard best == lowest || best == highest else { break }
            try attempt(best == lowest ? best - 1 : best + 1)
        }
        guard let best = best(), losses[best]?.isFinite == true else {
            throw PEFTError("none of the learning rates tried for \(label) converged", remedy: "set one with --lr")
        }
        let trials = losses.sorted { $0.key < $1.key }.filter(\.value.isFinite).map {
            MethodRun.LearningRateTrial(
                learningRate: roundedRate(middle * pow(step, Double($0.key))), validationLoss: $0.value)
        }
        return (roundedRate(middle * pow(step, Double(best))), trials)
    }

    /// Two digits are enough for a learning rate.
    func roundedRate(_ rate: Double) -> Double { Double(String(format: "%.1e", rate)) ?? rate }
}
