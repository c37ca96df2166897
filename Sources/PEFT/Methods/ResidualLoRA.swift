import Support
import Torch
import TorchNN

/// A LoRA branch initialized with a part of the weight that is subtracted from it: PiSSA, OLoRA, LoftQ.
///
/// The model's own weight is unchanged; while the adapter is active, its projection uses the residual. Because the
/// file of such an adapter would depend on an identical decomposition of the weight, it is stored as plain LoRA of
/// twice the rank, whose delta is the change made in training: [B, −B₀] · [A; A₀].
final class ResidualLoRAAdapter: LoRAAdapter {
    private let residual: any LinearWeight
    /// The weight that the residual was computed from.
    private let original: any LinearWeight
    private let start: (a: Tensor, b: Tensor)
    /// Whether the residual plus B₀ A₀ equals the weight; with LoftQ the quantization error is lost.
    private let isExact: Bool

    init(
        _ linear: Linear, rank: Int, scale: Double, dropout: Double, variant: LoRAVariant, context: AttachmentContext
    ) throws {
        let a: Tensor, b: Tensor
        if variant.initialization == .loftq {
            (a, b, residual) = try withoutGradients {
                try Self.loftq(linear.weight, rank: rank, iterations: variant.loftqIterations)
            }
        } else {
            let weight = linear.weight.dense(as: .float32)
            let rest: Tensor
            (a, b, rest) = try withoutGradients {
                try Self.decompose(weight, rank: rank, scale: scale, variant: variant)
            }
            // Quantizing the residual again would give a base that no file describes.
            residual =
                linear.weight.precision != .full
                ? WeightWithDelta(linear.weight, a: a.to(context.dtype), b: b.to(context.dtype), scale: -scale)
                : try linear.weight.replacing(with: rest)
        }
        // A snapshot of the tensor: another adapter may replace the parameter's values.
        original = linear.weight.snapshot()
        start = (a.to(context.dtype), b.to(context.dtype))
        isExact = variant.initialization != .loftq
        super.init(
            linear, rank: rank, scale: scale, dropout: dropout, initialization: .standard, context: context)
        self.a.copy(from: start.a)
        self.b.copy(from: start.b)
    }

    override var replacementWeight: (any LinearWeight)? { residual }
    override var lowRankFactors: LowRankFactors? { nil }

    override func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        let (probability, seed) = DropoutScope.draw(dropoutRate)
        let isOnOriginal =
            base.isBare
            && base.weight.parameters.first?.parameter.tensor === original.parameters.first?.parameter.tensor
        // Over another adapter, or a weight that one was merged into, only the difference belongs to this one.
        let beneath =
            isOnOriginal
            ? base.project(x, with: residual)
            : base(x) + (residual.project(x, bias: nil) - original.project(x, bias: nil))
        return Functions.loraBranch(
            beneath, x: x, a: a, b: b, scale: scale, dropout: probability, seed: seed)
    }

    override func merged(into weight: Tensor) throws -> Tensor {
        let own = original.dense(as: weight.dtype)
        let rest = residual.dense(as: weight.dtype)
        return try super.merged(into: weight.isIdentical(to: own) ? rest : weight + (rest - own))
    }

    private static func check(rank: Int, outputs: Int, inputs: Int) throws {
        let most = min(outputs, inputs)
        guard rank <= most else {
            throw PEFTError(
                "the rank \(rank) exceeds that of a weight of shape [\(outputs), \(inputs)]",
                remedy: "use a rank of at most \(most)")
        }
    }

    /// A and B of rank r, and W − s B A. Hugging Face decomposes in fp32; fp64 gives the result of exact arithmetic on
    /// every machine, however its libraries round.
    private static func decompose(_ weight: Tensor, rank: Int, scale: Double, variant: LoRAVariant) throws
        -> (a: Tensor, b: Tensor, residual: Tensor)
    {
        try check(rank: rank, outputs: weight.dim(0), inputs: weight.dim(1))
        switch variant.initialization {
        case .olora:
            let (q, r) = weight.to(.float64).qr()
            return split(weight, r.narrowed(axis: 0, 0..<rank), q.narrowed(axis: 1, 0..<rank), scale)
        default:
            let (u, s, vh) = weight.to(.float64).svd()
            let right = vh.narrowed(axis: 0, 0..<rank).contiguous()
            let root = (s.narrowed(axis: 0, 0..<rank) / scale).sqrt() * signs(of: right)
            return split(weight, right * root.unsqueezed(1), u.narrowed(axis: 1, 0..<rank) * root, scale)
        }
    }

    /// The sign of each row's largest component. The sign of a singular vector pair is arbitrary and depends on the
    /// library's rounding; with these signs the largest component of each right singular vector is positive on every
    /// machine.
    private static func signs(of rows: Tensor) -> Tensor {
        guard rows.device != .meta else { return .ones([rows.dim(0)], dtype: rows.dtype, device: .meta) }
        let values: [Double] = rows.array()
        let width = rows.dim(1)
        let signs = (0..<rows.dim(0)).map { row -> Double in
            let largest = values[row * width..<(row + 1) * width].max { abs($0) < abs($1) }
            return largest ?? 1 < 0 ? -1 : 1
        }
        return Tensor(signs, device: rows.device)
    }

    /// A and B in the weight's dtype, and the residual.
    private static func split(_ weight: Tensor, _ wideA: Tensor, _ wideB: Tensor, _ scale: Double) -> (
        a: Tensor, b: Tensor, residual: Tensor
    ) {
        let (a, b) = (wideA.to(weight.dtype).contiguous(), wideB.to(weight.dtype).contiguous())
        let rest = weight.to(.float64) - b.to(.float64).matmul(a.to(.float64)) * scale
        return (a, b, rest.to(weight.dtype))
    }

    /// Alternates Q = quantize(W − B A) and B A = the best rank-r approximation of W − Q (Li et al. 2023, algorithm
    /// 1). As in Hugging Face PEFT, LoRA's scale is not applied.
    ///
    /// Over an NF4 base the original weights W are read again from the model's file, one projection at a time, and Q
    /// is packed like the base. The first Q is the base's own weight, so that one alternation needs no extra memory.
    /// - Returns: A, B and Q.
    private static func loftq(_ base: any LinearWeight, rank: Int, iterations: Int) throws -> (
        a: Tensor, b: Tensor, quantized: any LinearWeight
    ) {
        try check(rank: rank, outputs: base.outputs, inputs: base.inputs)
        let isMeta = base.parameters.first?.parameter.tensor.device == .meta
        guard !base.isQuantized || base.blockCode == .nf4 else {
            throw PEFTError(
                "LoftQ needs an NF4 base, but this one is stored in another format",
                remedy: "use --weights nf4 or nf4-double, or the method qlora")
        }
        guard !base.isQuantized || base.original != nil || isMeta else {
            throw PEFTError(
                "LoftQ needs the original weights, which this quantized base doesn't contain",
                remedy: "use the original model with --weights nf4, or the method qlora")
        }
        defer { base.original?.forget() }
        let weight = try base.original?.read() ?? base.dense(as: .float32)
        func rounded(_ rest: Tensor, isFirst: Bool) throws -> any LinearWeight {
            if base.isQuantized { return isFirst ? base : try base.replacing(with: rest) }
            // 16 bits would round NF4's values.
            if base.precision == .half { return BlockQuantizedWeight(rounding: rest, to: BlockQuantization(.nf4)) }
            return try base.replacing(with: NormalFloat4.rounded(rest))
        }
        var rest = weight
        var (a, b, quantized) = (weight, weight, base)
        for iteration in 0..<iterations {
            quantized = try rounded(rest, isFirst: iteration == 0)
            let (u, s, vh) = (weight - quantized.dense(as: .float32)).to(.float64).svd()
            let root = s.narrowed(axis: 0, 0..<rank).sqrt()
            a = (vh.narrowed(axis: 0, 0..<rank) * root.unsqueezed(1)).to(weight.dtype).contiguous()
            b = (u.narrowed(axis: 1, 0..<rank) * root).to(weight.dtype).contiguous()
            rest = weight - b.matmul(a)
        }
        return (a, b, quantized)
    }

    // MARK: Files

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
        // A file written by another program contains A and B themselves.
        if let a = tensors["lora_A.weight"] { self.a.copy(from: a) }
        if let b = tensors["lora_B.weight"] { self.b.copy(from: b) }
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
