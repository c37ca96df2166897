import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Decoupled low-rank adaptation (Bini et al. 2025, eq. 8): ΔW = λ/r · B Ξ A ∘ ‖W‖ with the norms of A's rows and B's
/// columns divided out (Ξ), so that λ alone bounds the distance from the base model; ‖W‖ are the norms of the weight's
/// columns.
public enum DeLoRA: BuiltInMethod {
    /// Options of ``DeLoRA``.
    public struct Configuration: TargetedConfiguration {
        /// Rank r.
        public var rank = 8
        /// Initial value of λ.
        public var lambda = 15.0
        /// Dropout probability of the branch's input.
        public var dropout = 0.0
        /// Ranks of modules whose path matches a pattern.
        public var rankPattern: [String: Double] = [:]
        /// Values of λ of modules whose path matches a pattern.
        public var lambdaPattern: [String: Double] = [:]
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    rankField(\.rank, help: "rank of ΔW"),
                    numberField(
                        "lambda", key: "delora_lambda", \.lambda, -1e6...1e6,
                        help: "initial bound of ΔW's norm relative to the weight's"),
                    numberField(
                        "dropout", key: "module_dropout", \.dropout, 0...0.99, help: "dropout on the branch's input"),
                    patternField(
                        "rank-pattern", key: "rank_pattern", \.rankPattern,
                        help: "ranks for matching modules: pattern=rank,…"),
                    patternField(
                        "lambda-pattern", key: "lambda_pattern", \.lambdaPattern,
                        help: "lambdas for matching modules: pattern=lambda,…"),
                ] + selectionFields()

            package static let neutral: [String: [JSON]] = ["bias": ["none"], "init_weights": [true, false]]
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = DeLoRA.Configuration
        package static let name = "delora"
        package static let peftType: String? = "DELORA"
        package static let summary = "LoRA with a normalized direction and a trained strength (Bini et al. 2025)"
        package static let defaultLearningRate = 1e-3

        package static func label(_ configuration: Configuration) -> String {
            "DeLoRA r \(configuration.rank) (\(configuration.selection.label))"
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            try sites(configuration, in: model).map { site in
                let rank = try TargetSelection.count(
                    for: site.path, in: configuration.rankPattern, usual: configuration.rank)
                let lambda =
                    try TargetSelection.value(for: site.path, in: configuration.lambdaPattern) ?? configuration.lambda
                return .linear(
                    site.path,
                    [
                        .init("delora_A", [rank, site.inputs]), .init("delora_B", [site.outputs, rank]),
                        .init("delora_lambda", [1]), .init("delora_w_norm", [site.inputs], isTrained: false),
                    ]
                ) { linear, context in
                    DeLoRAAdapter(linear, rank: rank, lambda: lambda, dropout: configuration.dropout, context)
                }
            }
        }
    }
}

final class DeLoRAAdapter: Module, LowRankDelta {
    @ParameterInfo(key: "delora_A") var a: Tensor = .zeros([0])
    /// Initially 0, so that training starts at the base model.
    @ParameterInfo(key: "delora_B") var b: Tensor = .zeros([0])
    /// λ `[1]`.
    @ParameterInfo(key: "delora_lambda") var lambda: Tensor = .zeros([0])
    /// Norms of the weight's columns when the adapter was attached, `[in]`.
    @ParameterInfo(key: "delora_w_norm") var norms: Tensor = .zeros([0])
    let dropoutRate: Double

    init(_ linear: Linear, rank: Int, lambda: Double, dropout: Double, _ context: AttachmentContext) {
        dropoutRate = dropout
        super.init()
        a = context.uniform([rank, linear.inputs])
        b = context.zeros([linear.outputs, rank])
        self.lambda = .full([1], lambda, dtype: context.dtype, device: context.device)
        norms = withoutGradients {
            // A file brings its own.
            context.device == .meta || context.isLoading
                ? context.ones([linear.inputs])
                : linear.weight.dense(as: context.dtype).squared().sum(axes: [0]).sqrt().detached().clone()
        }
    }

    var adapterParameters: [AdapterParameter] {
        parameters().map { AdapterParameter($0.path, $0.parameter, isTrained: $0.path != "delora_w_norm") }
    }

    func factors(_ cast: (Tensor) -> Tensor) -> (a: Tensor, b: Tensor) {
        let (a, b) = (cast(a), cast(b))
        // Norms of at least 1e-4; bounded before the root, whose derivative at zero is infinite.
        func norm(_ x: Tensor, axis: Int) -> Tensor { x.squared().sum(axes: [axis]).atLeast(1e-8).sqrt() }
        let gains = cast(lambda) * (1 / Double(a.dim(0))) / (norm(a, axis: 1) * norm(b, axis: 0))
        return (a * gains.unsqueezed(1) * cast(norms), b)
    }
}
