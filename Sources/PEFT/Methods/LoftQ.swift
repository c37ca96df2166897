import PEFTSupport
import Torch
import TorchNN

/// LoftQ (Li et al. 2023): the base weight is quantized to NF4, and A and B are initialized with the best
/// approximation of the quantization error. Over an NF4 base (`--weights nf4`) the quantized weight stays packed; it
/// is reproducible from the same model.
public struct LoftQ: BuiltInMethod, LoRAInitialization {
    /// Alternations between quantization and SVD.
    package var iterations = 1

    package init() {}

    package static let fields: [ConfigurationField<LoRAVariants>] = [
        .init(
            "loftq-iterations", key: "loftq_config", .integer(1...100),
            help: "LoftQ: iterations of quantization and SVD (default: 1)"
        ) {
            $0.uses(LoftQ.self)
                ? ["loftq_bits": 4, "loftq_iter": .integer($0[LoftQ.self].iterations)] : [:]
        } write: {
            if case .object(let settings) = $1 {
                guard let bits = settings["loftq_bits"]?.int else { return }
                guard bits == 4 else { throw PEFTError("'loftq_bits' is \(bits)", remedy: "use 4") }
                $0[LoftQ.self].iterations = try integer(settings["loftq_iter"] ?? 1)
            } else {
                $0[LoftQ.self].iterations = try integer($1)
            }
        }
    ]

    package func label(_ name: String) -> String { "LoftQ" }

    package var replacesWeight: Bool { true }

    package func adapter(over linear: Linear, _ branch: LoRABranch, _ context: AttachmentContext) throws
        -> (any AdapterModule & LinearAdapter)?
    {
        guard context.device != .meta else { return nil }
        let (a, b, quantized) = try withoutGradients { try factors(of: linear.weight, rank: branch.rank) }
        return ResidualLoRAAdapter(
            linear, branch, a: a, b: b, residual: quantized, isExact: false, context: context)
    }

    /// Alternates Q = quantize(W − B A) and B A = the best rank-r approximation of W − Q (Li et al. 2023, algorithm
    /// 1). As in Hugging Face PEFT, LoRA's scale is not applied.
    ///
    /// Over an NF4 base the original weights W are read again from the model's file, one projection at a time, and Q
    /// is packed like the base. The first Q is the base's own weight, so that one alternation needs no extra memory.
    /// - Returns: A, B and Q.
    private func factors(of base: any LinearWeight, rank: Int) throws -> (
        a: Tensor, b: Tensor, quantized: any LinearWeight
    ) {
        try ResidualLoRAAdapter.check(rank: rank, of: base)
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

    package enum Implementation: LoRAFamily {
        package static let name = "loftq"
        package static let summary =
            "LoRA over an NF4 base, initialized with the quantization error (Li et al. 2023)"

        // A low rank can't restore all of the 4-bit quantization error.
        package static let start = AdapterStart.changed

        package static func recognizes(_ json: [String: JSON]) -> Bool { json["init_lora_weights"] == "loftq" }

        package static func configure(_ configuration: inout LoRA.Configuration) {
            configuration.variants.initialization = LoftQ()
        }
    }
}
