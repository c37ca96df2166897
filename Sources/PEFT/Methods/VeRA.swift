import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Vector-based random matrix adaptation (Kopiczko et al. 2024, eq. 2): y = x Wᵀ + Λ_b B Λ_d A x with frozen random A
/// and B shared by all projections, and trained vectors d `[r]` and b `[out]` per projection.
public enum VeRA: BuiltInMethod {
    /// Options of ``VeRA``.
    public struct Configuration: BuiltInConfiguration {
        /// Rank r of the shared matrices.
        public var rank = 256
        /// Dropout probability of the branch's input.
        public var dropout = 0.0
        /// Initial value of d.
        public var initial = 0.1
        /// Seed of the shared random matrices.
        public var key = 0
        /// Whether the file contains the shared matrices; otherwise they are regenerated from the seed.
        public var savesProjection = true
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        package func check() throws { try selection.validate() }

        package enum Declaration: ConfigurationDeclaration {
            package static var fileDefaults: Configuration {
                var configuration = Configuration()
                configuration.selection.allowsUnusedTargets = true
                return configuration
            }

            package static let fields: [ConfigurationField<Configuration>] =
                [
                    rankField(\.rank, help: "rank of the shared random matrices"),
                    numberField(
                        "dropout", key: "vera_dropout", \.dropout, 0...0.99, help: "dropout on the branch's input"),
                    numberField("d-initial", key: "d_initial", \.initial, -1e3...1e3, help: "initial value of d"),
                    integerField(
                        "projection-key", key: "projection_prng_key", \.key, 0...Int.max,
                        help: "seed of the shared random matrices"),
                    flagField(
                        "save-projection", key: "save_projection", \.savesProjection,
                        help: "store the shared random matrices in the file"),
                ] + targetFields(\.selection) + layerFields(\.selection)

            package static let neutral: [String: [JSON]] = [
                "bias": ["none"], "init_weights": [true],
            ]
        }
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = VeRA.Configuration
        package static let name = "vera"
        package static let peftType: String? = "VERA"
        package static let summary =
            "trained scaling vectors around shared random LoRA matrices (Kopiczko et al. 2024)"
        package static let defaultLearningRate = 1e-2

        package static func label(_ configuration: Configuration) -> String {
            "VeRA r \(configuration.rank) (\(configuration.selection.label))"
        }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            configuration.selection = configuration.selection.resolved(for: model, defaults: \.veraOrLoRA)
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let sites = try resolved(configuration, for: model).selection.sites(in: model)
            let (inputs, outputs) = (sites.map(\.inputs).max() ?? 0, sites.map(\.outputs).max() ?? 0)
            let rank = configuration.rank
            let stores = configuration.savesProjection
            return sites.map { site in
                .linear(
                    site.path,
                    [
                        .init("vera_lambda_d", [rank]), .init("vera_lambda_b", [site.outputs]),
                        .init("base_model.vera_A", [rank, inputs], isTrained: false, isStored: stores),
                        .init("base_model.vera_B", [outputs, rank], isTrained: false, isStored: stores),
                    ]
                ) { linear, context in
                    let shared = context.shared("vera") {
                        SharedProjection(
                            key: configuration.key, rows: rank, rank: rank, inputs: inputs, outputs: outputs, context)
                    }
                    return VeRAAdapter(linear, configuration, shared: shared, context)
                }
            }
        }
    }
}

final class VeRAAdapter: Module, LinearAdapter, AdapterModule {
    /// d `[r]`.
    @ParameterInfo(key: "vera_lambda_d") var d: Tensor = .zeros([0])
    /// b `[out]`, initially 0, so that training starts at the base model.
    @ParameterInfo(key: "vera_lambda_b") var b: Tensor = .zeros([0])
    private let shared: SharedProjection
    private let dropoutRate: Double
    private let isShareStored: Bool
    private let inputs: Int
    private let outputs: Int

    init(
        _ linear: Linear, _ configuration: VeRA.Configuration, shared: SharedProjection, _ context: AttachmentContext
    ) {
        (self.shared, dropoutRate) = (shared, configuration.dropout)
        isShareStored = configuration.savesProjection
        (inputs, outputs) = (linear.inputs, linear.outputs)
        super.init()
        d = .full([configuration.rank], configuration.initial, dtype: context.dtype, device: context.device)
        b = .zeros([linear.outputs], dtype: context.dtype, device: context.device)
    }

    var adapterParameters: [AdapterParameter] {
        ownParameters().map { AdapterParameter($0.key, $0.parameter) } + [
            AdapterParameter("base_model.vera_A", shared.a, isTrained: false, isStored: isShareStored),
            AdapterParameter("base_model.vera_B", shared.b, isTrained: false, isStored: isShareStored),
        ]
    }

    /// Λ_d A `[r, in]` and Λ_b B `[out, r]`.
    private var scaled: (a: Tensor, b: Tensor) {
        (
            shared.a.tensor.narrowed(axis: 1, 0..<inputs) * d.unsqueezed(1),
            shared.b.tensor.narrowed(axis: 0, 0..<outputs) * b.unsqueezed(1)
        )
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        // Scaling the matrices costs r (in + out) multiplications; scaling activations would cost r + out per token.
        let (a, b) = scaled
        let (probability, seed) = DropoutScope.draw(dropoutRate)
        return Functions.loraBranch(base(x), x: x, a: a, b: b, scale: 1, dropout: probability, seed: seed)
    }

    func merged(into weight: Tensor) throws -> Tensor {
        let (a, b) = scaled
        return (weight.to(.float64) + b.detached().to(.float64).matmul(a.detached().to(.float64))).to(weight.dtype)
    }
}
