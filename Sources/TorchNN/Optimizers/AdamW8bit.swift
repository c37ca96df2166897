import PEFTSupport
import Torch

/// AdamW with 8-bit moments (Dettmers et al. 2022, 8-bit optimizers via block-wise quantization), as bitsandbytes'
/// `AdamW8bit` on a CPU: blocks of 256 with dynamic maps, and 32 bits for small parameters.
package final class AdamW8bit: Optimizer {
    /// Parameters with fewer elements keep 32-bit moments.
    package static let smallest = 4096
    /// Elements per scale.
    static let block = 256

    package let parameters: [Parameter]
    package private(set) var step = 0
    private let beta1: Double, beta2: Double, epsilon: Double, weightDecay: Double
    private let factors: [Double]
    private let storage: StateStorage
    private var moments: [Moments]
    /// Number of steps of each parameter, for bias correction.
    private var reachedSteps: [Int]

    /// A parameter's two moments; without scales they aren't quantized.
    private struct Moments {
        var first: Tensor, second: Tensor
        var scales: (first: Tensor, second: Tensor)?

        init(of tensor: Tensor, in storage: StateStorage) {
            guard tensor.count >= AdamW8bit.smallest else {
                (first, second) = (storage.zeros(like: tensor), storage.zeros(like: tensor))
                return
            }
            // Codes are on the CPU; on the meta device there are none.
            let device = tensor.device == .meta ? Device.meta : .cpu
            func codes() -> Tensor { storage.zeros(tensor.shape, dtype: .uint8, device: device) }
            let blocks = (tensor.count + AdamW8bit.block - 1) / AdamW8bit.block
            (first, second) = (codes(), codes())
            scales = (.zeros([blocks], device: device), .zeros([blocks], device: device))
        }
    }

    /// Parameters as in ``AdamW``.
    package init(
        _ parameters: [Parameter], rateFactors: [Double]? = nil, beta1: Double = 0.9, beta2: Double = 0.999,
        epsilon: Double = 1e-8, weightDecay: Double = 0.01, storage: StateStorage = .memory
    ) {
        (self.parameters, self.storage) = (parameters, storage)
        (self.beta1, self.beta2, self.epsilon, self.weightDecay) = (beta1, beta2, epsilon, weightDecay)
        factors = rateFactors ?? Array(repeating: 1, count: parameters.count)
        moments = parameters.map { Moments(of: $0.tensor, in: storage) }
        reachedSteps = Array(repeating: 0, count: parameters.count)
    }

    package func update(learningRate: Double) {
        step += 1
        for (index, parameter) in parameters.enumerated() where parameter.tensor.grad != nil {
            reachedSteps[index] += 1
            let (own, rate) = (moments[index], learningRate * factors[index])
            if let scales = own.scales {
                OptimizerKernels.adamW8bit(
                    parameter.tensor, first: (own.first, scales.first), second: (own.second, scales.second),
                    step: reachedSteps[index], learningRate: rate, beta1: beta1, beta2: beta2,
                    weightDecay: weightDecay,
                    epsilon: epsilon)
            } else {
                OptimizerKernels.adamW(
                    [parameter.tensor], firstMoments: [own.first], secondMoments: [own.second],
                    step: reachedSteps[index], learningRate: rate, beta1: beta1, beta2: beta2,
                    weightDecay: weightDecay,
                    epsilon: epsilon)
            }
            storage.release(own.first, own.second)
        }
    }

    package func state() -> [String: Tensor] {
        var state: [String: Tensor] = [:]
        for (index, own) in moments.enumerated() {
            state["first.\(index)"] = own.first
            state["second.\(index)"] = own.second
            state["first.\(index).scales"] = own.scales?.first
            state["second.\(index).scales"] = own.scales?.second
        }
        state["counts"] = Tensor(reachedSteps.map(Double.init), shape: [reachedSteps.count])
        return state
    }

    package func restore(_ state: [String: Tensor], step: Int) throws {
        var restored = moments
        for (index, own) in moments.enumerated() {
            restored[index].first = try self.restored("first.\(index)", like: own.first, from: state, in: storage)
            restored[index].second = try self.restored("second.\(index)", like: own.second, from: state, in: storage)
            guard let scales = own.scales else { continue }
            restored[index].scales = (
                try self.restored("first.\(index).scales", like: scales.first, from: state),
                try self.restored("second.\(index).scales", like: scales.second, from: state)
            )
        }
        let counts = try self.restored("counts", like: Tensor.zeros([parameters.count], dtype: .float64), from: state)
        (moments, self.step, reachedSteps) = (restored, step, counts.array(Double.self).map { Int($0) })
    }
}
