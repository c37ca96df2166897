import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Polytropon (Ponti et al. 2023, eq. 2): a task's LoRA is the weighted mean of the factors of several skills, A = Σₛ wₛ Aₛ and B =
/// Σₛ wₛ Bₛ with w = σ(z) / Σ σ(z) and the logits z of the task; ΔW = B A / r. With several splits (multi-head routing; Caccia
/// et al. 2023) the parts of inputs and outputs have weights of their own.
///
/// In training w is drawn: σ(z + log u − log(1 − u)), the relaxed Bernoulli distribution of temperature 1.
public enum Poly: BuiltInMethod {
    /// Options of ``Poly``.
    public struct Configuration: TargetedConfiguration {
        /// Rank r of each skill.
        public var rank = 8
        /// Number of tasks.
        public var tasks = 1
        /// The task that is trained and used, from 0.
        public var task = 0
        /// Number of skills.
        public var skills = 4
        /// Number of parts of the inputs, and of the outputs, with weights of their own.
        public var splits = 1
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        package func check() throws {
            guard (0..<tasks).contains(task) else {
                throw PEFTError("the task is \(task), but there are \(tasks)", remedy: "use a value below \(tasks)")
            }
            try selection.validate()
        }

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    rankField(\.rank, help: "rank of each skill"),
                    integerField("tasks", key: "n_tasks", \.tasks, 1...65536, help: "number of tasks"),
                    .init(
                        "task-index", key: "swift_peft_task", .integer(0...65535),
                        help: "task that is trained and used, from 0", isExtension: true
                    ) {
                        $0.task == 0 ? .null : .integer($0.task)
                    } write: {
                        $0.task = $1 == .null ? 0 : try integer($1)
                    },
                    integerField("skills", key: "n_skills", \.skills, 1...65536, help: "number of skills"),
                    integerField(
                        "splits", key: "n_splits", \.splits, 1...65536,
                        help: "parts of inputs and outputs with weights of their own"),
                ] + selectionFields(hasLayers: false)

            package static let neutral: [String: [JSON]] = ["init_weights": [true, false], "poly_type": ["poly"]]
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = Poly.Configuration
        package static let name = "poly"
        package static let peftType: String? = "POLY"
        package static let summary = "a LoRA that is a task's mixture of several skills (Ponti et al. 2023)"
        package static let defaultLearningRate = 1e-3

        package static func label(_ configuration: Configuration) -> String {
            "Poly r \(configuration.rank), \(counted(configuration.skills, "skill")) (\(configuration.selection.label))"
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let (splits, skills, rank) = (configuration.splits, configuration.skills, configuration.rank)
            return try sites(configuration, in: model).map { site in
                try requireDivisor(splits, of: site, option: "splits")
                return .linear(
                    site.path,
                    [
                        TensorSpec("poly_lora_A", [splits, skills, site.inputs / splits, rank]),
                        TensorSpec("poly_lora_B", [splits, skills, rank, site.outputs / splits]),
                        TensorSpec("poly_router.module_logits", [configuration.tasks, splits * skills]),
                    ]
                ) { linear, context in PolyAdapter(linear, configuration, context) }
            }
        }
    }
}

final class PolyAdapter: Module, LowRankDelta {
    /// `[splits, skills, in / splits, r]`.
    private let a: Parameter
    /// `[splits, skills, r, out / splits]`, initially 0, so that training starts at the base model.
    private let b: Parameter
    /// z `[tasks, splits · skills]`.
    private let logits: Parameter
    private let task: Int

    var scale: Double { 1 / Double(a.tensor.dim(3)) }
    var dropoutRate: Double { 0 }

    init(_ linear: Linear, _ configuration: Poly.Configuration, _ context: AttachmentContext) {
        let (splits, skills, rank) = (configuration.splits, configuration.skills, configuration.rank)
        let inputs = linear.inputs / splits
        a = Parameter(context.uniform([splits, skills, inputs, rank], bound: 1 / Double(inputs).squareRoot()))
        b = Parameter(context.zeros([splits, skills, rank, linear.outputs / splits]))
        logits = Parameter(context.uniform([configuration.tasks, splits * skills], bound: 1e-3))
        task = configuration.task
    }

    override func ownParameters() -> [(key: String, parameter: Parameter)] {
        [("poly_lora_A", a), ("poly_lora_B", b), ("poly_router.module_logits", logits)]
    }

    /// w of each split and skill, `[splits, skills, 1, 1]`.
    private func weights(_ cast: (Tensor) -> Tensor) -> Tensor {
        var z = cast(logits.tensor).narrowed(axis: 0, task..<(task + 1))
        // A probability of 1 draws a seed whenever the model is in training.
        let noise = DropoutScope.draw(1)
        if noise.probability > 0 {
            let uniform = Tensor.empty(z.shape, dtype: z.dtype, device: z.device)
            if z.device != .meta { uniform.fillUniform(1e-7, 1 - 1e-7, seed: noise.seed) }
            z = z + uniform.log() - (uniform * -1 + 1).log()
        }
        let share = z.sigmoid().reshaped(a.tensor.dim(0), a.tensor.dim(1))
        return (share / (share.sum(axes: [1], keep: true) + 1e-12)).reshaped(share.dim(0), share.dim(1), 1, 1)
    }

    func factors(_ cast: (Tensor) -> Tensor) -> (a: Tensor, b: Tensor) {
        let (weights, rank) = (weights(cast), a.tensor.dim(3))
        let own = (cast(a.tensor) * weights).sum(axes: [1]).reshaped(-1, rank)
        // `[splits, r, out / splits]` -> `[splits · out / splits, r]`
        let other = (cast(b.tensor) * weights).sum(axes: [1]).transposed(1, 2).reshaped(-1, rank)
        return (own.T.contiguous(), other)
    }
}
