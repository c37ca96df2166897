import LanguageModels
import PEFTSupport
import TorchNN

/// QLoRA (Dettmers et al. 2023): LoRA over a base quantized to NF4 with double quantization.
///
/// The adapter and its file are plain LoRA. The base's weight format is a setting of the run (`--weights`), for which
/// this method defaults to NF4.
public enum QLoRA: BuiltInMethod {
    package enum Implementation: LoRAFamily {
        package static let name = "qlora"
        package static let summary = "LoRA over a base quantized to NF4 (Dettmers et al. 2023)"
        package static let baseStorage: WeightStorage? = .blocks(BlockQuantization(.nf4, isDouble: true))

        package static func configure(_ configuration: inout LoRA.Configuration) {
            configuration.selection.targets = ["all-linear"]
        }

        package static func label(_ configuration: LoRA.Configuration) -> String { "Q" + LoRA.label(configuration) }

        // A file doesn't record the base's weight format.
        package static func recognizes(_ json: [String: JSON]) -> Bool { false }
    }
}
