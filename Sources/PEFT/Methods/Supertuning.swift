import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Super-tuning (2026, arXiv:2607.09287): trains the weights of largest (or smallest) magnitude only, W + S with a sparse
/// S; with a rank, LoRA is added (Supra).
public enum Supertuning: BuiltInMethod {
    /// Options of ``Supertuning``.
    public struct Configuration: TargetedConfiguration {
        /// Fraction of the weights that isn't trained.
        public var sparsity = 0.99
        /// Whether the largest magnitudes are trained instead of the smallest.
        public var selectsTop = true
        /// Rank of a LoRA branch, if there is one.
        public var rank: Int?
        /// α of the LoRA branch, which is scaled by α / r; 2 r if `nil`.
        public var alpha: Double?
        /// Dropout probability of the LoRA branch's input.
        public var dropout = 0.0
        /// Whether the file contains the positions of the trained weights; otherwise they are found in the base.
        public var savesIndices = true
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        package func check() throws {
            guard rank.map({ (1...65536).contains($0) }) ?? true else {
                throw PEFTError("the rank is \(rank ?? 0)", remedy: "use an integer from 1")
            }
            guard rank != nil || alpha == nil else {
                throw PEFTError("lora_alpha is set, but r isn't", remedy: "set --rank, or remove --alpha")
            }
            try selection.validate()
        }

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    numberField(
                        "sparsity", key: "sparsity", \.sparsity, 0...0.999_999_999,
                        help: "fraction of the weights that is not trained"),
                    flagField(
                        "select-top", key: "select_top", \.selectsTop,
                        help: "train the largest magnitudes, otherwise the smallest"),
                    .init("rank", key: "r", .integer(1...65536), help: "rank of an additional LoRA branch (none)") {
                        $0.rank.map { .integer($0) } ?? .null
                    } write: {
                        $0.rank = try integer($1)
                    },
                    .init(
                        "alpha", key: "lora_alpha", .number(0...1e6),
                        help: "alpha of the LoRA branch (twice its rank)"
                    ) {
                        $0.alpha.map { .wholeOr($0) } ?? .null
                    } write: {
                        $0.alpha = try number($1)
                    },
                    numberField(
                        "dropout", key: "lora_dropout", \.dropout, 0...0.99,
                        help: "dropout on the LoRA branch's input"),
                    flagField(
                        "save-indices", key: "save_precomputed_indices", \.savesIndices,
                        help: "store the positions of the trained weights in the file"),
                ] + targetFields(\.selection)

            package static let neutral: [String: [JSON]] = ["init_weights": [true, false]]
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = Supertuning.Configuration
        package static let name = "supertuning"
        package static let peftType: String? = "SUPERTUNING"
        package static let summary = "a trained sparse change of the largest weights (arXiv:2607.09287)"
        package static let defaultLearningRate = 1e-3

        package static func label(_ configuration: Configuration) -> String {
            let name = configuration.rank.map { "Supra r \($0)" } ?? "Super-tuning"
            return "\(name), sparsity \(configuration.sparsity) (\(configuration.selection.label))"
        }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            configuration.alpha = configuration.alpha ?? configuration.rank.map { Double(2 * $0) }
            configuration.selection = configuration.selection.resolved(for: model)
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let configuration = resolved(configuration, for: model)
            return try configuration.selection.sites(in: model).map { site in
                let count = Int(Double(site.outputs * site.inputs) * (1 - configuration.sparsity))
                guard count >= 1 else {
                    throw PEFTError(
                        "a sparsity of \(configuration.sparsity) leaves nothing to train of '\(site.path)'",
                        remedy: "use a smaller --sparsity")
                }
                let indices = TensorSpec("supertuning_indices", [count], isTrained: false, isIndex: true)
                let branch =
                    configuration.rank.map {
                        [
                            TensorSpec("supertuning_lora_A.weight", [$0, site.inputs]),
                            TensorSpec("supertuning_lora_B.weight", [site.outputs, $0]),
                        ]
                    } ?? []
                return .linear(
                    site.path,
                    [.init("supertuning_values", [count])] + (configuration.savesIndices ? [indices] : []) + branch
                ) { linear, context in
                    SupertuningAdapter(linear, configuration, count: count, context)
                }
            }
        }
    }
}

final class SupertuningAdapter: Module, LinearAdapter, AdapterModule {
    /// `[count]`, initially 0, so that training starts at the base model.
    private let values: Parameter
    /// Flat positions in the weight `[count]`, int32.
    private let indices: Parameter
    private let savesIndices: Bool
    private let branch: (a: Parameter, b: Parameter)?
    private let scale: Double
    private let dropoutRate: Double
    private let shape: [Int]

    init(_ linear: Linear, _ configuration: Supertuning.Configuration, count: Int, _ context: AttachmentContext) {
        shape = [linear.outputs, linear.inputs]
        (savesIndices, dropoutRate) = (configuration.savesIndices, configuration.dropout)
        values = Parameter(context.zeros([count]))
        branch = configuration.rank.map {
            (
                Parameter(context.random([$0, linear.inputs], fan: linear.inputs)),
                Parameter(context.zeros([linear.outputs, $0]))
            )
        }
        scale = configuration.rank.map { (configuration.alpha ?? 0) / Double($0) } ?? 0
        if context.device == .meta || context.isLoading && configuration.savesIndices {
            indices = Parameter(.zeros([count], dtype: .int32, device: context.device))
        } else {
            indices = withoutGradients {
                let sizes = linear.weight.dense(as: .float32).abs().reshaped(-1)
                return Parameter((configuration.selectsTop ? sizes : -sizes).topK(count).indices.to(.int32))
            }
        }
        super.init()
    }

    var adapterParameters: [AdapterParameter] {
        [AdapterParameter("supertuning_values", values)]
            + (savesIndices ? [AdapterParameter("supertuning_indices", indices, isTrained: false)] : [])
            + (branch.map {
                [
                    AdapterParameter("supertuning_lora_A.weight", $0.a),
                    AdapterParameter("supertuning_lora_B.weight", $0.b),
                ]
            } ?? [])
    }

    func load(_ tensors: [String: Tensor]) throws {
        try tensors["supertuning_indices"].map {
            try $0.checkIndices(below: shape[0] * shape[1], name: "supertuning_indices")
        }
        for parameter in adapterParameters {
            if let value = tensors[parameter.key] { parameter.parameter.tensor.copy(from: value) }
        }
    }

    /// S `[out, in]`
    private func sparse(_ type: DType?) -> Tensor {
        let values = values.tensor.cast(type)
        let zeros = Tensor.zeros([shape[0] * shape[1]], dtype: values.dtype, device: values.device)
        return zeros.replacing(indices.tensor.to(.int64), with: values).reshaped(shape)
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        let y = base(x) + Functions.linear(x, sparse(nil))
        guard let branch else { return y }
        let (probability, seed) = DropoutScope.draw(dropoutRate)
        return Functions.loraBranch(
            y, x: x, a: branch.a.tensor, b: branch.b.tensor, scale: scale, dropout: probability, seed: seed)
    }

    func merged(into weight: Tensor) throws -> Tensor {
        var whole = weight.to(.float64) + sparse(.float64)
        if let branch {
            whole = whole + branch.b.tensor.cast(.float64).matmul(branch.a.tensor.cast(.float64)) * scale
        }
        return whole.to(weight.dtype)
    }
}
