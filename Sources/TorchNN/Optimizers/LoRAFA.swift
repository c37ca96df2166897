import PEFTSupport
import Torch

/// LoRA-FA (Zhang et al. 2023): the factors A `[r, in]` of LoRA are frozen, and the gradient of B `[out, r]` is the one
/// that brings s B A closest to a step of full fine-tuning,
///
///     g = s⁻² ∂L/∂B (A Aᵀ + δ I)⁻¹,   δ = 10⁻⁸
///
/// as in Hugging Face PEFT's `LoraFAOptimizer`. Other parameters are updated with their own gradients.
package final class LoRAFA: Optimizer {
    /// The factors of one LoRA branch.
    package struct Factors {
        package let a: Parameter, b: Parameter
        /// s of s B A.
        package let scale: Double

        package init(a: Parameter, b: Parameter, scale: Double) { (self.a, self.b, self.scale) = (a, b, scale) }
    }

    package let parameters: [Parameter]
    package private(set) var step = 0
    private let settings: AdamSettings
    private let rateFactors: [Double]
    /// The branch of each parameter that is a factor B.
    private let branches: [Factors?]
    /// `nil` for factors A.
    private var moments: [AdamMoments?]

    /// - Parameters:
    ///   - factors: the branches; gradients of their A are ignored.
    ///   - rateFactors: learning-rate factor of each parameter; 1 by default.
    package init(
        _ parameters: [Parameter], factors: [Factors], rateFactors: [Double]? = nil,
        settings: AdamSettings = AdamSettings()
    ) {
        (self.parameters, self.settings) = (parameters, settings)
        self.rateFactors = rateFactors ?? Array(repeating: 1, count: parameters.count)
        let byB = Dictionary(factors.map { (ObjectIdentifier($0.b), $0) }, uniquingKeysWith: { first, _ in first })
        let frozen = Set(factors.map { ObjectIdentifier($0.a) })
        branches = parameters.map { byB[ObjectIdentifier($0)] }
        moments = parameters.map { parameter in
            frozen.contains(ObjectIdentifier(parameter))
                ? nil : AdamMoments(parameter.tensor.shape, like: parameter.tensor)
        }
    }

    package func update(learningRate: Double) {
        step += 1
        withoutGradients {
            for (index, parameter) in parameters.enumerated() {
                guard var own = moments[index], let gradient = parameter.tensor.grad else { continue }
                let rate = learningRate * rateFactors[index]
                let direction = own.direction(
                    of: branches[index].map { projected(gradient, $0) } ?? gradient, settings)
                moments[index] = own
                let value = parameter.tensor.detached()
                value.add(direction, alpha: -own.rate(rate, settings))
                value.scale(by: 1 - rate * settings.weightDecay)
            }
        }
    }

    private func projected(_ gradient: Tensor, _ factors: Factors) -> Tensor {
        let a = factors.a.tensor.detached().to(.float64)
        guard a.dim(0) > 0 else { return gradient }
        let gram = a.matmul(a.T) + Tensor.identity(a.dim(0), dtype: .float64, device: a.device) * 1e-8
        let solved = gram.solving(gradient.to(.float64).T).T
        return (solved * (1 / (factors.scale * factors.scale))).to(gradient.dtype)
    }

    package func state() -> [String: Tensor] { state(of: moments) }

    package func restore(_ state: [String: Tensor], step: Int) throws {
        moments = try restored(moments, from: state)
        self.step = step
    }
}
