import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Householder reflection adaptation (Yuan et al. 2024, eq. 3): W' = W H_1 … H_r with reflections H_i = I − 2 u_i u_iᵀ of
/// unit vectors, an orthogonal transformation of the inputs.
public enum HRA: BuiltInMethod {
    /// Options of ``HRA``.
    public struct Configuration: TargetedConfiguration {
        /// Number r of reflections.
        public var rank = 8
        /// Whether the vectors are orthogonalized (Gram-Schmidt).
        public var isOrthogonal = false
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    rankField(\.rank, help: "number of reflections; even, to start at the base model"),
                    flagField("orthogonal", key: "apply_GS", \.isOrthogonal, help: "orthogonalize the vectors"),
                ] + selectionFields()

            package static let neutral: [String: [JSON]] = ["bias": ["none"], "init_weights": [true, false]]
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = HRA.Configuration
        package static let name = "hra"
        package static let peftType: String? = "HRA"
        package static let summary = "Householder reflections of a projection's input (Yuan et al. 2024)"
        package static let defaultLearningRate = 1e-3

        package static func label(_ configuration: Configuration) -> String {
            "HRA r \(configuration.rank) (\(configuration.selection.label))"
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            try sites(configuration, in: model).map { site in
                guard !configuration.isOrthogonal || configuration.rank <= site.inputs else {
                    throw PEFTError(
                        "\(configuration.rank) vectors of size \(site.inputs) can't be orthogonal at \(site.path)",
                        remedy: "use --rank \(site.inputs) or less")
                }
                return .linear(site.path, [.init("hra_u", [site.inputs, configuration.rank])]) { linear, context in
                    HRAAdapter(linear, configuration, context)
                }
            }
        }
    }
}

final class HRAAdapter: Module, LinearAdapter, AdapterModule {
    /// U `[in, r]`; equal pairs of columns, whose reflections cancel, if r is even.
    @ParameterInfo(key: "hra_u") var vectors: Tensor = .zeros([0])
    private let isOrthogonal: Bool
    /// 1 above the diagonal, `[r, r]`.
    private let upper: Tensor

    init(_ linear: Linear, _ configuration: HRA.Configuration, _ context: AttachmentContext) {
        isOrthogonal = configuration.isOrthogonal
        let rank = configuration.rank
        upper = context.shared("hra") {
            Tensor(
                (0..<rank).flatMap { row in (0..<rank).map { Float($0 > row ? 1 : 0) } }, shape: [rank, rank]
            ).to(context.dtype).to(context.device == .meta ? .cpu : context.device)
        }
        super.init()
        // Equal vectors can't be orthogonalized, so with Gram-Schmidt training starts elsewhere.
        guard rank.isMultiple(of: 2), !isOrthogonal else {
            vectors = context.uniform([linear.inputs, rank])
            return
        }
        let half = context.uniform([linear.inputs, rank / 2]).unsqueezed(2)
        vectors = Tensor.concatenated([half, half], axis: 2).reshaped(linear.inputs, rank)
    }

    /// U with unit columns `[in, r]`, and V `[r, in]` so that H_1 … H_r = I − U V: the compact form of a product of
    /// reflections (Schreiber and Van Loan 1989), V = M⁻¹ Uᵀ with M = the upper triangle of UᵀU and ½ on the diagonal.
    /// For orthogonalized vectors I − 2 Q Qᵀ depends on their span alone: M = ½ UᵀU.
    private func factors(_ vectors: Tensor) -> (u: Tensor, v: Tensor) {
        let u = vectors / vectors.squared().sum(axes: [0], keep: true).sqrt()
        // Elementwise, so that mixed precision keeps it in fp32.
        let gram = (u.unsqueezed(2) * u.unsqueezed(1)).sum(axes: [0])
        let half = Tensor.identity(u.dim(1), dtype: u.dtype, device: u.device) * 0.5
        let middle = isOrthogonal ? gram * 0.5 : gram * upper.to(u.dtype).to(u.device) + half
        return (u, middle.solving(u.T))
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        let (u, v) = factors(vectors)
        return base(x - x.matmul(v.T).matmul(u.T))
    }

    func merged(into weight: Tensor) throws -> Tensor {
        let (u, v) = factors(vectors.detached().to(.float64))
        let wide = weight.to(.float64)
        return (wide - wide.matmul(u).matmul(v)).to(weight.dtype)
    }
}
