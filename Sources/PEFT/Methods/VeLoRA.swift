import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// VeLoRA (Miles et al. 2024): LoRA whose A is trained with compressed inputs. Each input is divided into groups
/// x_g `[d]`, of which only x_g · v is kept; the gradient of A sees x̂_g = s (x_g · v) v instead. All else is LoRA's.
///
/// With `init_type` `random`, v is drawn and stays. With `batch_average`, Hugging Face PEFT computes it from all tokens of
/// a batch, padding and last tokens included, which are not computed here: such files are read, but trained as LoRA.
package struct VeLoRA: NestedLoRAVariant {
    package var settings: [String: JSON]?

    package init() {}

    package static let option = "velora"
    package static let key = "velora_config"
    package static let help = "train A with inputs compressed in groups (VeLoRA)"
    package static let defaultSettings: [String: JSON] = ["num_groups": 64, "scale": 1.0, "init_type": "random"]

    package func checkSettings() throws {
        guard settings != nil else { return }
        _ = (try count("num_groups"), try positive("scale"))
        guard ["random", "batch_average", "batch_average_once"].contains(setting("init_type").string) else {
            throw PEFTError(
                "'init_type' in 'velora_config' is \(setting("init_type").text(indent: nil))",
                remedy: "use random, batch_average or batch_average_once")
        }
    }

    package func label(_ name: String) -> String { "Ve" + name }

    package func validate(beside variants: LoRAVariants) throws {
        guard variants.used.allSatisfy(\.isPlain) else {
            throw PEFTError(
                "VeLoRA can't be combined with a variant that changes the branch or the weight",
                remedy: "remove --velora or the other option")
        }
    }

    package func validate(embedding path: String, isTied: Bool) throws { throw Self.embeddingError(path) }

    /// Size of a group: the inputs are padded with zeros to whole groups.
    private func groupSize(inputs: Int) throws -> Int {
        let groups = try count("num_groups")
        return (inputs + groups - 1) / groups
    }

    package func addedTensors(rank: Int, inputs: Int, outputs: Int) -> [TensorSpec] {
        [TensorSpec("lora_velora_embed", [(try? groupSize(inputs: inputs)) ?? 1], isTrained: false)]
    }

    package func adapter(over linear: Linear, _ branch: LoRABranch, _ context: AttachmentContext) throws
        -> (any AdapterModule & LinearAdapter)?
    {
        let isFixed = setting("init_type") == "random"
        guard isFixed || context.isLoading || context.device == .meta else {
            throw PEFTError(
                "VeLoRA with init_type \(setting("init_type").text(indent: nil)) can't be trained here",
                remedy: "use the init_type random")
        }
        return VeLoRAAdapter(
            linear, branch, groups: try count("num_groups"), size: try groupSize(inputs: linear.inputs),
            factor: try positive("scale"), isFixed: isFixed, context)
    }

    package static func note(on configuration: [String: JSON]) -> String? {
        guard let settings = configuration[key]?.object, settings["init_type"] != "random" else { return nil }
        return "'\(key)' compresses inputs in training by averages of a batch; here the adapter is trained as LoRA"
    }
}

/// A LoRA branch whose A is trained with compressed inputs.
final class VeLoRAAdapter: LoRAAdapter {
    /// v `[d]`; zero in files that were never trained with averages.
    private let embed: Parameter
    private let groups: Int
    private let factor: Double
    /// Whether v is fixed, so that inputs are compressed.
    private let isFixed: Bool

    init(
        _ linear: Linear, _ branch: LoRABranch, groups: Int, size: Int, factor: Double, isFixed: Bool,
        _ context: AttachmentContext
    ) {
        (self.groups, self.factor, self.isFixed) = (groups, factor, isFixed)
        let start = Tensor.zeros([size], dtype: context.dtype, device: context.device)
        if isFixed, context.device != .meta {
            start.fillNormal(from: &context.random)
            start.copy(from: start / start.squared().sum().sqrt())
        }
        embed = Parameter(start)
        super.init(linear, branch, context)
    }

    override var adapterParameters: [AdapterParameter] {
        super.adapterParameters + [AdapterParameter("lora_velora_embed", embed, isTrained: false)]
    }

    private var compresses: Bool { isFixed && areGradientsEnabled && a.requiresGrad }

    override var lowRankFactors: LowRankFactors? { compresses ? nil : super.lowRankFactors }

    override func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        guard compresses else { return super.callAsFunction(x, base: base) }
        let y = base(x)
        let (probability, seed) = DropoutScope.draw(dropoutRate)
        let input = Functions.dropout(x, probability: probability, seed: seed)
        // The value is x Aᵀ, the gradient w.r.t. x is that of x Aᵀ, and the one w.r.t. A that of x̂ Aᵀ.
        let own = withoutGradients { reconstructed(input.detached()) }.matmul(a.T)
        let hidden = input.matmul(a.detached().T) + (own - own.detached())
        return y + (hidden.matmul(b.T) * scale).to(y.dtype)
    }

    /// x̂ of x `[tokens, in]`.
    private func reconstructed(_ x: Tensor) -> Tensor {
        let (inputs, size) = (x.dim(-1), embed.tensor.dim(0))
        let tokens = x.count / max(1, inputs)
        let rows = x.reshaped(tokens, inputs).to(embed.tensor.dtype)
        let rest = groups * size - inputs
        let padding = Tensor.zeros([tokens, rest], dtype: rows.dtype, device: rows.device)
        let whole = rest > 0 ? Tensor.concatenated([rows, padding], axis: 1) : rows
        let v = embed.tensor.detached()
        let back = whole.reshaped(tokens * groups, size).matmul(v.unsqueezed(1)).matmul(v.unsqueezed(0))
        let seen = back.reshaped(tokens, groups * size).narrowed(axis: 1, 0..<inputs)
        return (seen * factor).reshaped(x.shape).to(x.dtype)
    }
}
