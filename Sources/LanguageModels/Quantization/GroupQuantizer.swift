import PEFTSupport
import Torch
import TorchNN

/// Quantizes a model's projections to group-wise integers by round-to-nearest or GPTQ (Frantar et al. 2022).
package struct GroupQuantizer: Sendable {
    package var settings: GroupQuantization
    /// Fraction of the Hessian's mean diagonal that is added to its diagonal.
    package var damping = 0.01

    package init(_ settings: GroupQuantization) { self.settings = settings }

    /// Quantization error and size of one projection.
    package struct Outcome: Sendable {
        package let path: String
        /// ‖W − Ŵ‖ / ‖W‖ (Frobenius).
        package let weightError: Double
        /// ‖X (W − Ŵ)ᵀ‖ / ‖X Wᵀ‖ over the calibration inputs; `nil` without calibration.
        package let outputError: Double?
        /// The same with round-to-nearest, for comparison.
        package let nearestOutputError: Double?
        /// Size of the weight in bytes after quantization.
        package let bytes: Int
        /// Size of the weight in bytes before quantization.
        package let bytesBefore: Int
    }

    /// The projections to quantize: all except the output layer and untrained heads, if they fill whole words and
    /// groups; and why others are excluded.
    package func selection(in model: any LanguageModel) -> (
        chosen: [(path: String, linear: Linear)], left: [(path: String, reason: String)]
    ) {
        var chosen: [(String, Linear)] = []
        var left: [(String, String)] = []
        for (path, module) in model.namedModules() {
            guard let linear = module as? Linear else { continue }
            if path == model.outputLayer
                || model.newModules.contains(where: { path == $0 || path.hasPrefix($0 + ".") })
            {
                left.append((path, "it is the output layer"))
            } else if model.modelFamily.modules.isRouter(path) {
                left.append((path, "it chooses experts"))
            } else if let refusal = settings.refusal(outputs: linear.outputs, inputs: linear.inputs) {
                left.append((path, refusal))
            } else {
                chosen.append((path, linear))
            }
        }
        return (chosen, left)
    }

    /// Quantizes by round-to-nearest.
    /// - Throws: ``PEFTError`` if no projection can be quantized.
    package func round(_ model: any LanguageModel) throws -> [Outcome] {
        try nonempty(selection(in: model)).map { path, linear in
            let dense = linear.weight.dense(as: .float32)
            let weight = try withTorchErrors { try GroupQuantizedWeight(rounding: dense, to: settings) }
            defer { linear.weight = weight }
            return try outcome(path, linear, dense, weight, hessian: nil)
        }
    }

    /// Quantizes by GPTQ, projection by projection in execution order, so that each one's calibration inputs come
    /// from already quantized projections.
    ///
    /// Projections with the same input form a stage, and each stage runs the samples through the model once: time
    /// grows with the square of the depth, and only one stage's Hessians are in memory at a time.
    ///
    /// - Parameters:
    ///   - forward: runs all calibration samples through the model.
    ///   - progress: called with each outcome.
    package func calibrate(
        _ model: any LanguageModel, forward: () throws -> Void, progress: (Outcome) -> Void = { _ in }
    ) throws -> [Outcome] {
        let chosen = try nonempty(selection(in: model))
        let paths = Dictionary(chosen.map { (ObjectIdentifier($0.linear), $0.path) }, uniquingKeysWith: { a, _ in a })
        let recorder = StageRecorder()
        try observe(chosen.map { ($0.linear, CallObserver($0.linear, recorder)) }, forward)
        var outcomes: [Outcome] = []
        for stage in recorder.stages {
            let hessian = HessianObserver(inputs: stage[0].inputs, device: model.device)
            try observe([(stage[0], hessian)], forward)
            for linear in stage {
                guard let path = paths[ObjectIdentifier(linear)] else { continue }
                let dense = linear.weight.dense(as: .float32)
                let weight = try withTorchErrors {
                    try GroupQuantizedWeight(rounding: dense, to: settings, hessian: hessian.sum, damping: damping)
                }
                let outcome = try outcome(path, linear, dense, weight, hessian: hessian.sum)
                linear.weight = weight
                outcomes.append(outcome)
                progress(outcome)
            }
        }
        // Projections that the samples never reached.
        for (path, linear) in chosen where linear.weight.grouped == nil {
            let dense = linear.weight.dense(as: .float32)
            let weight = try withTorchErrors { try GroupQuantizedWeight(rounding: dense, to: settings) }
            outcomes.append(try outcome(path, linear, dense, weight, hessian: nil))
            linear.weight = weight
        }
        return outcomes
    }

    /// Quantizes the matrices of experts by round-to-nearest, where files have each expert's projections.
    package func roundExperts(of model: any LanguageModel) throws -> [Outcome] {
        guard model.modelFamily.modules.experts?.separate != nil else { return [] }
        return try model.namedModules().compactMap { path, module in
            guard let site = module as? ExpertLinear, site.weight.precision == .full,
                settings.refusal(outputs: site.outputs, inputs: site.inputs) == nil,
                // Gate and up are two matrices in files.
                (site.outputs / 2).isMultiple(of: settings.block)
            else { return nil }
            return try withTorchErrors {
                let dense = site.weight.dense(as: .float32)
                let before = site.weight.parameters.reduce(0) { $0 + $1.parameter.tensor.byteCount }
                let weight = try GroupedExperts(rounding: dense, to: settings)
                site.weight = weight
                let lost = (dense - weight.dense(as: .float32)).squared().sum().item()
                let energy = dense.squared().sum().item()
                return Outcome(
                    path: path, weightError: (lost / max(energy, 1e-300)).squareRoot(), outputError: nil,
                    nearestOutputError: nil,
                    bytes: weight.parameters.reduce(0) { $0 + $1.parameter.tensor.byteCount }, bytesBefore: before)
            }
        }
    }

    private func nonempty(
        _ selection: (chosen: [(path: String, linear: Linear)], left: [(path: String, reason: String)])
    ) throws -> [(path: String, linear: Linear)] {
        guard selection.chosen.isEmpty else { return selection.chosen }
        throw PEFTError(
            "no projection of the model can be quantized to \(settings.bits) bits with this group size",
            remedy: selection.left.first.map { "\($0.path): \($0.reason)" })
    }

    private func observe(_ observers: [(Linear, Module)], _ forward: () throws -> Void) throws {
        for (linear, observer) in observers { _ = linear.attach(observer, route: nil) }
        defer { for (linear, observer) in observers { linear.detach(observer) } }
        try withTorchErrors { try withoutGradients { try UnreadOutputs.computed(forward) } }
    }

    private func outcome(
        _ path: String, _ linear: Linear, _ dense: Tensor, _ weight: GroupQuantizedWeight, hessian: Tensor?
    ) throws -> Outcome {
        try withTorchErrors {
            let original = dense.to(.float64)
            func share(_ other: any LinearWeight, _ hessian: Tensor?) -> Double {
                let lost = original - other.dense(as: .float64)
                func energy(_ x: Tensor) -> Double {
                    (hessian.map { x.matmul($0.to(.float64)) * x } ?? x.squared()).sum().item()
                }
                return (energy(lost) / max(energy(original), 1e-300)).squareRoot()
            }
            var nearest: Double?
            if hessian != nil { nearest = share(try GroupQuantizedWeight(rounding: dense, to: settings), hessian) }
            return Outcome(
                path: path, weightError: share(weight, nil), outputError: hessian.map { share(weight, $0) },
                nearestOutputError: nearest,
                bytes: weight.parameters.reduce(0) { $0 + $1.parameter.tensor.byteCount },
                bytesBefore: linear.weight.parameters.reduce(0) { $0 + $1.parameter.tensor.byteCount })
        }
    }
}

/// Records the execution order of projections, grouped by shared input.
private final class StageRecorder {
    private(set) var stages: [[Linear]] = []
    private var lastInput: Tensor?
    private var seen: Set<ObjectIdentifier> = []

    func add(_ linear: Linear, _ x: Tensor) {
        defer { lastInput = x }
        guard seen.insert(ObjectIdentifier(linear)).inserted else { return }
        if lastInput === x, stages.last?.isEmpty == false {
            stages[stages.count - 1].append(linear)
        } else {
            stages.append([linear])
        }
    }
}

private class Observer: Module, LinearAdapter {
    func see(_ x: Tensor) {}
    final func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        see(x)
        return base(x)
    }
    final func merged(into weight: Tensor) -> Tensor { weight }
}

private final class CallObserver: Observer {
    private let linear: Linear
    private let recorder: StageRecorder
    init(_ linear: Linear, _ recorder: StageRecorder) { (self.linear, self.recorder) = (linear, recorder) }
    override func see(_ x: Tensor) { recorder.add(linear, x) }
}

/// H = 2 Σ xᵀ x, `[inputs, inputs]`.
private final class HessianObserver: Observer {
    let sum: Tensor
    init(inputs: Int, device: Device) { sum = .zeros([inputs, inputs], dtype: .float64, device: device) }
    override func see(_ x: Tensor) {
        let rows = x.detached().to(.float32).reshaped(-1, x.dim(-1))
        sum.add(rows.T.matmul(rows).to(.float64), alpha: 2)
    }
}
