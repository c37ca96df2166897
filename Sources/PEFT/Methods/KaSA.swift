import Foundation
import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Knowledge-aware singular-value adaptation (Wang et al. 2024): the weight loses the r smallest of its singular
/// components, and the branch is s · x Aᵀ diag(σ) Bᵀ with trained σ `[r]`.
///
/// The model's own weight is unchanged; while the adapter is active, its projection uses the truncated one, which is
/// computed from the weight again when a file is loaded. As in Hugging Face PEFT's training, the paper's two
/// regularizers (`beta`, `gamma`) are not part of the loss.
public struct KaSA: BuiltInMethod, NestedLoRAVariant {
    package var settings: [String: JSON]?

    package init() {}

    package static let option = "kasa"
    package static let key = "kasa_config"
    package static let help =
        "drop the weight's smallest singular values and train singular values of the branch (KaSA)"
    package static let defaultSettings: [String: JSON] = ["beta": 1e-4, "gamma": 1e-3]

    package func checkSettings() throws {
        for name in ["beta", "gamma"] {
            guard let value = setting(name).double, value >= 0 else {
                throw PEFTError("'\(name)' in 'kasa_config' is negative", remedy: "use a value of at least 0")
            }
        }
    }

    package func label(_ name: String) -> String { name.replacingOccurrences(of: "LoRA", with: "KaSA") }

    package func validate(beside variants: LoRAVariants) throws {
        guard variants.used.allSatisfy({ $0.isPlain || $0 is KaSA }) else {
            throw PEFTError(
                "KaSA can't be combined with another variant that changes the branch or the weight",
                remedy: "remove --kasa or the other option")
        }
    }

    package func validate(embedding path: String, isTied: Bool) throws { throw Self.embeddingError(path) }

    package var isPlain: Bool { false }

    package func addedTensors(rank: Int, inputs: Int, outputs: Int) -> [TensorSpec] {
        [TensorSpec("lora_diag", [rank])]
    }

    package func adapter(over linear: Linear, _ branch: LoRABranch, _ context: AttachmentContext) throws
        -> (any AdapterModule & LinearAdapter)?
    { try KaSAAdapter(linear, branch, context) }

    package enum Implementation: LoRAFamily {
        package static let name = "kasa"
        package static let summary =
            "LoRA with singular values over a weight without its smallest ones (Wang et al. 2024)"
        package static let start = AdapterStart.changed

        package static func configure(_ configuration: inout LoRA.Configuration) {
            configuration.variants[KaSA.self].settings = KaSA.defaultSettings
        }

        package static func recognizes(_ json: [String: JSON]) -> Bool { json["kasa_config"]?.object != nil }
    }
}

/// A LoRA branch with singular values over a truncated weight.
final class KaSAAdapter: ResidualLoRAAdapter {
    /// σ `[r]`, initially N(0, 1).
    @ParameterInfo(key: "lora_diag") var diagonal: Tensor = .zeros([0])

    init(_ linear: Linear, _ branch: LoRABranch, _ context: AttachmentContext) throws {
        let most = min(linear.outputs, linear.inputs)
        guard branch.rank < most else {
            throw PEFTError(
                "KaSA of rank \(branch.rank) leaves nothing of a weight of shape [\(linear.outputs), \(linear.inputs)]",
                remedy: "use a rank below \(most)")
        }
        let start = LoRAAdapter(linear, branch, context)
        try super.init(
            linear, branch, a: start.a, b: start.b,
            residual: KaSAAdapter.truncated(linear.weight, rank: branch.rank, context),
            isExact: false, context: context)
        diagonal = .empty([branch.rank], dtype: context.dtype, device: context.device)
        if context.device != .meta { diagonal.fillNormal(from: &context.random) }
    }

    /// The weight without its `rank` smallest singular components, computed in fp64.
    private static func truncated(_ weight: any LinearWeight, rank: Int, _ context: AttachmentContext) throws
        -> any LinearWeight
    {
        guard context.device != .meta else { return weight }
        return try withoutGradients {
            let (u, s, vh) = weight.dense(as: .float64).svd()
            let kept = s.dim(0) - rank
            let right = vh.narrowed(axis: 0, kept..<s.dim(0))
            let left = u.narrowed(axis: 1, kept..<s.dim(0)) * s.narrowed(axis: 0, kept..<s.dim(0))
            guard weight.precision == .full else {
                return WeightWithDelta(
                    weight, a: right.to(context.dtype).contiguous(), b: left.to(context.dtype).contiguous(), scale: -1
                )
            }
            return try weight.replacing(with: weight.dense(as: .float64) - left.matmul(right))
        }
    }

    override var isDelta: Bool { false }
    override var factors: (a: Tensor, b: Tensor) { (a, b * diagonal) }
}
