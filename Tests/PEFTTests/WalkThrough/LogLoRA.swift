import Foundation
import PEFT
import PEFTSupport

/// A scale for large ranks: s = α / log₂(1 + r) instead of α / r.
package struct LogLoRA: LoRAVariant {
    package var isEnabled = false

    package init() {}

    // Declared once: `--log-scale` on the command line, the key in adapter_config.json, and the help.
    package static let scalingFields: [ConfigurationField<LoRAVariants>] = [
        .init(
            "log-scale", key: "swift_peft_log_scale", .flag, help: "scale by alpha / log₂(1 + rank) instead",
            isExtension: true
        ) {
            $0[LogLoRA.self].isEnabled ? true : .null
        } write: {
            $0[LogLoRA.self].isEnabled = $1 == true
        }
    ]

    package func label(_ name: String) -> String { "log" + name }

    package func scaleDivisor(rank: Int) -> Double? { log2(1 + Double(rank)) }
}
