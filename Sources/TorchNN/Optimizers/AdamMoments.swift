import Foundation
import PEFTSupport
import Torch

/// The settings of an Adam update.
package struct AdamSettings {
    package var beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weightDecay = 0.01

    package init(beta1: Double = 0.9, beta2: Double = 0.999, epsilon: Double = 1e-8, weightDecay: Double = 0.01) {
        (self.beta1, self.beta2, self.epsilon, self.weightDecay) = (beta1, beta2, epsilon, weightDecay)
    }
}

/// Adam's moments of one tensor, for optimizers that transform the gradient before or the update after them.
///
/// Arithmetic as in the AdamW that `transformers` once had, on which LoRA-FA, GaLore and APOLLO are based: ε isn't
/// corrected for bias, and weight decay follows the update.
struct AdamMoments {
    var first: Tensor
    var second: Tensor
    /// Number of steps, for bias correction.
    var steps = 0

    init(_ shape: [Int], like tensor: Tensor) {
        first = .zeros(shape, dtype: tensor.dtype, device: tensor.device)
        second = .zeros(shape, dtype: tensor.dtype, device: tensor.device)
    }

    /// m / (√v + ε), with the moments updated by the gradient.
    mutating func direction(of gradient: Tensor, _ settings: AdamSettings) -> Tensor {
        steps += 1
        first.scale(by: settings.beta1)
        first.add(gradient, alpha: 1 - settings.beta1)
        second.scale(by: settings.beta2)
        second.add(gradient.squared(), alpha: 1 - settings.beta2)
        return first / (second.sqrt() + settings.epsilon)
    }

    /// The learning rate with bias correction, η √(1 − β₂ᵗ) / (1 − β₁ᵗ).
    func rate(_ learningRate: Double, _ settings: AdamSettings) -> Double {
        let steps = Double(steps)
        return learningRate * (1 - Foundation.pow(settings.beta2, steps)).squareRoot()
            / (1 - Foundation.pow(settings.beta1, steps))
    }
}

extension Optimizer {
    /// The moments as state; those of parameter i are `first.i` and `second.i`.
    func state(of moments: [AdamMoments?]) -> [String: Tensor] {
        var state: [String: Tensor] = [:]
        for (index, own) in moments.enumerated() {
            state["first.\(index)"] = own?.first
            state["second.\(index)"] = own?.second
        }
        state["counts"] = Tensor(moments.map { Double($0?.steps ?? 0) })
        return state
    }

    func restored(_ moments: [AdamMoments?], from state: [String: Tensor]) throws -> [AdamMoments?] {
        let counts: [Double] =
            try restored("counts", like: .zeros([moments.count], dtype: .float64), from: state).array()
        return try moments.enumerated().map { index, own in
            guard var own else { return nil }
            own.first = try restored("first.\(index)", like: own.first, from: state)
            own.second = try restored("second.\(index)", like: own.second, from: state)
            own.steps = Int(counts[index])
            return own
        }
    }
}
