import PEFTSupport

/// LoRA+ (Hayou et al. 2024): B's learning rate is λ times A's, which makes feature learning efficient in wide
/// models. The file is LoRA's, with the ratio noted for further training.
public struct LoRAPlus: BuiltInMethod, LoRAVariant {
    /// λ, the ratio of B's learning rate to A's.
    package var rateRatio = 1.0

    package init() {}

    package static let fields: [ConfigurationField<LoRAVariants>] = [
        .init(
            "lr-ratio", key: "swift_peft_lr_ratio", .number(0.001...1e6),
            help: "ratio of B's learning rate to A's (LoRA+)", isExtension: true
        ) {
            $0[LoRAPlus.self].isEnabled ? .wholeOr($0[LoRAPlus.self].rateRatio) : .null
        } write: {
            $0[LoRAPlus.self].rateRatio = try number($1)
        }
    ]

    package var isEnabled: Bool { rateRatio != 1 }

    package func label(_ name: String) -> String { name + "+" }

    package enum Implementation: LoRAFamily {
        package static let name = "lora+"
        package static let summary = "LoRA with a higher learning rate for B than for A (Hayou et al. 2024)"
        package static let defaultLearningRate = 3e-4

        package static func configure(_ configuration: inout LoRA.Configuration) {
            configuration.variants[LoRAPlus.self].rateRatio = 16
        }

        package static func recognizes(_ json: [String: JSON]) -> Bool { json["swift_peft_lr_ratio"]?.double != nil }
    }
}
