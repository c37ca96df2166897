import LanguageModels
import Support
import TorchNN

/// QLoRA (Dettmers et al. 2023): LoRA over a base that is kept in NF4 with double quantisation.
///
/// The adapter is LoRA's, as is its file; how the base is kept belongs to the run (`--weights`), and this name asks for
/// NF4 where nothing else was.
public enum QLoRA: LoRAFamily {
    public static let name = "qlora"
    public static let summary = "LoRA over a base quantized to NF4 (Dettmers et al. 2023)"
    public static let baseStorage: WeightStorage? = .blocks(BlockQuantization(.nf4, isDouble: true))

    public static func configure(_ configuration: inout LoRA.Configuration) {
        configuration.selection.targets = ["all-linear"]
    }

    public static func label(_ configuration: LoRA.Configuration) -> String { "Q" + LoRA.label(configuration) }

    // A file says nothing of how the base was kept.
    public static func recognises(_ json: [String: JSON]) -> Bool { false }
}
