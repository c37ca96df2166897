import Foundation
import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Adaptive budget allocation (Zhang et al. 2023): ΔW = P Λ Q in SVD form. The least important singular values in Λ
/// are pruned step by step until the total rank meets a budget.
public enum AdaLoRA: BuiltInMethod {
    /// Options of ``AdaLoRA``.
    public struct Configuration: BuiltInConfiguration {
        /// Initial rank of each projection (`init_r`) and mean rank after pruning (`target_r`).
        public var initialRank = 12
        /// Mean rank at the end.
        public var targetRank = 8
        /// α; ΔW is scaled by α / r.
        public var alpha = 16.0
        /// Dropout probability of the branch's input.
        public var dropout = 0.0
        /// Warmup steps before pruning, final steps without pruning, and steps between prunings; `nil` is 10 %, 30 %
        /// and 1 % of all steps.
        public var warmup: Int?
        /// Steps after the last change of ranks.
        public var final: Int?
        /// Steps between changes of ranks.
        public var interval: Int?
        /// Total steps of the schedule; the run's if `nil`.
        public var totalSteps: Int?
        /// EMA coefficients of the sensitivity and of its uncertainty.
        public var beta1 = 0.85
        /// Decay of the uncertainty's moving average.
        public var beta2 = 0.85
        /// Weight of the orthogonality penalty on P and Q.
        public var orthogonality = 0.5
        /// Mask of retained singular values, by tensor name.
        package var kept: [String: [Bool]] = [:]
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        private static func stepsField(
            _ name: String, key: String, _ path: WritableKeyPath<Configuration, Int?> & Sendable, file: Int,
            help: String
        ) -> ConfigurationField<Configuration> {
            .init(name, key: key, .integer(0...1_000_000_000_000), help: help) {
                $0[keyPath: path].map { .integer($0) } ?? .integer(file)
            } write: {
                $0[keyPath: path] = try integer($1)
            }
        }

        package func check() throws {
            guard targetRank <= initialRank else {
                throw PEFTError(
                    "the target rank \(targetRank) is above the initial rank \(initialRank)",
                    remedy: "use an --init-rank of at least --target-rank")
            }
            try selection.validate()
        }

        package enum Declaration: ConfigurationDeclaration {
            package static var fileDefaults: Configuration {
                var configuration = Configuration()
                configuration.alpha = 8
                (configuration.warmup, configuration.final, configuration.interval) = (0, 0, 1)
                configuration.selection.allowsUnusedTargets = true
                return configuration
            }

            package static let fields: [ConfigurationField<Configuration>] =
                [
                    integerField("init-rank", key: "init_r", \.initialRank, 1...65536, help: "initial rank"),
                    integerField(
                        "target-rank", key: "target_r", \.targetRank, 1...65536,
                        help: "target mean rank after pruning"),
                    numberField(
                        "alpha", key: "lora_alpha", \.alpha, 1e-9...1e6,
                        help: "LoRA alpha; the branch is scaled by alpha / rank"
                    ),
                    numberField(
                        "dropout", key: "lora_dropout", \.dropout, 0...0.99, help: "dropout on the branch's input"),
                    stepsField(
                        "t-init", key: "tinit", \.warmup, file: 0,
                        help: "warmup steps before pruning (default: 10 % of all)"),
                    stepsField(
                        "t-final", key: "tfinal", \.final, file: 0,
                        help: "final steps without pruning (default: 30 % of all)"),
                    stepsField(
                        "delta-t", key: "deltaT", \.interval, file: 1,
                        help: "steps between prunings (default: 1 % of all)"),
                    .init(
                        "total-step", key: "total_step", .integer(1...1_000_000_000_000),
                        help: "total steps of the schedule (default: those of the run)"
                    ) {
                        $0.totalSteps.map { .integer($0) } ?? .integer(1)
                    } write: {
                        $0.totalSteps = try integer($1)
                    },
                    numberField(
                        "beta1", key: "beta1", \.beta1, 1e-6...0.999999, help: "EMA coefficient of the sensitivity"
                    ),
                    numberField(
                        "beta2", key: "beta2", \.beta2, 1e-6...0.999999, help: "EMA coefficient of its uncertainty"
                    ),
                    numberField(
                        "orth-reg", key: "orth_reg_weight", \.orthogonality, 0...1e6,
                        help: "weight of the orthogonality penalty"),
                    .init(
                        "kept", key: "rank_pattern", .text,
                        help: "retained singular values, as in adapter_config.json"
                    ) {
                        $0.kept.isEmpty
                            ? .null : .object($0.kept.mapValues { .array($0.map { .bool($0) }) })
                    } write: { configuration, value in
                        for (path, flags) in value.object ?? [:] {
                            guard let list = flags.array, case let bools = list.compactMap(\.bool),
                                bools.count == list.count
                            else {
                                throw PEFTError(
                                    "'\(path)' is not a list of booleans",
                                    remedy: "list true or false for each singular value")
                            }
                            configuration.kept[path] = bools
                        }
                    },
                ] + targetFields(\.selection) + layerFields(\.selection)

            package static let neutral: [String: [JSON]] = [
                "bias": ["none"], "use_dora": [false], "fan_in_fan_out": [false, true], "use_rslora": [false],
                "init_lora_weights": [true],
            ]
        }
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = AdaLoRA.Configuration
        package static let name = "adalora"
        package static let peftType: String? = "ADALORA"
        package static let summary = "SVD-form LoRA with an adaptive rank budget (Zhang et al. 2023)"
        package static let defaultLearningRate = 3e-3

        package static func label(_ configuration: Configuration) -> String {
            "AdaLoRA r \(configuration.initialRank)→\(configuration.targetRank) (\(configuration.selection.label))"
        }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            configuration.selection = configuration.selection.resolved(for: model, defaults: \.adaLoRA)
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            try resolved(configuration, for: model).selection.sites(in: model).map { site in
                let rank =
                    configuration.kept["\(site.path).lora_E"].map { $0.filter { $0 }.count }
                    ?? configuration.initialRank
                // The scale is based on the initial rank, whatever was pruned since.
                let scale = configuration.alpha / (Double(configuration.initialRank) + 1e-5)
                return .linear(
                    site.path,
                    [
                        .init("lora_A", [rank, site.inputs]), .init("lora_B", [site.outputs, rank]),
                        .init("lora_E", [rank, 1]),
                    ]
                ) { linear, context in
                    AdaLoRAAdapter(linear, rank: rank, scale: scale, dropout: configuration.dropout, context)
                }
            }
        }

        package static func trainingHook(_ configuration: Configuration, for adapter: Adapter) -> (any TrainingHook)?
        {
            RankAllocation(configuration, adapter)
        }

        package static func fileConfiguration(_ configuration: Configuration, of adapter: Adapter) -> Configuration {
            var configuration = configuration
            for entry in adapter.attached {
                guard let update = entry.adapter as? AdaLoRAAdapter, let kept = update.kept else { continue }
                configuration.kept["\(entry.path).lora_E"] = kept
            }
            if let steps = adapter.attached.lazy.compactMap({ ($0.adapter as? AdaLoRAAdapter)?.schedule }).first {
                (configuration.warmup, configuration.final) = (steps.warmup, steps.final)
                (configuration.interval, configuration.totalSteps) = (steps.interval, steps.total)
            }
            return configuration
        }
    }
}

/// AdaLoRA over one projection: y = x Wᵀ + s x (Λ Q)ᵀ Pᵀ with Q = A `[r, in]`, P = B `[out, r]`, Λ = E `[r, 1]`.
final class AdaLoRAAdapter: Module, LinearAdapter, AdapterModule {
    @ParameterInfo(key: "lora_A") var a: Tensor = .zeros([0])
    @ParameterInfo(key: "lora_B") var b: Tensor = .zeros([0])
    @ParameterInfo(key: "lora_E") var e: Tensor = .zeros([0])
    let scale: Double
    private let dropoutRate: Double
    /// Singular values that the last pruning retained; `nil` before the first.
    var kept: [Bool]?
    var schedule: RankAllocation.Schedule?

    init(_ linear: Linear, rank: Int, scale: Double, dropout: Double, _ context: AttachmentContext) {
        (self.scale, dropoutRate) = (scale, dropout)
        super.init()
        let (dtype, device) = (context.dtype, context.device)
        a = .empty([rank, linear.inputs], dtype: dtype, device: device)
        b = .empty([linear.outputs, rank], dtype: dtype, device: device)
        e = .zeros([rank, 1], dtype: dtype, device: device)
        guard device != .meta else { return }
        a.fillNormal(deviation: 0.02, from: &context.random)
        b.fillNormal(deviation: 0.02, from: &context.random)
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        guard a.dim(0) > 0 else { return base(x) }
        let (probability, seed) = DropoutScope.draw(dropoutRate)
        return Functions.loraBranch(
            base(x), x: x, a: a * e, b: b, scale: scale, dropout: probability, seed: seed)
    }

    func merged(into weight: Tensor) throws -> Tensor {
        guard a.dim(0) > 0 else { return weight }
        let product = b.detached().to(.float64).matmul((a * e).detached().to(.float64))
        return (weight.to(.float64) + product * scale).to(weight.dtype)
    }

    /// Only the retained singular triplets.
    func storedTensors() -> [String: Tensor] {
        guard let kept, kept.contains(false) else { return ["lora_A": a, "lora_B": b, "lora_E": e] }
        let rows = Tensor(kept.indices.filter { kept[$0] }, device: a.device)
        return withoutGradients {
            [
                "lora_A": a.detached().selecting(rows), "lora_B": b.detached().selecting(axis: 1, rows),
                "lora_E": e.detached().selecting(rows),
            ]
        }
    }

    func load(_ tensors: [String: Tensor]) throws {
        for parameter in adapterParameters {
            if let value = tensors[parameter.key], value.count > 0 { parameter.parameter.tensor.copy(from: value) }
        }
    }
}

/// Rank allocation (Zhang et al. 2023, algorithm 1): importance is the smoothed sensitivity times its uncertainty,
/// and the budget decreases as a cubic function of the step.
final class RankAllocation: TrainingHook {
    struct Schedule { var warmup: Int, final: Int, interval: Int, total: Int }

    private let configuration: AdaLoRA.Configuration
    private let adapters: [AdaLoRAAdapter]
    private var schedule: Schedule
    /// Smoothed sensitivity and uncertainty of each element of every adapter's A, B and E.
    private var sensitivity: [[Tensor]] = []
    private var uncertainty: [[Tensor]] = []

    init(_ configuration: AdaLoRA.Configuration, _ adapter: Adapter) {
        self.configuration = configuration
        adapters = adapter.attached.compactMap { $0.adapter as? AdaLoRAAdapter }
        schedule = Schedule(warmup: 0, final: 0, interval: 1, total: 1)
        reset()
    }

    private func reset() {
        sensitivity = adapters.map { [$0.a, $0.b, $0.e].map { .zeros(like: $0) } }
        uncertainty = adapters.map { [$0.a, $0.b, $0.e].map { .zeros(like: $0) } }
    }

    private func prepare(_ totalSteps: Int) {
        let total = max(configuration.totalSteps ?? 0, totalSteps)
        schedule = Schedule(
            warmup: configuration.warmup ?? total / 10, final: configuration.final ?? total * 3 / 10,
            interval: max(1, configuration.interval ?? total / 100), total: total)
        for adapter in adapters { adapter.schedule = schedule }
    }

    func begin(totalSteps: Int, forward: () throws -> Bool) throws {
        prepare(totalSteps)
        guard schedule.warmup + schedule.final < schedule.total else {
            throw PEFTError(
                "AdaLoRA's \(schedule.total) steps leave none for pruning after \(schedule.warmup) warmup and \(schedule.final) final steps",
                remedy: "lower --t-init or --t-final, or train longer")
        }
    }

    /// The weighted mean of ‖Q Qᵀ − I‖ and ‖Pᵀ P − I‖ (eq. 4).
    func penalty() -> Tensor? {
        guard configuration.orthogonality > 0, let first = adapters.first else { return nil }
        let terms = adapters.flatMap { [$0.a.matmul($0.a.T), $0.b.T.matmul($0.b)] }.map { product -> Tensor in
            let identity = Tensor.identity(product.dim(0), dtype: product.dtype, device: product.device)
            return (product - identity).squared().sum().sqrt().reshaped(1)
        }
        guard first.a.dim(0) > 0 else { return nil }
        return Tensor.concatenated(terms).sum() * (configuration.orthogonality / Double(terms.count))
    }

    var changesParameters: Bool { true }

    func afterUpdate(step: Int, totalSteps: Int) {
        if schedule.total <= 1 { prepare(totalSteps) }
        let end = schedule.total - schedule.final
        withoutGradients {
            if step < end { observe() }
            if step > end {
                for adapter in adapters { mask(adapter) }
            } else if step == end || (step > schedule.warmup && step % schedule.interval == 0) {
                prune(to: step == end ? targetBudget : budget(step))
                if step == end { reset() }
            }
        }
    }

    private var initialBudget: Int { adapters.reduce(0) { $0 + $1.a.dim(0) } }
    private var targetBudget: Int { configuration.targetRank * adapters.count }

    private func budget(_ step: Int) -> Int {
        let share = 1 - Double(step - schedule.warmup) / Double(schedule.total - schedule.final - schedule.warmup)
        return Int(Double(initialBudget - targetBudget) * Foundation.pow(share, 3) + Double(targetBudget))
    }

    private func observe() {
        for (index, adapter) in adapters.enumerated() {
            for (part, value) in [adapter.a, adapter.b, adapter.e].enumerated() {
                guard let gradient = value.grad else { continue }
                let now = (value.detached() * gradient).abs()
                let smooth = sensitivity[index][part]
                smooth.scale(by: configuration.beta1)
                smooth.add(now, alpha: 1 - configuration.beta1)
                let doubt = uncertainty[index][part]
                doubt.scale(by: configuration.beta2)
                doubt.add((now - smooth).abs(), alpha: 1 - configuration.beta2)
            }
        }
    }

    /// Retains the `budget` most important triplets over all projections.
    private func prune(to budget: Int) {
        let scores = adapters.indices.map { index -> [Float] in
            let parts = zip(sensitivity[index], uncertainty[index]).map { $0 * $1 }
            return (parts[2].reshaped(-1) + parts[0].mean(axes: [1]) + parts[1].mean(axes: [0])).array()
        }
        let sorted = scores.flatMap(\.self).sorted()
        let removed = sorted.count - budget
        guard removed > 0, removed <= sorted.count else { return }
        let threshold = sorted[removed - 1]
        for (adapter, score) in zip(adapters, scores) {
            adapter.kept = score.map { $0 > threshold }
            mask(adapter)
        }
    }

    private func mask(_ adapter: AdaLoRAAdapter) {
        guard let kept = adapter.kept else { return }
        let factors = Tensor(kept.map { $0 ? Float(1) : 0 }, shape: [kept.count, 1], device: adapter.e.device)
        adapter.e.detached().copy(from: adapter.e.detached() * factors.to(adapter.e.dtype))
    }

    func state() -> [String: Tensor] {
        var state: [String: Tensor] = [
            "schedule": Tensor([schedule.warmup, schedule.final, schedule.interval, schedule.total])
        ]
        for (index, adapter) in adapters.enumerated() {
            for part in 0..<3 {
                state["sensitivity.\(index).\(part)"] = sensitivity[index][part]
                state["uncertainty.\(index).\(part)"] = uncertainty[index][part]
            }
            if let kept = adapter.kept { state["kept.\(index)"] = Tensor(kept.map { $0 ? 1 : 0 }) }
        }
        return state
    }

    func restore(_ state: [String: Tensor], step: Int) throws {
        guard let times = state["schedule"]?.array(Int.self), times.count == 4 else {
            throw PEFTError(
                "the checkpoint has no AdaLoRA schedule", remedy: "resume with the settings it was saved with")
        }
        schedule = Schedule(warmup: times[0], final: times[1], interval: times[2], total: times[3])
        for (index, adapter) in adapters.enumerated() {
            adapter.schedule = schedule
            for part in 0..<3 {
                guard let smooth = state["sensitivity.\(index).\(part)"],
                    let doubt = state["uncertainty.\(index).\(part)"],
                    smooth.shape == sensitivity[index][part].shape
                else {
                    throw PEFTError(
                        "the checkpoint has no AdaLoRA importance scores",
                        remedy: "resume with the settings it was saved with")
                }
                sensitivity[index][part].copy(from: smooth)
                uncertainty[index][part].copy(from: doubt)
            }
            adapter.kept = state["kept.\(index)"].map { $0.array(Int.self).map { $0 == 1 } }
        }
    }
}
