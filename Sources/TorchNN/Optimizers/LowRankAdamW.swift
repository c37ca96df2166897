import PEFTSupport
import Torch

/// AdamW whose moments of a matrix `[m, n]` are those of its gradient projected to rank r, on the side that leaves fewer
/// values: G Pᵀ `[m, r]` with P `[r, n]` if m ≥ n, else Pᵀ G `[r, n]` with P `[m, r]`. Other parameters have full moments.
///
/// The projection is renewed every so many steps. ``Rule`` says what it is and how the update comes about.
package final class LowRankAdamW: Optimizer {
    package enum Rule: Sendable {
        /// GaLore (Zhao et al. 2024, algorithm 2): P are singular vectors of the gradient, and the update is Adam's in
        /// the subspace, projected back, times α.
        case gaLore(scale: Double)
        /// APOLLO (Zhu et al. 2024, algorithm 1): P is random with variance 1 / r, and the update is the gradient with
        /// each channel, or (APOLLO-Mini) the tensor, scaled by √α ‖Adam's update‖ / ‖projected gradient‖, whose
        /// norm grows by at most 1 % a step.
        case apollo(scale: Double, perTensor: Bool)
    }

    package let parameters: [Parameter]
    package private(set) var step = 0
    private let settings: AdamSettings
    private let rule: Rule
    /// Steps between renewals of a projection.
    private let gap: Int
    private let rateFactors: [Double]
    private var moments: [AdamMoments]
    /// `nil` for parameters with full moments.
    private var projections: [Projection?]

    private struct Projection {
        var matrix: Tensor
        /// Whether P multiplies from the right.
        let isRight: Bool
        /// APOLLO: the seed of the next random P, and the norm of the last update.
        var seed: UInt64
        var norm: Tensor

        func applied(to gradient: Tensor) -> Tensor {
            isRight ? gradient.matmul(matrix.T) : matrix.T.matmul(gradient)
        }

        func reversed(_ update: Tensor) -> Tensor { isRight ? update.matmul(matrix) : matrix.matmul(update) }
    }

    /// - Parameters:
    ///   - isMatrix: whether each parameter is a hidden matrix; parameters of another rank never are.
    ///   - rank: rank r of the projections.
    ///   - rateFactors: learning-rate factor of each parameter; 1 by default.
    package init(
        _ parameters: [Parameter], isMatrix: [Bool]? = nil, rule: Rule, rank: Int, gap: Int,
        rateFactors: [Double]? = nil, settings: AdamSettings = AdamSettings()
    ) {
        (self.parameters, self.rule, self.gap, self.settings) = (parameters, rule, gap, settings)
        self.rateFactors = rateFactors ?? Array(repeating: 1, count: parameters.count)
        var (projections, moments): ([Projection?], [AdamMoments]) = ([], [])
        for (index, parameter) in parameters.enumerated() {
            let (tensor, shape) = (parameter.tensor, parameter.tensor.shape)
            guard shape.count == 2, isMatrix?[index] ?? true else {
                projections.append(nil)
                moments.append(AdamMoments(shape, like: tensor))
                continue
            }
            let isRight = shape[0] >= shape[1]
            var own = rank
            if case .gaLore = rule { own = min(rank, min(shape[0], shape[1])) }
            projections.append(
                Projection(
                    matrix: .zeros(
                        isRight ? [own, shape[1]] : [shape[0], own], dtype: tensor.dtype, device: tensor.device),
                    isRight: isRight, seed: UInt64(index + 1),
                    norm: .zeros([], dtype: tensor.dtype, device: tensor.device)))
            moments.append(AdamMoments(isRight ? [shape[0], own] : [own, shape[1]], like: tensor))
        }
        (self.projections, self.moments) = (projections, moments)
    }

    package func update(learningRate: Double) {
        step += 1
        withoutGradients {
            for (index, parameter) in parameters.enumerated() {
                guard let gradient = parameter.tensor.grad else { continue }
                let rate = learningRate * rateFactors[index]
                let update: Tensor
                if projections[index] != nil {
                    update = lowRankUpdate(index, gradient)
                } else {
                    update = moments[index].direction(of: gradient, settings)
                }
                let value = parameter.tensor.detached()
                value.add(update, alpha: -moments[index].rate(rate, settings))
                value.scale(by: 1 - rate * settings.weightDecay)
            }
        }
    }

    private func lowRankUpdate(_ index: Int, _ gradient: Tensor) -> Tensor {
        guard var projection = projections[index] else { return gradient }
        defer { projections[index] = projection }
        if moments[index].steps % gap == 0 { renew(&projection, for: gradient) }
        let low = projection.applied(to: gradient)
        let direction = moments[index].direction(of: low, settings)
        switch rule {
        case .gaLore(let scale): return projection.reversed(direction) * scale
        case .apollo(let scale, let perTensor):
            let axes = perTensor ? [0, 1] : [projection.isRight ? 1 : 0]
            let factors = norm(direction, axes, keep: true) / (norm(low, axes, keep: true) + 1e-8)
            var update = gradient * factors
            let size = norm(update, [0, 1], keep: false)
            if moments[index].steps == 1 {
                projection.norm = size
            } else {
                let limiter = (size / (projection.norm + 1e-8)).atLeast(1.01) / 1.01
                update = update / limiter
                projection.norm = size / limiter
            }
            return update * scale.squareRoot()
        }
    }

    private func norm(_ x: Tensor, _ axes: [Int], keep: Bool) -> Tensor {
        x.squared().sum(axes: axes, keep: keep).sqrt()
    }

    private func renew(_ projection: inout Projection, for gradient: Tensor) {
        switch rule {
        case .gaLore:
            let (u, _, vh) = gradient.to(.float32).svd()
            let part =
                projection.isRight
                ? vh.narrowed(axis: 0, 0..<projection.matrix.dim(0))
                : u.narrowed(axis: 1, 0..<projection.matrix.dim(1))
            projection.matrix = part.contiguous().to(gradient.dtype)
        case .apollo:
            let rank = Double(projection.matrix.dim(projection.isRight ? 0 : 1))
            let next = Tensor.zeros(like: projection.matrix)
            if next.device != .meta { next.fillNormal(seed: projection.seed) }
            projection.matrix = next / rank.squareRoot()
            projection.seed = Self.seed(after: projection.seed)
        }
    }

    /// The seed of the projection after that of `seed`, as in the package `apollo-torch`.
    private static func seed(after seed: UInt64) -> UInt64 {
        let last: [Int] = Tensor.randomIntegers(15, seed: seed).array()
        return UInt64(last.last ?? 0)
    }

    package func state() -> [String: Tensor] {
        var state = state(of: moments)
        for (index, projection) in projections.enumerated() {
            state["projection.\(index)"] = projection?.matrix
            if case .apollo = rule { state["norm.\(index)"] = projection?.norm }
        }
        return state
    }

    package func restore(_ state: [String: Tensor], step: Int) throws {
        let newMoments = try restored(moments, from: state).compactMap { $0 }
        var newProjections = projections
        for (index, own) in projections.enumerated() {
            guard let own else { continue }
            newProjections[index]?.matrix = try restored("projection.\(index)", like: own.matrix, from: state)
            guard case .apollo = rule else { continue }
            newProjections[index]?.norm = try restored("norm.\(index)", like: own.norm, from: state)
            // The seed follows from the number of projections so far.
            var seed = UInt64(index + 1)
            for _ in 0..<((newMoments[index].steps + gap - 1) / gap) { seed = Self.seed(after: seed) }
            newProjections[index]?.seed = seed
        }
        (moments, projections, self.step) = (newMoments, newProjections, step)
    }
}
