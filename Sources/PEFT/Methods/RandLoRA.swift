import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Full-rank updates from random bases (Albert et al. 2025, eq. 4): ΔW = s Σ_j B_j Λ_j A Γ_j with frozen random bases B_j
/// `[max, r]` and A `[r, min]` shared by all projections, and trained diagonals Λ_j `[r]` and Γ_j `[min]`. There are as
/// many bases as ΔW needs for full rank, ⌈min(in, out) / r⌉.
public enum RandLoRA: BuiltInMethod {
    /// How many values of the random bases are zero.
    public enum Bases: Sendable {
        /// None: Kaiming-uniform bases.
        case dense
        /// Two thirds; the others are ±1.
        case sparse
        /// All but one in √min(in, out); the others are ±1.
        case verySparse
    }

    /// Options of ``RandLoRA``.
    public struct Configuration: TargetedConfiguration {
        /// Rank r of a basis.
        public var rank = 32
        /// α; ΔW is scaled by α / r.
        public var alpha = 640.0
        /// Dropout probability of the branch's input.
        public var dropout = 0.0
        /// Seed of the bases.
        public var key = 0
        /// Whether the file contains the bases; otherwise they are regenerated from the seed.
        public var savesProjection = true
        /// Whether the shared matrices are sparse.
        public var isSparse = false
        /// Whether the shared matrices are very sparse.
        public var isVerySparse = false
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        var bases: Bases { isVerySparse ? .verySparse : isSparse ? .sparse : .dense }

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    rankField(\.rank, help: "rank of a random basis; a lower rank trains more values"),
                    numberField(
                        "alpha", key: "randlora_alpha", \.alpha, 0...1e6,
                        help: "alpha; ΔW is scaled by alpha / rank"),
                    numberField(
                        "dropout", key: "randlora_dropout", \.dropout, 0...0.99,
                        help: "dropout on the branch's input"),
                    integerField(
                        "projection-key", key: "projection_prng_key", \.key, 0...Int.max, help: "seed of the bases"),
                    flagField(
                        "save-projection", key: "save_projection", \.savesProjection,
                        help: "store the bases in the file"),
                    flagField("sparse", key: "sparse", \.isSparse, help: "sparse bases of 0 and ±1"),
                    flagField(
                        "very-sparse", key: "very_sparse", \.isVerySparse, help: "very sparse bases of 0 and ±1"),
                ] + selectionFields(hasExclusions: false)

            package static let neutral: [String: [JSON]] = [
                "bias": ["none"], "init_weights": [true, false], "fan_in_fan_out": [false, true],
            ]
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = RandLoRA.Configuration
        package static let name = "randlora"
        package static let peftType: String? = "RANDLORA"
        package static let summary = "full-rank sum of scaled random low-rank bases (Albert et al. 2025)"
        package static let defaultLearningRate = 3e-3

        package static func label(_ configuration: Configuration) -> String {
            "RandLoRA r \(configuration.rank) (\(configuration.selection.label))"
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let sites = try sites(configuration, in: model)
            let (inputs, outputs) = (sites.map(\.inputs).max() ?? 0, sites.map(\.outputs).max() ?? 0)
            let (rank, stores) = (configuration.rank, configuration.savesProjection)
            let size = RandomBases.Size(rank: rank, shorter: min(inputs, outputs), longer: max(inputs, outputs))
            return sites.map { site in
                let shorter = min(site.inputs, site.outputs)
                let count = (shorter + rank - 1) / rank
                // Hugging Face stores a copy of the shared bases for each projection.
                func basis(_ name: String, _ shape: [Int]) -> TensorSpec {
                    .init(
                        "base_model." + name, shape, isTrained: false, isStored: stores,
                        copies: ["\(AdapterKeys.prefix)\(site.path).\(name)"])
                }
                return .linear(
                    site.path,
                    [
                        .init("randlora_lambda", [rank, count]), .init("randlora_gamma", [count, shorter]),
                        basis("randlora_A", size.a), basis("randlora_B", size.b),
                    ]
                ) { linear, context in
                    let shared = context.shared("randlora") { RandomBases(configuration, size, context) }
                    return RandLoRAAdapter(linear, configuration, count: count, shared: shared, context)
                }
            }
        }
    }
}

/// The frozen bases of RandLoRA, with the values of Hugging Face PEFT for the same key.
final class RandomBases {
    struct Size {
        let rank: Int
        /// The smaller and the larger of the largest numbers of inputs and outputs.
        let shorter: Int
        let longer: Int
        var count: Int { (shorter + rank - 1) / rank }
        var a: [Int] { [rank, 1, shorter] }
        var b: [Int] { [longer, count, rank] }
    }

    /// A `[r, 1, min]`.
    let a: Parameter
    /// B `[max, bases, r]`.
    let b: Parameter

    init(_ configuration: RandLoRA.Configuration, _ size: Size, _ context: AttachmentContext) {
        guard context.device != .meta else {
            a = Parameter(.empty(size.a, device: .meta))
            b = Parameter(.empty(size.b, device: .meta))
            return
        }
        var stream = RandomStream(seed: configuration.key)
        let sparsity: Double? =
            switch configuration.bases {
            case .dense: nil
            case .sparse: 3
            case .verySparse: Double(size.shorter).squareRoot()
            }
        let values: (a: Tensor, b: Tensor)
        if let sparsity {
            func drawn(_ shape: [Int]) -> Tensor {
                let uniform = stream.uniform(shape, 0, 1)
                let (low, high) = (1 / (2 * sparsity), 1 - 1 / (2 * sparsity))
                return uniform.greater(than: high).to(.float32) - uniform.less(than: low).to(.float32)
            }
            values = (drawn(size.a), drawn(size.b))
        } else {
            // Drawn and scaled in bf16; one basis after the other.
            func drawn(_ shape: [Int]) -> Tensor {
                let bound = 1 / Double(shape[2]).squareRoot()
                return stream.uniform(shape, -bound, bound, dtype: .bfloat16)
            }
            let a = drawn(size.a)
            values = (a, drawn([size.count, size.longer, size.rank]).transposed(0, 1).contiguous())
        }
        func scaled(_ x: Tensor) -> Parameter {
            let wide = x.to(.float64)
            let variance = (wide - wide.mean()).squared().sum() * (1 / Double(max(1, x.count - 1)))
            return Parameter((x / variance.sqrt().to(x.dtype)).to(context.dtype).to(context.device))
        }
        (a, b) = (scaled(values.a), scaled(values.b))
    }
}

final class RandLoRAAdapter: Module, LowRankDelta {
    /// Λ `[r, bases]`, initially 0, so that training starts at the base model.
    @ParameterInfo(key: "randlora_lambda") var lambda: Tensor = .zeros([0])
    /// Γ `[bases, min]`.
    @ParameterInfo(key: "randlora_gamma") var gamma: Tensor = .zeros([0])
    let dropoutRate: Double
    let scale: Double
    private let shared: RandomBases
    private let isShareStored: Bool
    private let inputs: Int
    private let outputs: Int

    init(
        _ linear: Linear, _ configuration: RandLoRA.Configuration, count: Int, shared: RandomBases,
        _ context: AttachmentContext
    ) {
        (self.shared, dropoutRate) = (shared, configuration.dropout)
        scale = configuration.alpha / Double(configuration.rank)
        isShareStored = configuration.savesProjection
        (inputs, outputs) = (linear.inputs, linear.outputs)
        super.init()
        let shorter = min(inputs, outputs)
        lambda = context.zeros([configuration.rank, count])
        gamma = .full(
            [count, shorter], 1 / Double(max(count, shorter)), dtype: context.dtype, device: context.device)
    }

    var adapterParameters: [AdapterParameter] {
        ownParameters().map { AdapterParameter($0.key, $0.parameter) } + [
            AdapterParameter("base_model.randlora_A", shared.a, isTrained: false, isStored: isShareStored),
            AdapterParameter("base_model.randlora_B", shared.b, isTrained: false, isStored: isShareStored),
        ]
    }

    func factors(_ cast: (Tensor) -> Tensor) -> (a: Tensor, b: Tensor) {
        let (lambda, gamma) = (cast(lambda), cast(gamma))
        let (rank, count, shorter) = (lambda.dim(0), lambda.dim(1), gamma.dim(1))
        // Λ A Γ, `[r, bases, min]`
        let scaled =
            lambda.unsqueezed(2) * cast(shared.a.tensor).narrowed(axis: 2, 0..<shorter) * gamma.unsqueezed(0)
        let short = scaled.reshaped(rank * count, shorter)
        let long = cast(shared.b.tensor).narrowed(axis: 0, 0..<max(inputs, outputs))
            .narrowed(axis: 1, 0..<count).reshaped(max(inputs, outputs), count * rank)
        return inputs == shorter ? (short, long) : (long.T, short.T)
    }
}
