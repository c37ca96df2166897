import PEFTSupport
import Torch

/// An optimizer: updates parameters from their gradients.
package protocol Optimizer: AnyObject {
    var parameters: [Parameter] { get }
    /// Number of completed steps.
    var step: Int { get }
    /// Performs one step with the given learning rate; gradients are unchanged.
    func update(learningRate: Double)
    /// The optimizer state, by name; parameters are named by their index.
    func state() -> [String: Tensor]
    /// Restores ``state()``, bit for bit.
    /// - Throws: ``PEFTError`` if a tensor is missing or has another shape.
    func restore(_ state: [String: Tensor], step: Int) throws
    /// Puts the values to evaluate and to save into the parameters, if training uses others.
    func beginEvaluation()
    /// Puts the values that training continues with back, bit for bit.
    func endEvaluation()
}

extension Optimizer {
    package func beginEvaluation() {}
    package func endEvaluation() {}

    /// Clears all gradients.
    package func clearGradients() {
        for parameter in parameters { parameter.tensor.grad = nil }
    }

    func restored(
        _ name: String, like tensor: Tensor, from state: [String: Tensor], in storage: StateStorage = .memory
    ) throws -> Tensor {
        guard let value = state[name] else {
            throw PEFTError(
                "the checkpoint has no optimizer state '\(name)'",
                remedy: "resume with the settings it was saved with")
        }
        guard value.shape == tensor.shape else {
            throw PEFTError(
                "optimizer state '\(name)' has shape \(value.shape), expected \(tensor.shape)",
                remedy: "resume with the settings the checkpoint was saved with")
        }
        let copy = storage.zeros(like: tensor)
        copy.copy(from: value)
        storage.release(copy)
        return copy
    }
}

/// AdamW: Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).
package final class AdamW: Optimizer {
    package let parameters: [Parameter]
    package private(set) var step = 0
    private let beta1: Double, beta2: Double, epsilon: Double, weightDecay: Double
    private var first: [Tensor]
    private var second: [Tensor]
    /// Number of steps of each parameter, for bias correction.
    private var reachedSteps: [Int]
    /// Parameters grouped by learning-rate factor.
    private let groups: [(factor: Double, indices: [Int])]
    private let storage: StateStorage

    /// - Parameters:
    ///   - rateFactors: learning-rate factor of each parameter; 1 by default.
    ///   - weightDecay: decoupled weight decay λ; a step subtracts learningRate · λ · parameter.
    package init(
        _ parameters: [Parameter], rateFactors: [Double]? = nil, beta1: Double = 0.9, beta2: Double = 0.999,
        epsilon: Double = 1e-8,
        weightDecay: Double = 0.01, storage: StateStorage = .memory
    ) {
        (self.parameters, self.storage) = (parameters, storage)
        (self.beta1, self.beta2, self.epsilon, self.weightDecay) = (beta1, beta2, epsilon, weightDecay)
        first = parameters.map { storage.zeros(like: $0.tensor) }
        second = parameters.map { storage.zeros(like: $0.tensor) }
        reachedSteps = Array(repeating: 0, count: parameters.count)
        let factors = rateFactors ?? Array(repeating: 1, count: parameters.count)
        groups = Set(factors).sorted().map { factor in (factor, factors.indices.filter { factors[$0] == factor }) }
    }

    package func update(learningRate: Double) {
        step += 1
        for group in groups {
            // A parameter without a gradient is skipped, as in PyTorch.
            let reached = group.indices.filter { parameters[$0].tensor.grad != nil }
            for index in reached { reachedSteps[index] += 1 }
            for own in batches(reached) {
                let count = reachedSteps[own[0]]
                OptimizerKernels.adamW(
                    own.map { parameters[$0].tensor }, firstMoments: own.map { first[$0] },
                    secondMoments: own.map { second[$0] }, step: count, learningRate: learningRate * group.factor,
                    beta1: beta1, beta2: beta2, weightDecay: weightDecay, epsilon: epsilon)
                for index in own { storage.release(first[index], second[index]) }
            }
        }
    }

    /// Parameters to update in one fused call: those with equal step counts, and each separately if its state is
    /// paged.
    private func batches(_ reached: [Int]) -> [[Int]] {
        guard storage == .memory else { return reached.map { [$0] } }
        return Dictionary(grouping: reached) { reachedSteps[$0] }.sorted { $0.key < $1.key }.map(\.value)
    }

    package func state() -> [String: Tensor] {
        var state: [String: Tensor] = [:]
        for index in parameters.indices {
            state["first.\(index)"] = first[index]
            state["second.\(index)"] = second[index]
        }
        state["counts"] = Tensor(reachedSteps.map(Double.init), shape: [reachedSteps.count])
        return state
    }

    package func restore(_ state: [String: Tensor], step: Int) throws {
        let newFirst = try parameters.indices.map {
            try restored("first.\($0)", like: first[$0], from: state, in: storage)
        }
        let newSecond = try parameters.indices.map {
            try restored("second.\($0)", like: second[$0], from: state, in: storage)
        }
        // Older checkpoints have one step count for all parameters.
        let counts = state["counts"].map { $0.to(.float64).array(Double.self).map { Int($0) } }
        guard counts?.count ?? parameters.count == parameters.count else {
            throw PEFTError(
                "the optimizer state has step counts for \(counts?.count ?? 0) tensors, but \(parameters.count) are trained",
                remedy: "resume with the settings the checkpoint was saved with")
        }
        (first, second, self.step) = (newFirst, newSecond, step)
        reachedSteps = counts ?? Array(repeating: step, count: parameters.count)
    }
}
