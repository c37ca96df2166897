import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Probabilistic VeRA (Fuhrmann et al. 2025): the frozen A gives a mean and a log variance of each of the r activations,
/// which are sampled in training; elsewhere their mean is used, y = x Wᵀ + Λ_b B (Λ_d A x)_mean.
public enum PVeRA: BuiltInMethod {
    /// Options of ``PVeRA``.
    public struct Configuration: TargetedConfiguration {
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

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    rankField(\.rank, help: "rank of the shared random matrices"),
                    numberField(
                        "dropout", key: "pvera_dropout", \.dropout, 0...0.99, help: "dropout on the branch's input"),
                    numberField("d-initial", key: "d_initial", \.initial, -1e3...1e3, help: "initial value of d"),
                    integerField(
                        "projection-key", key: "projection_prng_key", \.key, 0...Int.max,
                        help: "seed of the shared random matrices"),
                    flagField(
                        "save-projection", key: "save_projection", \.savesProjection,
                        help: "store the shared random matrices in the file"),
                ] + selectionFields(hasExclusions: false)

            package static let neutral: [String: [JSON]] = [
                "bias": ["none"], "init_weights": [true, false], "fan_in_fan_out": [false, true],
                "sample_at_inference": [false],
            ]
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = PVeRA.Configuration
        package static let name = "pvera"
        package static let peftType: String? = "PVERA"
        package static let summary = "VeRA with activations sampled in training (Fuhrmann et al. 2025)"
        package static let defaultLearningRate = 1e-2

        package static func label(_ configuration: Configuration) -> String {
            "PVeRA r \(configuration.rank) (\(configuration.selection.label))"
        }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            configuration.selection = configuration.selection.resolved(for: model, defaults: \.veraOrLoRA)
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let sites = try sites(configuration, in: model)
            let (inputs, outputs) = (sites.map(\.inputs).max() ?? 0, sites.map(\.outputs).max() ?? 0)
            let (rank, stores) = (configuration.rank, configuration.savesProjection)
            return sites.map { site in
                .linear(
                    site.path,
                    [
                        .init("pvera_lambda_d", [2 * rank]), .init("pvera_lambda_b", [site.outputs]),
                        .init("base_model.pvera_A", [2 * rank, inputs], isTrained: false, isStored: stores),
                        .init("base_model.pvera_B", [outputs, rank], isTrained: false, isStored: stores),
                    ]
                ) { linear, context in
                    let shared = context.shared("pvera") {
                        SharedProjection(
                            key: configuration.key, rows: 2 * rank, rank: rank, inputs: inputs, outputs: outputs,
                            context)
                    }
                    return PVeRAAdapter(linear, configuration, shared: shared, context)
                }
            }
        }
    }
}

final class PVeRAAdapter: Module, LowRankDelta {
    /// d `[2 r]`: of the means, then of the log variances.
    @ParameterInfo(key: "pvera_lambda_d") var d: Tensor = .zeros([0])
    /// b `[out]`, initially 0, so that training starts at the base model.
    @ParameterInfo(key: "pvera_lambda_b") var b: Tensor = .zeros([0])
    let dropoutRate: Double
    private let shared: SharedProjection
    private let isShareStored: Bool
    private let inputs: Int
    private let outputs: Int
    private let rank: Int

    init(
        _ linear: Linear, _ configuration: PVeRA.Configuration, shared: SharedProjection, _ context: AttachmentContext
    ) {
        (self.shared, dropoutRate, rank) = (shared, configuration.dropout, configuration.rank)
        isShareStored = configuration.savesProjection
        (inputs, outputs) = (linear.inputs, linear.outputs)
        super.init()
        d = .full([2 * rank], configuration.initial, dtype: context.dtype, device: context.device)
        b = context.zeros([linear.outputs])
    }

    var adapterParameters: [AdapterParameter] {
        ownParameters().map { AdapterParameter($0.key, $0.parameter) } + [
            AdapterParameter("base_model.pvera_A", shared.a, isTrained: false, isStored: isShareStored),
            AdapterParameter("base_model.pvera_B", shared.b, isTrained: false, isStored: isShareStored),
        ]
    }

    /// Λ_b B `[out, r]`.
    private func wideB(_ cast: (Tensor) -> Tensor) -> Tensor {
        cast(shared.b.tensor).narrowed(axis: 0, 0..<outputs) * cast(b).unsqueezed(1)
    }

    /// The factors of the mean.
    func factors(_ cast: (Tensor) -> Tensor) -> (a: Tensor, b: Tensor) {
        let a = cast(shared.a.tensor).narrowed(axis: 1, 0..<inputs).narrowed(axis: 0, 0..<rank)
        return (a * cast(d).narrowed(axis: 0, 0..<rank).unsqueezed(1), wideB(cast))
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        let (probability, seed) = DropoutScope.draw(dropoutRate)
        // A probability of 1 draws a seed whenever the model is in training.
        let noise = DropoutScope.draw(1)
        guard noise.probability > 0 else {
            let (a, b) = factors { $0 }
            return Functions.loraBranch(base(x), x: x, a: a, b: b, scale: 1)
        }
        let dropped = Functions.dropout(x, probability: probability, seed: seed)
        let a = shared.a.tensor.narrowed(axis: 1, 0..<inputs) * d.unsqueezed(1)
        let parts = Functions.linear(dropped, a).split(axis: x.shape.count - 1, [rank, rank])
        let epsilon = Tensor.empty(parts[0].shape, dtype: d.dtype, device: d.device)
        var random = SeededRandom(seed: noise.seed)
        if epsilon.device != .meta { epsilon.fillNormal(from: &random) }
        let sampled = parts[0] + (parts[1] * 0.5).exp() * epsilon
        return base(x) + Functions.linear(sampled, wideB { $0 })
    }
}
