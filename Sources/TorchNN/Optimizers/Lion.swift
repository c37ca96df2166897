import PEFTSupport
import Torch

/// Lion (Chen et al. 2023, algorithm 2): the sign of an interpolation of momentum and gradient, with decoupled weight
/// decay. With momentum m and gradient g:
///
///     u = sign(β₁ m + (1 − β₁) g),   θ ← θ − η (u + λ θ),   m ← β₂ m + (1 − β₂) g
package final class Lion: Optimizer {
    package let parameters: [Parameter]
    package private(set) var step = 0
    private let beta1: Double, beta2: Double, weightDecay: Double
    private let rateFactors: [Double]
    private let storage: StateStorage
    private var momenta: [Tensor]

    /// - Parameter rateFactors: learning-rate factor of each parameter; 1 by default.
    package init(
        _ parameters: [Parameter], rateFactors: [Double]? = nil, beta1: Double = 0.9, beta2: Double = 0.99,
        weightDecay: Double = 0.01, storage: StateStorage = .memory
    ) {
        (self.parameters, self.storage) = (parameters, storage)
        (self.beta1, self.beta2, self.weightDecay) = (beta1, beta2, weightDecay)
        self.rateFactors = rateFactors ?? Array(repeating: 1, count: parameters.count)
        momenta = parameters.map { storage.zeros(like: $0.tensor) }
    }

    package func update(learningRate: Double) {
        step += 1
        withoutGradients {
            for (index, parameter) in parameters.enumerated() {
                guard let gradient = parameter.tensor.grad else { continue }
                let (value, momentum) = (parameter.tensor.detached(), momenta[index])
                let rate = learningRate * rateFactors[index]
                value.scale(by: 1 - rate * weightDecay)
                value.add((momentum * beta1 + gradient * (1 - beta1)).sign(), alpha: -rate)
                momentum.scale(by: beta2)
                momentum.add(gradient, alpha: 1 - beta2)
                storage.release(momentum)
            }
        }
    }

    package func state() -> [String: Tensor] {
        Dictionary(uniqueKeysWithValues: momenta.enumerated().map { ("momentum.\($0.offset)", $0.element) })
    }

    package func restore(_ state: [String: Tensor], step: Int) throws {
        momenta = try parameters.indices.map {
            try restored("momentum.\($0)", like: momenta[$0], from: state, in: storage)
        }
        self.step = step
    }
}
