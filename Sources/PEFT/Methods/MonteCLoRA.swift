import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Monte Carlo LoRA (MonteCLoRA, 2024): in training, A is perturbed by drawn values whose distribution is trained too;
/// afterwards it is LoRA. An adapter is read, run, merged and written with the distribution's tensors.
///
/// Training here is LoRA's: the draws of Hugging Face PEFT depend on its random state and can't be compared.
package struct MonteCLoRA: NestedLoRAVariant {
    package var settings: [String: JSON]?

    package init() {}

    package static let option = "monteclora"
    package static let key = "monteclora_config"
    package static let help = "store the sampler of Monte Carlo LoRA, which training here doesn't use"
    package static let defaultSettings: [String: JSON] = [
        "num_samples": 8, "use_entropy": false, "dirichlet_prior": 0.1, "sample_scaler": 1e-4,
        "kl_loss_weight": 1e-5, "buffer_size": 150,
    ]

    package func checkSettings() throws {
        guard settings != nil else { return }
        _ = (try count("num_samples", most: 4096), try positive("dirichlet_prior"), try count("buffer_size"))
    }

    package func validate(beside variants: LoRAVariants) throws {
        guard variants.used.allSatisfy({ $0.isPlain }) else {
            throw PEFTError(
                "MonteCLoRA can't be combined with a variant that changes the branch or the weight",
                remedy: "remove --monteclora or the other option")
        }
    }

    package func validate(embedding path: String, isTied: Bool) throws { throw Self.embeddingError(path) }

    /// The names of the sampler's tensors with their shapes.
    private func sampler(rank: Int) -> [(key: String, shape: [Int])] {
        let samples = (try? count("num_samples", most: 4096)) ?? 1
        return [
            ("std_prior", [rank]), ("expert_weights_prior", [samples]), ("gaussian_var_prior", [rank, rank]),
            ("expert_weights", [samples]),
        ].map { ("lora_monteclora_sampler.\($0.0)", $0.1) }
    }

    package func addedTensors(rank: Int, inputs: Int, outputs: Int) -> [TensorSpec] {
        sampler(rank: rank).map { TensorSpec($0.key, $0.shape, isTrained: false) }
    }

    package func adapter(over linear: Linear, _ branch: LoRABranch, _ context: AttachmentContext) throws
        -> (any AdapterModule & LinearAdapter)?
    {
        let adapter = SampledLoRAAdapter(linear, branch, context)
        adapter.sampler = sampler(rank: branch.rank).map { key, shape in
            let value = Tensor.zeros(shape, dtype: context.dtype, device: context.device)
            if context.device != .meta {
                // Initial values as in Hugging Face PEFT: uniform, the identity, and equal weights.
                switch key.split(separator: ".").last.map(String.init) ?? "" {
                case "gaussian_var_prior":
                    let rows = (0..<branch.rank).flatMap { row in (0..<branch.rank).map { $0 == row ? Float(1) : 0 } }
                    value.copy(from: Tensor(rows, shape: shape, device: context.device))
                case "expert_weights":
                    value.copy(from: .full(shape, 1 / Double(shape[0]), dtype: value.dtype, device: context.device))
                default: value.fillUniform(0, 1, from: &context.random)
                }
            }
            return AdapterParameter(key, Parameter(value), isTrained: false)
        }
        return adapter
    }

    package static func note(on configuration: [String: JSON]) -> String? {
        guard configuration[key]?.object != nil else { return nil }
        return "'\(key)' draws weights in training; here the adapter is trained as LoRA without draws"
    }
}

/// A LoRA branch that stores a sampler.
final class SampledLoRAAdapter: LoRAAdapter {
    fileprivate(set) var sampler: [AdapterParameter] = []

    override var adapterParameters: [AdapterParameter] { super.adapterParameters + sampler }
}
