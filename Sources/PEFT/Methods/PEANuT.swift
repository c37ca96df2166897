import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// PEANuT, weight-aware neural tweakers (2024, arXiv:2410.01870): ΔW = s B Dᵀ, where D `[in, r]` is computed from the
/// frozen weight by a small network: D₀ = f(Wᵀ Aᵀ), `depth` hidden layers Dᵢ = f(Dᵢ₋₁ Eᵢᵀ), and as many with skip
/// connections, D ← f(D Fᵢᵀ) + D_{depth−i}.
public enum PEANuT: BuiltInMethod {
    /// Options of ``PEANuT``.
    public struct Configuration: TargetedConfiguration {
        /// Hidden size r.
        public var rank = 32
        /// Number of hidden layers on each side.
        public var depth = 0
        /// Activation of the hidden layers.
        public var activation = "relu"
        /// s
        public var scale = 1.0
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    rankField(\.rank, help: "hidden size of the network"),
                    integerField("depth", key: "depth", \.depth, 0...64, help: "hidden layers on each side"),
                    .init(
                        "activation", key: "act_fn", .choice(["relu", "gelu", "gelu_new", "silu"]),
                        help: "activation of the network"
                    ) {
                        .string($0.activation)
                    } write: {
                        let name = try text($1)
                        guard Activation(huggingFaceName: name) != nil else {
                            throw PEFTError(
                                "unknown activation '\(name)'", remedy: "use relu, gelu, gelu_new or silu")
                        }
                        $0.activation = name
                    },
                    numberField("scaling", key: "scaling", \.scale, -1e6...1e6, help: "factor of the change"),
                ] + targetFields(\.selection) + layerFields(\.selection)

            package static let neutral: [String: [JSON]] = ["init_weights": [true, false]]
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = PEANuT.Configuration
        package static let name = "peanut"
        package static let peftType: String? = "PEANUT"
        package static let summary =
            "a low-rank change computed from the weight by a small network (arXiv:2410.01870)"
        package static let defaultLearningRate = 1e-3

        package static func label(_ configuration: Configuration) -> String {
            "PEANuT r \(configuration.rank) (\(configuration.selection.label))"
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let rank = configuration.rank
            return try resolved(configuration, for: model).selection.sites(in: model).map { site in
                let hidden = ["encoders", "decoders"].flatMap { side in
                    (0..<configuration.depth).map { TensorSpec("peanut_\(side).\($0).weight", [rank, rank]) }
                }
                return .linear(
                    site.path,
                    [
                        .init("peanut_A.weight", [rank, site.outputs]),
                        .init("peanut_B.weight", [site.outputs, rank]),
                    ] + hidden
                ) { linear, context in
                    PEANuTAdapter(linear, configuration, context)
                }
            }
        }
    }
}

final class PEANuTAdapter: Module, LowRankDelta {
    /// A `[r, out]`.
    private let a: Parameter
    /// B `[out, r]`, initially 0, so that training starts at the base model.
    private let b: Parameter
    /// E and F of each layer, `[r, r]`.
    private let encoders: [Parameter]
    private let decoders: [Parameter]
    private let activation: Activation
    let scale: Double
    let dropoutRate = 0.0
    /// W when the adapter was attached; adapters below may be activated or merged later.
    private let original: any LinearWeight

    init(_ linear: Linear, _ configuration: PEANuT.Configuration, _ context: AttachmentContext) {
        let (rank, depth) = (configuration.rank, configuration.depth)
        original = linear.weight.snapshot()
        scale = configuration.scale
        activation = Activation(huggingFaceName: configuration.activation) ?? .relu
        a = Parameter(context.random([rank, linear.outputs], fan: linear.outputs))
        b = Parameter(context.zeros([linear.outputs, rank]))
        encoders = (0..<depth).map { _ in Parameter(context.random([rank, rank], fan: rank)) }
        decoders = (0..<depth).map { _ in Parameter(context.random([rank, rank], fan: rank)) }
        super.init()
    }

    var adapterParameters: [AdapterParameter] {
        [AdapterParameter("peanut_A.weight", a), AdapterParameter("peanut_B.weight", b)]
            + encoders.enumerated().map { AdapterParameter("peanut_encoders.\($0).weight", $1) }
            + decoders.enumerated().map { AdapterParameter("peanut_decoders.\($0).weight", $1) }
    }

    func factors(_ cast: (Tensor) -> Tensor) -> (a: Tensor, b: Tensor) {
        let first = cast(a.tensor)
        // Dᵀ `[r, in]`
        var hidden = activation(first.matmul(original.dense(as: first.dtype)))
        var skipped: [Tensor] = []
        for layer in encoders {
            skipped.append(hidden)
            hidden = activation(cast(layer.tensor).matmul(hidden))
        }
        for (layer, skip) in zip(decoders, skipped.reversed()) {
            hidden = activation(cast(layer.tensor).matmul(hidden)) + skip
        }
        return (hidden, cast(b.tensor))
    }
}
