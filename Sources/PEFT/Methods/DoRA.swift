import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Weight-decomposed low-rank adaptation (Liu et al. 2024, eq. 5): W' = m ⊙ (W + s B A) / ‖W + s B A‖ with one
/// magnitude m and one norm per output; the norm is excluded from the gradient (section 4.3).
public struct DoRA: BuiltInMethod, LoRAVariant {
    package var isEnabled = false

    package init() {}

    package static let fields: [ConfigurationField<LoRAVariants>] = [
        .init("dora", key: "use_dora", .flag, help: "train a magnitude vector too (DoRA)") {
            .bool($0[DoRA.self].isEnabled)
        } write: {
            $0[DoRA.self].isEnabled = try flag($1)
        }
    ]

    package func label(_ name: String) -> String { "DoRA" }

    package func validate(beside variants: LoRAVariants) throws {
        guard !variants.initialization.replacesWeight else {
            throw PEFTError(
                "DoRA can't be combined with an initialization that changes the weight",
                remedy: "remove --dora or --init")
        }
    }

    package func validate(embedding path: String, isTied: Bool) throws {
        guard !isTied else {
            throw PEFTError(
                "DoRA over '\(path)' can't share its magnitudes with the tied output layer",
                remedy: "remove --tie-embeddings or --dora")
        }
    }

    package var isPlain: Bool { false }

    package func addedTensors(rank: Int, inputs: Int, outputs: Int) -> [TensorSpec] {
        [TensorSpec("lora_magnitude_vector", [outputs])]
    }

    package func adapter(over linear: Linear, _ branch: LoRABranch, _ context: AttachmentContext) throws
        -> (any AdapterModule & LinearAdapter)?
    { DoRAAdapter(linear, branch, context) }

    package func adapter(over table: Embedding, _ branch: LoRABranch, _ context: AttachmentContext) throws
        -> (any AdapterModule & EmbeddingAdapter)?
    { DoRAEmbeddingAdapter(table, branch, context) }

    package enum Implementation: LoRAFamily {
        package static let name = "dora"
        package static let summary = "LoRA with a trained magnitude vector (Liu et al. 2024)"

        package static func configure(_ configuration: inout LoRA.Configuration) {
            configuration.variants[DoRA.self].isEnabled = true
        }

        package static func recognizes(_ json: [String: JSON]) -> Bool { json["use_dora"] == true }
    }
}

/// A LoRA branch with a magnitude per output.
final class DoRAAdapter: LoRAAdapter {
    /// m `[out]`, initially the norm of each row of the weight.
    @ParameterInfo(key: "lora_magnitude_vector") var magnitude: Tensor = .zeros([0])
    /// W when the adapter was attached, used in the norms; adapters below may be activated or merged later.
    private let original: any LinearWeight
    /// ‖W‖² of each row, `[out]`.
    private lazy var squaredNorms = withoutGradients { original.dense(as: a.dtype).squared().sum(axes: [1]) }
    private let frozenGain = FrozenValue<Tensor>()

    override init(_ linear: Linear, _ branch: LoRABranch, _ context: AttachmentContext) {
        original = linear.weight.snapshot()
        super.init(linear, branch, context)
        magnitude = withoutGradients {
            context.device == .meta
                ? .empty([linear.outputs], dtype: context.dtype, device: .meta)
                : norms().detached().clone()
        }
    }

    /// ‖W + s B A‖ of each row, `[out]`, without forming B A: ‖w + s b A‖² = ‖w‖² + 2 s (w Aᵀ)·b + s² (b A Aᵀ)·b.
    private func norms() -> Tensor {
        // W Aᵀ, tile by tile if W is quantized.
        let product =
            original.isQuantized ? original.project(a, bias: nil).T : original.dense(as: a.dtype).matmul(a.T)
        let cross = (product * b).sum(axes: [1])
        let update = (b.matmul(a.matmul(a.T)) * b).sum(axes: [1])
        return (squaredNorms + cross * (2 * scale) + update * (scale * scale)).atLeast(0).sqrt()
    }

    override var lowRankFactors: LowRankFactors? { nil }
    override var isDelta: Bool { false }

    /// m / ‖W + s B A‖ of each row, `[out]`.
    private var gain: Tensor {
        frozenGain(of: [a, b, magnitude]) { magnitude / withoutGradients { norms().detached() } }
    }

    override var rowBranch: RowBranch? {
        guard observer == nil else { return nil }
        let factors = LowRankFactors(a: a, b: b, scale: scale, dropout: dropoutRate)
        return RowBranch(factors, outputGain: gain, keepsBias: true)
    }

    override func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        let (weight, gain) = (base.weight, gain)
        let (probability, seed) = DropoutScope.draw(dropoutRate)
        if probability > 0 {
            // Dropout also applies to the direction: y + (g − 1) W drop(x) + g s B A drop(x).
            let dropped = Functions.dropout(x, probability: probability, seed: seed)
            let direction = weight.project(dropped, bias: nil) * (gain - 1)
            return base(x) + direction + dropped.matmul(a.T).matmul(b.T) * (gain * scale)
        }
        let bias = base.bias
        let straight = base.isBare ? weight.project(x, bias: nil) : bias.map { base(x) - $0 } ?? base(x)
        let scaled = Functions.loraBranch(straight, x: x, a: a, b: b, scale: scale) * gain
        return bias.map { scaled + $0 } ?? scaled
    }

    override func merged(into weight: Tensor) throws -> Tensor {
        let whole = try super.merged(into: weight.to(.float64))
        let norm = try super.merged(into: original.dense(as: .float64)).squared().sum(axes: [1]).sqrt()
        return (whole * (magnitude.detached().to(.float64) / norm).unsqueezed(1)).to(weight.dtype)
    }
}

/// DoRA over an embedding, with a magnitude per embedding dimension as in Hugging Face PEFT: the columns of E + s (B
/// A)ᵀ are scaled to the norms m `[size]`.
final class DoRAEmbeddingAdapter: LoRAEmbeddingAdapter {
    @ParameterInfo(key: "lora_magnitude_vector") var magnitude: Tensor = .zeros([0])
    /// The embedding when the adapter was attached.
    private let original: any LinearWeight
    /// ‖E‖² of each column, `[size]`.
    private lazy var squaredNorms = withoutGradients { original.dense(as: a.dtype).squared().sum(axes: [0]) }
    private let frozenGain = FrozenValue<Tensor>()

    init(_ table: Embedding, _ branch: LoRABranch, _ context: AttachmentContext) {
        original = table.weight.snapshot()
        super.init(table, branch, tiedOutput: nil, context)
        magnitude = withoutGradients {
            context.device == .meta
                ? .empty([table.size], dtype: context.dtype, device: .meta) : norms().detached().clone()
        }
    }

    /// ‖E + s (B A)ᵀ‖ of each column, `[size]`, without forming the sum: as for a projection, with the transposed
    /// embedding.
    private func norms() -> Tensor {
        let cross = (original.dense(as: a.dtype).T.matmul(a.T) * b).sum(axes: [1])
        let update = (b.matmul(a.matmul(a.T)) * b).sum(axes: [1])
        return (squaredNorms + cross * (2 * scale) + update * (scale * scale)).atLeast(0).sqrt()
    }

    override func callAsFunction(_ vectors: Tensor, ids: Tensor) -> Tensor {
        let gain = frozenGain(of: [a, b, magnitude]) { magnitude / withoutGradients { norms().detached() } }
        return (vectors + update(ids, like: vectors)) * gain.to(vectors.dtype)
    }

    override func merged(into weight: Tensor) throws -> Tensor {
        let whole = try super.merged(into: weight.to(.float64))
        let norm = try super.merged(into: original.dense(as: .float64)).squared().sum(axes: [0]).sqrt()
        return (whole * (magnitude.detached().to(.float64) / norm)).to(weight.dtype)
    }
}
