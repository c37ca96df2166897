import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// High-rank adaptation by a Hadamard product (Huang et al. 2025, eq. 3): ΔW = W ∘ (B A), whose rank isn't limited by
/// that of B A.
public enum HiRA: BuiltInMethod {
    /// Options of ``HiRA``.
    public struct Configuration: TargetedConfiguration {
        /// Rank r.
        public var rank = 32
        /// Dropout probability of the branch's input.
        public var dropout = 0.0
        /// Kept for files. Hugging Face PEFT 0.21 creates every factor with rank r whatever this says, and so does this.
        public var rankPattern: [String: Double] = [:]
        /// Whether A is initialized from a normal distribution of standard deviation 1/r instead of uniformly.
        public var isGaussian = false
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    rankField(\.rank, help: "rank of the factor of the weight"),
                    numberField(
                        "dropout", key: "hira_dropout", \.dropout, 0...0.99, help: "dropout on the branch's input"),
                    patternField(
                        "rank-pattern", key: "rank_pattern", \.rankPattern,
                        help: "kept in the file, without effect, as in Hugging Face PEFT"),
                    .init(
                        "init", key: "init_weights", .choice(["true", "gaussian"]),
                        help: "initialization of A: uniform (true) or gaussian"
                    ) {
                        $0.isGaussian ? "gaussian" : true
                    } write: {
                        $0.isGaussian = $1 == "gaussian"
                    },
                ] + selectionFields()

            package static let neutral: [String: [JSON]] = [
                "fan_in_fan_out": [false, true], "init_weights": [true, false, "true", "gaussian"],
            ]
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = HiRA.Configuration
        package static let name = "hira"
        package static let peftType: String? = "HIRA"
        package static let summary = "Hadamard product of the weight and a low-rank matrix (Huang et al. 2025)"
        package static let defaultLearningRate = 3e-3

        package static func label(_ configuration: Configuration) -> String {
            "HiRA r \(configuration.rank) (\(configuration.selection.label))"
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let rank = configuration.rank
            return try sites(configuration, in: model).map { site in
                .linear(
                    site.path, [.init("hira_A", [rank, site.inputs]), .init("hira_B", [site.outputs, rank])]
                ) { linear, context in
                    HiRAAdapter(linear, configuration, rank: rank, context)
                }
            }
        }
    }
}

final class HiRAAdapter: Module, WeightDelta {
    @ParameterInfo(key: "hira_A") var a: Tensor = .zeros([0])
    /// Initially 0, so that training starts at the base model.
    @ParameterInfo(key: "hira_B") var b: Tensor = .zeros([0])
    let dropoutRate: Double
    /// W when the adapter was attached; dequantized in each pass if it is quantized.
    private let original: any LinearWeight

    init(_ linear: Linear, _ configuration: HiRA.Configuration, rank: Int, _ context: AttachmentContext) {
        dropoutRate = configuration.dropout
        original = linear.weight.snapshot()
        super.init()
        a =
            configuration.isGaussian
            ? context.normal([rank, linear.inputs], deviation: 1 / Double(rank))
            : context.uniform([rank, linear.inputs])
        b = context.zeros([linear.outputs, rank])
    }

    func delta(_ cast: (Tensor) -> Tensor) -> Tensor {
        let (a, b) = (cast(a), cast(b))
        return withoutGradients { original.dense(as: a.dtype).detached() } * b.matmul(a)
    }
}
