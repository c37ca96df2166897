import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// LoRA-XS (Bałazy et al. 2024, eq. 2): W + s · U Σ R Vᵀ with the r largest singular values and vectors of W, all frozen, and
/// a trained R `[r, r]` that begins at zero, where the paper draws it near zero. A file is plain LoRA with A = Vᵀ and
/// B = U Σ R, and is trained further as such.
public struct LoRAXS: BuiltInMethod, LoRAInitialization {
    package init() {}

    package func label(_ name: String) -> String { "LoRA-XS" }

    package var trainsA: Bool { false }
    package var trainsB: Bool { false }
    package var supportsBias: Bool { false }
    package var isPlain: Bool { false }

    package func validate(beside variants: LoRAVariants) throws {
        guard variants.used.allSatisfy({ $0 is LoRAXS || $0 is RsLoRA || $0 is Megatron }) else {
            throw PEFTError(
                "LoRA-XS can't be combined with other variants of LoRA, which train A or B",
                remedy: "remove one of them")
        }
    }

    package func validate(embedding path: String, isTied: Bool) throws {
        throw PEFTError(
            "LoRA-XS doesn't support the embedding '\(path)'", remedy: "remove it from the targets, or --init")
    }

    package func addedTensors(rank: Int, inputs: Int, outputs: Int) -> [TensorSpec] {
        [TensorSpec(LoRAXSAdapter.key, [rank, rank], isStored: false)]
    }

    package func adapter(over linear: Linear, _ branch: LoRABranch, _ context: AttachmentContext) throws
        -> (any AdapterModule & LinearAdapter)?
    {
        try LoRAXSAdapter(over: linear, branch, context)
    }

    package func fileConfiguration(_ configuration: LoRA.Configuration, of adapter: Adapter) -> LoRA.Configuration {
        var configuration = configuration
        configuration.variants.initialization = KaimingInitialization()
        return configuration
    }

    package enum Implementation: LoRAFamily {
        package static let name = "lora-xs"
        package static let summary =
            "a trained r × r matrix between frozen singular vectors of the weight (Bałazy et al. 2024)"
        package static let defaultLearningRate = 2e-3

        package static func recognizes(_ json: [String: JSON]) -> Bool { json["init_lora_weights"] == "lora-xs" }

        package static func configure(_ configuration: inout LoRA.Configuration) {
            configuration.variants.initialization = LoRAXS()
        }
    }
}

/// The branch of LoRA-XS: A = Vᵀ `[r, in]` and B = U Σ `[out, r]` frozen, R `[r, r]` trained.
final class LoRAXSAdapter: LoRAAdapter {
    static let key = "lora_xs.weight"
    private let latent: Parameter

    init(over linear: Linear, _ branch: LoRABranch, _ context: AttachmentContext) throws {
        latent = Parameter(.zeros([branch.rank, branch.rank], dtype: context.dtype, device: context.device))
        try ResidualLoRAAdapter.check(rank: branch.rank, of: linear.weight)
        super.init(linear, branch, context)
        guard context.device != .meta else { return }
        withoutGradients {
            let (u, s, vh) = linear.weight.dense(as: .float64).svd()
            let right = vh.narrowed(axis: 0, 0..<branch.rank).contiguous()
            let signs = PiSSA.signs(of: right)
            a.copy(from: (right * signs.unsqueezed(1)).to(context.dtype))
            let left = u.narrowed(axis: 1, 0..<branch.rank) * (s.narrowed(axis: 0, 0..<branch.rank) * signs)
            b.copy(from: left.to(context.dtype))
        }
    }

    override func ownParameters() -> [(key: String, parameter: Parameter)] {
        super.ownParameters() + [(Self.key, latent)]
    }

    override var adapterParameters: [AdapterParameter] {
        [
            AdapterParameter("lora_A.weight", parameter("lora_A.weight"), isTrained: false),
            AdapterParameter("lora_B.weight", parameter("lora_B.weight"), isTrained: false),
            AdapterParameter(Self.key, latent, isStored: false),
        ]
    }

    private func parameter(_ key: String) -> Parameter {
        ownParameters().first { $0.key == key }?.parameter ?? latent
    }

    override var factors: (a: Tensor, b: Tensor) { (a, b.matmul(latent.tensor)) }

    override func storedTensors() -> [String: Tensor] {
        withoutGradients { ["lora_A.weight": a.detached(), "lora_B.weight": factors.b.detached()] }
    }
}
