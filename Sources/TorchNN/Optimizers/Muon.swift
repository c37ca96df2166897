import Foundation
import PEFTSupport
import Torch

/// Muon (Jordan et al. 2024): orthogonalized momentum for hidden matrices, and AdamW for all other parameters.
///
/// With momentum B and gradient G of a matrix `[m, n]`, as in `torch.optim.Muon`:
///
///     B ← μ B + (1 − μ) G,   U = (1 − μ) G + μ B,   θ ← (1 − η λ) θ − η s NS(U)
///
/// NS is a Newton–Schulz iteration in bf16 toward the nearest orthogonal matrix. The factor s is 0.2 √max(m, n), which
/// gives updates the RMS of AdamW's, so that learning rates carry over (Liu et al. 2025, eq. 4), or √max(1, m / n).
package final class Muon: Optimizer {
    package let parameters: [Parameter]
    package private(set) var step = 0
    private let momentum: Double, weightDecay: Double, iterations: Int, isNesterov: Bool, matchesRMS: Bool
    private let rateFactors: [Double]
    private let storage: StateStorage
    /// Indices of the parameters with orthogonalized updates, and their momenta.
    private let matrices: [Int]
    private var momenta: [Tensor]
    private let rest: AdamW

    /// - Parameters:
    ///   - isMatrix: whether each parameter is a hidden matrix; parameters of another rank never are.
    ///   - rateFactors: learning-rate factor of each parameter; 1 by default.
    ///   - matchesRMS: whether s is 0.2 √max(m, n) rather than √max(1, m / n).
    package init(
        _ parameters: [Parameter], isMatrix: [Bool]? = nil, rateFactors: [Double]? = nil, momentum: Double = 0.95,
        isNesterov: Bool = true, iterations: Int = 5, matchesRMS: Bool = true, beta1: Double = 0.9,
        beta2: Double = 0.999, epsilon: Double = 1e-8, weightDecay: Double = 0.01, storage: StateStorage = .memory
    ) {
        (self.parameters, self.storage) = (parameters, storage)
        (self.momentum, self.weightDecay, self.iterations) = (momentum, weightDecay, iterations)
        (self.isNesterov, self.matchesRMS) = (isNesterov, matchesRMS)
        let factors = rateFactors ?? Array(repeating: 1, count: parameters.count)
        self.rateFactors = factors
        matrices = parameters.indices.filter { parameters[$0].tensor.rank == 2 && isMatrix?[$0] ?? true }
        momenta = matrices.map { storage.zeros(like: parameters[$0].tensor) }
        let others = parameters.indices.filter { [matrices] in !matrices.contains($0) }
        rest = AdamW(
            others.map { parameters[$0] }, rateFactors: others.map { factors[$0] }, beta1: beta1, beta2: beta2,
            epsilon: epsilon, weightDecay: weightDecay, storage: storage)
    }

    package func update(learningRate: Double) {
        step += 1
        // AdamW's fused kernel has no meta device.
        if parameters.first?.tensor.device != .meta { rest.update(learningRate: learningRate) }
        withoutGradients {
            for (place, index) in matrices.enumerated() {
                guard let gradient = parameters[index].tensor.grad else { continue }
                let (value, buffer) = (parameters[index].tensor.detached(), momenta[place])
                let rate = learningRate * rateFactors[index]
                // Rounded as in PyTorch, as bf16 keeps differences.
                buffer.copy(from: buffer.interpolated(to: gradient, 1 - momentum))
                let direction = isNesterov ? gradient.interpolated(to: buffer, momentum) : buffer
                storage.release(buffer)
                let (m, n) = (Double(value.dim(0)), Double(value.dim(1)))
                let scale = matchesRMS ? 0.2 * max(m, n).squareRoot() : max(1, m / n).squareRoot()
                value.scale(by: 1 - rate * weightDecay)
                value.add(
                    OptimizerKernels.orthogonalized(direction, iterations: iterations).to(value.dtype),
                    alpha: -rate * scale)
            }
        }
    }

    package func state() -> [String: Tensor] {
        var state = Dictionary(uniqueKeysWithValues: rest.state().map { ("rest.\($0)", $1) })
        for (place, index) in matrices.enumerated() { state["momentum.\(index)"] = momenta[place] }
        return state
    }

    package func restore(_ state: [String: Tensor], step: Int) throws {
        let newMomenta = try matrices.enumerated().map { place, index in
            try restored("momentum.\(index)", like: momenta[place], from: state, in: storage)
        }
        let prefix = "rest."
        for (name, value) in rest.state() { _ = try restored(prefix + name, like: value, from: state) }
        var others: [String: Tensor] = [:]
        for (name, value) in state where name.hasPrefix(prefix) {
            others[String(name.dropFirst(prefix.count))] = value
        }
        try rest.restore(others, step: step)
        (momenta, self.step) = (newMomenta, step)
    }
}
