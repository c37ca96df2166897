import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Matrix shard sharing (Kang and Yin 2024, section 3): y = x Wᵀ + S(x) D, where S sums the inputs of all shards of r
/// neighbors and one trained matrix D `[r, out]` is shared by the shards.
public enum MiSS: BuiltInMethod {
    /// The form of ΔW.
    public enum Variant: String, CaseIterable, Sendable {
        /// D repeated over the inputs.
        case balanced = "true"
        /// Block affine transformation: each square block W_b of the weight gets W_b D_b + D_b.
        case bat
        /// D repeated over the inputs and the outputs.
        case mini
    }

    /// Options of ``MiSS``.
    public struct Configuration: TargetedConfiguration {
        /// Size r of a shard.
        public var rank = 64
        /// Dropout probability of the branch's input.
        public var dropout = 0.0
        /// Trained outputs of `mini`.
        public var miniRank = 1
        /// How shards become the delta.
        public var variant = Variant.balanced
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        package func check() throws {
            guard variant != .bat || dropout == 0 else {
                throw PEFTError("the variant bat of MiSS has no dropout", remedy: "set --dropout to 0")
            }
            try selection.validate()
        }

        /// Shape of D at a projection.
        func shape(at site: ModelOutline.LinearSite) throws -> [Int] {
            guard rank <= site.inputs else {
                throw PEFTError(
                    "rank \(rank) exceeds the \(site.inputs) inputs of \(site.path)",
                    remedy: "use --rank \(site.inputs) or less")
            }
            switch variant {
            case .balanced: return [rank, site.outputs]
            case .bat:
                try requireDivisor(rank, of: site, option: "rank")
                return [site.outputs / rank, rank, rank]
            case .mini:
                try requireDivisor(miniRank, of: site, inputs: false, option: "mini-rank")
                return [rank, miniRank]
            }
        }

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    rankField(\.rank, help: "neighboring inputs of a shard"),
                    numberField(
                        "dropout", key: "miss_dropout", \.dropout, 0...0.99, help: "dropout on the branch's input"),
                    integerField("mini-rank", key: "mini_r", \.miniRank, 1...65536, help: "trained outputs of mini"),
                    .init(
                        "init", key: "init_weights", .choice(Variant.allCases.map(\.rawValue)),
                        help: "variant: balanced (true), bat or mini"
                    ) {
                        $0.variant == .balanced ? true : .string($0.variant.rawValue)
                    } write: {
                        // False draws random values, which a file overwrites.
                        guard let name = $1.string else { return $0.variant = .balanced }
                        guard let variant = Variant(rawValue: name) else {
                            throw PEFTError("'\(name)' is not a variant of MiSS", remedy: "use true, bat or mini")
                        }
                        $0.variant = variant
                    },
                ] + selectionFields()

            package static let neutral: [String: [JSON]] = ["bias": ["none"]]
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = MiSS.Configuration
        package static let name = "miss"
        package static let peftType: String? = "MISS"
        package static let summary = "one trained matrix shared by all shards of a weight (Kang and Yin 2024)"
        package static let defaultLearningRate = 1e-3

        package static func label(_ configuration: Configuration) -> String {
            let variant = configuration.variant == .balanced ? "" : " \(configuration.variant.rawValue)"
            return "MiSS\(variant) r \(configuration.rank) (\(configuration.selection.label))"
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            try sites(configuration, in: model).map { site in
                let shape = try configuration.shape(at: site)
                return .linear(site.path, [.init("miss_block", shape)]) { linear, context in
                    if configuration.variant == .bat { return BlockAffineAdapter(linear, shape: shape, context) }
                    return MiSSAdapter(linear, shape: shape, dropout: configuration.dropout, context)
                }
            }
        }
    }
}

final class MiSSAdapter: Module, LinearAdapter, AdapterModule {
    /// D `[r, out]`, or `[r, mini_r]`; initially 0.
    @ParameterInfo(key: "miss_block") var shard: Tensor = .zeros([0])
    private let dropoutRate: Double
    private let inputs: Int
    private let outputs: Int

    init(_ linear: Linear, shape: [Int], dropout: Double, _ context: AttachmentContext) {
        (dropoutRate, inputs, outputs) = (dropout, linear.inputs, linear.outputs)
        super.init()
        shard = context.zeros(shape)
    }

    /// D with all outputs, `[r, out]`.
    private func whole(_ shard: Tensor) -> Tensor {
        let copies = outputs / shard.dim(1)
        return copies == 1 ? shard : Tensor.concatenated(Array(repeating: shard, count: copies), axis: 1)
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        let rank = shard.dim(0)
        var dropped = dropout(x, dropoutRate)
        let shards = (inputs + rank - 1) / rank
        var shape = x.shape
        if shards * rank > inputs {
            shape[shape.count - 1] = shards * rank - inputs
            dropped = .concatenated(
                [dropped, .zeros(shape, dtype: dropped.dtype, device: dropped.device)], axis: shape.count - 1)
        }
        shape.replaceSubrange((shape.count - 1)..., with: [shards, rank])
        let sums = dropped.reshaped(shape).sum(axes: [shape.count - 2])
        return base(x) + sums.matmul(whole(shard))
    }

    func merged(into weight: Tensor) throws -> Tensor {
        let block = whole(shard.detached().to(.float64)).T
        let copies = (inputs + shard.dim(0) - 1) / shard.dim(0)
        let delta = Tensor.concatenated(Array(repeating: block, count: copies), axis: 1)
        return (weight.to(.float64) + delta.narrowed(axis: 1, 0..<inputs)).to(weight.dtype)
    }
}

/// ΔW = W_b D_b + D_b for each block W_b `[r, r]` of the weight, with one D_b for all blocks of the same outputs.
final class BlockAffineAdapter: Module, WeightDelta {
    /// D `[out / r, r, r]`, initially 0.
    @ParameterInfo(key: "miss_block") var blocks: Tensor = .zeros([0])
    /// W when the adapter was attached.
    private let original: any LinearWeight

    init(_ linear: Linear, shape: [Int], _ context: AttachmentContext) {
        original = linear.weight.snapshot()
        super.init()
        blocks = context.zeros(shape)
    }

    func delta(_ cast: (Tensor) -> Tensor) -> Tensor {
        let blocks = cast(blocks)
        let rank = blocks.dim(1)
        let weight = withoutGradients { original.dense(as: blocks.dtype).detached() }
        // `[out / r, r, in / r, r]` -> `[in / r, out / r, r, r]`
        let parts = weight.reshaped(blocks.dim(0), rank, -1, rank).permuted(2, 0, 1, 3)
        return (parts.matmul(blocks) + blocks).permuted(1, 2, 0, 3).reshaped(weight.shape)
    }
}
