import PEFTSupport
import Torch
import TorchNN

/// A LoRA branch initialized with a part of the weight that is subtracted from it: PiSSA, OLoRA, LoftQ.
///
/// The model's own weight is unchanged; while the adapter is active, its projection uses the residual. Because the
/// file of such an adapter would depend on an identical decomposition of the weight, it is stored as plain LoRA of
/// twice the rank, whose delta is the change made in training: [B, −B₀] · [A; A₀].
class ResidualLoRAAdapter: LoRAAdapter {
    private let residual: any LinearWeight
    /// The weight that the residual was computed from.
    private let original: any LinearWeight
    private let start: (a: Tensor, b: Tensor)
    /// Whether the residual plus B₀ A₀ equals the weight; with LoftQ the quantization error is lost.
    private let isExact: Bool

    /// - Parameters:
    ///   - residual: the weight while the adapter is active.
    ///   - isExact: whether the residual plus s B A equals the weight.
    init(
        _ linear: Linear, _ branch: LoRABranch, a: Tensor, b: Tensor, residual: any LinearWeight, isExact: Bool,
        context: AttachmentContext
    ) {
        (self.residual, self.isExact) = (residual, isExact)
        // A snapshot of the tensor: another adapter may replace the parameter's values.
        original = linear.weight.snapshot()
        start = (a.to(context.dtype), b.to(context.dtype))
        super.init(linear, branch, context)
        self.a.copy(from: start.a)
        self.b.copy(from: start.b)
    }

    override var replacementWeight: (any LinearWeight)? { residual }
    override var lowRankFactors: LowRankFactors? { nil }

    override func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        let isOnOriginal =
            base.isBare
            && base.weight.parameters.first?.parameter.tensor === original.parameters.first?.parameter.tensor
        // Over another adapter, or a weight that one was merged into, only the difference belongs to this one.
        let beneath =
            isOnOriginal
            ? base.project(x, with: residual)
            : base(x) + (residual.project(x, bias: nil) - original.project(x, bias: nil))
        return branch(of: x, onto: beneath)
    }

    override func merged(into weight: Tensor) throws -> Tensor {
        let own = original.dense(as: weight.dtype)
        let rest = residual.dense(as: weight.dtype)
        return try super.merged(into: weight.isIdentical(to: own) ? rest : weight + (rest - own))
    }

    /// - Throws: ``PEFTError`` if the weight has no part of this rank.
    static func check(rank: Int, of weight: any LinearWeight) throws {
        let (outputs, inputs) = (weight.outputs, weight.inputs)
        let most = min(outputs, inputs)
        guard rank <= most else {
            throw PEFTError(
                "the rank \(rank) exceeds that of a weight of shape [\(outputs), \(inputs)]",
                remedy: "use a rank of at most \(most)")
        }
    }

    // MARK: Files

    /// The configuration of plain LoRA of twice the rank with the same scale.
    static func doubled(_ configuration: LoRA.Configuration) -> LoRA.Configuration {
        var configuration = configuration
        configuration.variants.initialization = KaimingInitialization()
        let factor = configuration.variants.scaleDivisor(rank: 2)
        configuration.rank *= 2
        configuration.alpha *= factor
        configuration.rankPattern = configuration.rankPattern.mapValues { $0 * 2 }
        configuration.alphaPattern = configuration.alphaPattern.mapValues { $0 * factor }
        return configuration
    }

    override var adapterParameters: [AdapterParameter] {
        isExact
            ? super.adapterParameters.map {
                AdapterParameter($0.key, $0.parameter, isStored: false, rateFactor: $0.rateFactor)
            } : super.adapterParameters
    }

    override func storedTensors() -> [String: Tensor] {
        guard isExact else { return super.storedTensors() }
        return withoutGradients {
            [
                "lora_A.weight": Tensor.concatenated([a.detached(), start.a]),
                "lora_B.weight": Tensor.concatenated([b.detached(), -start.b], axis: 1),
            ]
        }
    }

    override func load(_ tensors: [String: Tensor]) throws {
        guard isExact else { return try super.load(tensors) }
        // A file written by another program contains A and B themselves.
        if let a = tensors["lora_A.weight"] { self.a.copy(from: a) }
        if let b = tensors["lora_B.weight"] { self.b.copy(from: b) }
    }
}

/// An initialization with a part of the weight, which is subtracted from it: the base computes with W − s B A.
package protocol ResidualInitialization: LoRAInitialization {
    /// A `[r, in]` and B `[out, r]` of a weight `[out, in]`, all in fp64, with s B A the part of rank r to adapt.
    /// Hugging Face decomposes in fp32; fp64 gives the result of exact arithmetic on every machine, however its
    /// libraries round.
    func factors(of weight: Tensor, rank: Int, scale: Double) -> (a: Tensor, b: Tensor)
}

extension ResidualInitialization {
    package var replacesWeight: Bool { true }

    package func adapter(over linear: Linear, _ branch: LoRABranch, _ context: AttachmentContext) throws
        -> (any AdapterModule & LinearAdapter)?
    {
        guard context.device != .meta else { return nil }
        let weight = linear.weight.dense(as: .float32)
        let (a, b, rest) = try withoutGradients {
            try ResidualLoRAAdapter.check(rank: branch.rank, of: linear.weight)
            return split(weight, rank: branch.rank, scale: branch.scale)
        }
        // Quantizing the residual again would give a base that no file describes.
        let residual: any LinearWeight =
            linear.weight.precision != .full
            ? WeightWithDelta(linear.weight, a: a.to(context.dtype), b: b.to(context.dtype), scale: -branch.scale)
            : try linear.weight.replacing(with: rest)
        return ResidualLoRAAdapter(linear, branch, a: a, b: b, residual: residual, isExact: true, context: context)
    }

    /// A and B in the weight's dtype, and the residual W − s B A.
    private func split(_ weight: Tensor, rank: Int, scale: Double) -> (a: Tensor, b: Tensor, residual: Tensor) {
        let (wideA, wideB) = factors(of: weight.to(.float64), rank: rank, scale: scale)
        let (a, b) = (wideA.to(weight.dtype).contiguous(), wideB.to(weight.dtype).contiguous())
        let rest = weight.to(.float64) - b.to(.float64).matmul(a.to(.float64)) * scale
        return (a, b, rest.to(weight.dtype))
    }

    /// The file contains plain LoRA of twice the rank (``ResidualLoRAAdapter``).
    package func fileConfiguration(_ configuration: LoRA.Configuration, of adapter: Adapter) -> LoRA.Configuration {
        ResidualLoRAAdapter.doubled(configuration)
    }
}

/// NormalFloat4 (Dettmers et al. 2023, appendix E): 16 values at the quantiles of a normal distribution, scaled by
/// the absmax of each block of 64.
enum NormalFloat4 {
    static let codes: [Double] = [
        -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634,
        0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
    ]

    /// Quantizes a matrix `[out, in]` in row-major blocks and dequantizes it.
    static func rounded(_ weight: Tensor, block: Int = 64) -> Tensor {
        let count = weight.count
        let padding = (block - count % block) % block
        var flat = weight.to(.float32).reshaped(-1)
        if padding > 0 { flat = Tensor.concatenated([flat, .zeros([padding], device: weight.device)]) }
        let blocks = flat.reshaped(-1, block)
        let largest = blocks.abs().topK(1, axis: 1).values.atLeast(1e-30)
        let unit = blocks / largest
        // Each midpoint below a value raises its code by one; ties round down.
        var result = Tensor.full(unit.shape, codes[0], device: weight.device)
        for (low, high) in zip(codes, codes.dropFirst()) {
            result = result + unit.greater(than: (low + high) / 2).to(.float32) * (high - low)
        }
        let whole = (result * largest).reshaped(-1).narrowed(axis: 0, 0..<count)
        return whole.reshaped(weight.shape).to(weight.dtype)
    }
}
