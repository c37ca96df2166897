import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// TinyLoRA (2026, arXiv:2602.04118): ΔW = B R A with R = Σᵢ vᵢ Pᵢ `[r, r]`. A and B are the principal singular
/// vectors of W, each scaled by the root of its singular value; P `[u, r, r]` is random and frozen; only v `[u]` is
/// trained, and groups of projections may share it.
public enum TinyLoRA: BuiltInMethod {
    /// Options of ``TinyLoRA``.
    public struct Configuration: TargetedConfiguration {
        /// Rank r of the principal subspace.
        public var rank = 2
        /// Number u of trained values per group of projections.
        public var values = 64
        /// 0: a vector per projection; 1: one vector for all.
        public var tying = 0.0
        /// Seed of P; the projection's index is added.
        public var seed = 42
        /// Whether the file contains P; otherwise it is regenerated from the seed.
        public var savesProjection = true
        /// Whether v is initially uniform in ±`bound` instead of 0.
        public var isUniform = false
        /// Bound of the initial values.
        public var bound = 0.02
        /// Dropout probability of the branch's input.
        public var dropout = 0.0
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        /// The vector that projection `index` of `count` uses.
        func group(of index: Int, count: Int) -> Int {
            let groups = max(1, Int((Double(count) * (1 - tying)).rounded(.toNearestOrEven)))
            return min(index / max(1, count / groups), groups - 1)
        }

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    rankField(\.rank, help: "rank of the principal subspace"),
                    integerField(
                        "trained-values", key: "u", \.values, 1...1_000_000, help: "trained values per projection"),
                    numberField(
                        "weight-tying", key: "weight_tying", \.tying, 0...1,
                        help: "how many projections share their values, from 0 (none) to 1 (all)"),
                    integerField(
                        "projection-key", key: "projection_seed", \.seed, 0...(Int.max / 2),
                        help: "seed of the random projections"),
                    flagField(
                        "save-projection", key: "save_projection", \.savesProjection,
                        help: "store the random projections in the file"),
                    .init(
                        "init", key: "init_weights", .choice(["zero", "uniform"]),
                        help: "initial values: zero or uniform"
                    ) {
                        $0.isUniform ? "uniform" : true
                    } write: {
                        guard ["zero", "uniform", true, false].contains($1) else {
                            throw PEFTError(
                                "\($1.text(indent: nil)) is not an initialization", remedy: "use true or uniform")
                        }
                        $0.isUniform = $1 == "uniform"
                    },
                    numberField(
                        "init-bound", key: "init_v_bound", \.bound, 0...1e3,
                        help: "bound of uniform initial values"),
                    numberField(
                        "dropout", key: "tinylora_dropout", \.dropout, 0...0.99, help: "dropout on the branch's input"
                    ),
                ] + targetFields(\.selection) + layerFields(\.selection)

            package static let neutral: [String: [JSON]] = ["bias": ["none"], "fan_in_fan_out": [false, true]]
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = TinyLoRA.Configuration
        package static let name = "tinylora"
        package static let peftType: String? = "TINYLORA"
        package static let summary =
            "a few trained numbers per projection in its principal subspace (arXiv:2602.04118)"
        package static let defaultLearningRate = 1e-2

        package static func label(_ configuration: Configuration) -> String {
            "TinyLoRA r \(configuration.rank), u \(configuration.values) (\(configuration.selection.label))"
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let sites = try resolved(configuration, for: model).selection.sites(in: model)
            return sites.enumerated().map { index, site in
                let rank = min(configuration.rank, site.inputs, site.outputs)
                let key = "base_model.tinylora_v.\(configuration.group(of: index, count: sites.count))"
                let projection =
                    configuration.savesProjection
                    ? [TensorSpec("tinylora_P", [configuration.values, rank, rank], isTrained: false)] : []
                return .linear(
                    site.path,
                    [
                        .init(key, [configuration.values]),
                        .init("tinylora_A", [rank, site.inputs], isTrained: false),
                        .init("tinylora_B", [site.outputs, rank], isTrained: false),
                    ] + projection
                ) { linear, context in
                    let vector = context.shared(key) {
                        let vector = context.zeros([configuration.values])
                        if configuration.isUniform, context.device != .meta {
                            vector.fillUniform(-configuration.bound, configuration.bound, from: &context.random)
                        }
                        return Parameter(vector)
                    }
                    return TinyLoRAAdapter(linear, configuration, (key, vector), rank: rank, index: index, context)
                }
            }
        }
    }
}

final class TinyLoRAAdapter: Module, LowRankDelta {
    private let vectorKey: String
    /// v `[u]`, possibly shared.
    private let vector: Parameter
    /// A `[r, in]` and B `[out, r]`, in the file.
    private let a: Parameter
    private let b: Parameter
    /// P `[u, r, r]`.
    private let projection: Parameter
    private let isProjectionStored: Bool
    let dropoutRate: Double

    init(
        _ linear: Linear, _ configuration: TinyLoRA.Configuration, _ vector: (key: String, parameter: Parameter),
        rank: Int, index: Int, _ context: AttachmentContext
    ) {
        (vectorKey, self.vector) = vector
        (isProjectionStored, dropoutRate) = (configuration.savesProjection, configuration.dropout)
        a = Parameter(context.zeros([rank, linear.inputs]))
        b = Parameter(context.zeros([linear.outputs, rank]))
        let drawn = Tensor.empty([configuration.values, rank, rank], device: context.device == .meta ? .meta : .cpu)
        if context.device != .meta {
            // In fp32 on the CPU, so that the values are PyTorch's.
            drawn.fillNormal(
                deviation: 1 / Double(rank).squareRoot(), seed: UInt64(configuration.seed) + UInt64(index))
        }
        projection = Parameter(drawn.to(context.dtype).to(context.device))
        super.init()
        guard context.device != .meta, !context.isLoading else { return }
        withoutGradients {
            let (u, s, vh) = linear.weight.dense(as: .float64).svd()
            let root = s.narrowed(axis: 0, 0..<rank).sqrt()
            a.tensor.copy(from: vh.narrowed(axis: 0, 0..<rank) * root.unsqueezed(1))
            b.tensor.copy(from: u.narrowed(axis: 1, 0..<rank) * root)
        }
    }

    var adapterParameters: [AdapterParameter] {
        [
            AdapterParameter(vectorKey, vector), AdapterParameter("tinylora_A", a, isTrained: false),
            AdapterParameter("tinylora_B", b, isTrained: false),
        ] + (isProjectionStored ? [AdapterParameter("tinylora_P", projection, isTrained: false)] : [])
    }

    func factors(_ cast: (Tensor) -> Tensor) -> (a: Tensor, b: Tensor) {
        let values = cast(vector.tensor)
        let shape = projection.tensor.shape
        // R = Σᵢ vᵢ Pᵢ
        let mixed = values.unsqueezed(0).matmul(projection.tensor.to(values.dtype).reshaped(shape[0], -1))
        let b = b.tensor.to(values.dtype).matmul(mixed.reshaped(shape[1], shape[2]))
        return (a.tensor.to(values.dtype), b)
    }
}
