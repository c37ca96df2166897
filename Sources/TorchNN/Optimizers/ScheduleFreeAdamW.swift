import Foundation
import PEFTSupport
import Torch

/// Schedule-free AdamW (Defazio et al. 2024, algorithm 1): averaging of iterates in place of a falling learning rate.
///
/// Gradients are taken at y, an interpolation of the iterate z and the average x, and x is what is evaluated and saved:
///
///     y = (1 − β₁) z + β₁ x,   z ← z − η (g / (√v̂ + ε) + λ y),   x ← (1 − c) x + c z
///
/// with c = η²max / Σ η²max over the steps. The parameters hold y, and x between ``beginEvaluation()`` and
/// ``endEvaluation()``; arithmetic as in the package `schedulefree`.
package final class ScheduleFreeAdamW: Optimizer {
    package let parameters: [Parameter]
    package private(set) var step = 0
    private let beta1: Double, beta2: Double, epsilon: Double, weightDecay: Double
    private let rateFactors: [Double]
    private let storage: StateStorage
    private var iterates: [Tensor]
    private var second: [Tensor]
    /// The highest learning rate so far, and the sum of the weights of the average.
    private var largestRate = 0.0, weightSum = 0.0
    /// The values of y while the parameters hold x.
    private var replaced: [Tensor]?

    /// - Parameter rateFactors: learning-rate factor of each parameter; 1 by default.
    package init(
        _ parameters: [Parameter], rateFactors: [Double]? = nil, beta1: Double = 0.9, beta2: Double = 0.999,
        epsilon: Double = 1e-8, weightDecay: Double = 0.01, storage: StateStorage = .memory
    ) {
        (self.parameters, self.storage) = (parameters, storage)
        (self.beta1, self.beta2, self.epsilon, self.weightDecay) = (beta1, beta2, epsilon, weightDecay)
        self.rateFactors = rateFactors ?? Array(repeating: 1, count: parameters.count)
        second = parameters.map { storage.zeros(like: $0.tensor) }
        iterates = parameters.map { parameter in
            let iterate = storage.zeros(like: parameter.tensor)
            if parameter.tensor.device != .meta {
                withoutGradients { iterate.copy(from: parameter.tensor) }
                storage.release(iterate)
            }
            return iterate
        }
    }

    package func update(learningRate: Double) {
        step += 1
        largestRate = max(largestRate, learningRate)
        let weight = largestRate * largestRate
        weightSum += weight
        // A warm-up begins with rate 0, whose step has no weight.
        let share = weightSum > 0 ? weight / weightSum : 0
        let correction = (1 - Foundation.pow(beta2, Double(step))).squareRoot()
        withoutGradients {
            for (index, parameter) in parameters.enumerated() {
                guard let gradient = parameter.tensor.grad else { continue }
                let (value, iterate, moment) = (parameter.tensor.detached(), iterates[index], second[index])
                let rate = learningRate * rateFactors[index]
                moment.scale(by: beta2)
                moment.add(gradient.squared(), alpha: 1 - beta2)
                let direction = gradient / (moment.sqrt() / correction + epsilon)
                direction.add(value, alpha: weightDecay)
                value.scale(by: 1 - share)
                value.add(iterate, alpha: share)
                value.add(direction, alpha: rate * (beta1 * (1 - share) - 1))
                iterate.add(direction, alpha: -rate)
                storage.release(iterate, moment)
            }
        }
    }

    package func beginEvaluation() {
        guard replaced == nil else { return }
        replaced = withoutGradients {
            parameters.indices.map { index in
                let value = parameters[index].tensor.detached()
                let kept = value.clone()
                // x = y / β₁ − z (1 − β₁) / β₁.
                value.scale(by: 1 / beta1)
                value.add(iterates[index], alpha: 1 - 1 / beta1)
                storage.release(iterates[index])
                return kept
            }
        }
    }

    package func endEvaluation() {
        guard let replaced else { return }
        for (parameter, value) in zip(parameters, replaced) { parameter.tensor.detached().copy(from: value) }
        self.replaced = nil
    }

    package func state() -> [String: Tensor] {
        var state: [String: Tensor] = [:]
        for index in parameters.indices {
            state["iterate.\(index)"] = iterates[index]
            state["second.\(index)"] = second[index]
        }
        state["average"] = Tensor([largestRate, weightSum])
        return state
    }

    package func restore(_ state: [String: Tensor], step: Int) throws {
        let newIterates = try parameters.indices.map {
            try restored("iterate.\($0)", like: iterates[$0], from: state, in: storage)
        }
        let newSecond = try parameters.indices.map {
            try restored("second.\($0)", like: second[$0], from: state, in: storage)
        }
        let average: [Double] = try restored("average", like: .zeros([2], dtype: .float64), from: state).array()
        (iterates, second, self.step) = (newIterates, newSecond, step)
        (largestRate, weightSum) = (average[0], average[1])
    }
}
