import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// An initialization from data that also changed the base: CorDA and LoRA-GA. Its file holds A and B alone, so it is
/// LoRA over the base that was saved with it; in Hugging Face PEFT, `path_initial_model_for_weight_conversion` saves it
/// as plain LoRA over the original base instead.
package protocol ChangedBaseInitialization: LoRAInitialization, NestedLoRAVariant {
    /// Its name in sentences.
    static var title: String { get }
}

extension ChangedBaseInitialization {
    package static var isOffered: Bool { false }
    // The settings alone don't choose it.
    package var isEnabled: Bool { false }
    package var supportsBias: Bool { false }
    package func label(_ name: String) -> String { Self.title }

    package func adapter(over linear: Linear, _ branch: LoRABranch, _ context: AttachmentContext) throws
        -> (any AdapterModule & LinearAdapter)?
    {
        guard context.isLoading || context.device == .meta else {
            throw PEFTError(
                "\(Self.title) is read from adapter files, but can't initialize an adapter here",
                remedy: "use --init pissa, olora or eva, or initialize it in Hugging Face PEFT")
        }
        return nil
    }

    package static func note(on configuration: [String: JSON]) -> String? {
        guard configuration["init_lora_weights"] == .string(name) else { return nil }
        return
            "the adapter was trained over a base that \(title) changed; use the base that was saved with it, or save it in "
            + "Hugging Face PEFT with path_initial_model_for_weight_conversion"
    }
}

/// Context-oriented decomposition (Yang et al. 2024).
package struct CorDA: ChangedBaseInitialization {
    package var settings: [String: JSON]?

    package init() {}

    package static let name = "corda"
    package static let title = "CorDA"
    package static let option = "corda"
    package static let key = "corda_config"
    package static let help = "settings of an adapter that CorDA initialized elsewhere"
    package static let defaultSettings: [String: JSON] = [
        "cache_file": .null, "covariance_file": .null, "corda_method": "ipm", "verbose": false,
        "use_float16_for_covariance": false, "prune_temporary_fields": true,
    ]
}

/// LoRA with gradient approximation (Wang et al. 2024).
package struct LoRAGA: ChangedBaseInitialization {
    package var settings: [String: JSON]?

    package init() {}

    package static let name = "lora_ga"
    package static let title = "LoRA-GA"
    package static let option = "lora-ga"
    package static let key = "lora_ga_config"
    package static let help = "settings of an adapter that LoRA-GA initialized elsewhere"
    package static let defaultSettings: [String: JSON] = [
        "direction": "ArB2r", "scale": "stable", "stable_gamma": 16,
    ]
}
