import PEFTSupport

/// LoRA+ (Hayou et al. 2024): B's learning rate is λ times A's, which makes feature learning efficient in wide
/// models. The file is LoRA's, with the ratio noted for further training.
public struct LoRAPlus: LoRAFamily, LoRAVariant {
    public static let name = "lora+"
    public static let summary = "LoRA with a higher learning rate for B than for A (Hayou et al. 2024)"
    public static let defaultLearningRate = 3e-4

    /// λ, the ratio of B's learning rate to A's.
    public var rateRatio = 1.0

    public init() {}

    public static func configure(_ configuration: inout LoRA.Configuration) {
        configuration.variants[LoRAPlus.self].rateRatio = 16
    }

    public static func recognizes(_ json: [String: JSON]) -> Bool { json["swift_peft_lr_ratio"]?.double != nil }

    public static let fields: [ConfigurationField<LoRAVariants>] = [
        .init(
            "lr-ratio", key: "swift_peft_lr_ratio", .number(0.001...1e6),
            help: "ratio of B's learning rate to A's (LoRA+)", isExtension: true
        ) {
            $0[LoRAPlus.self].isEnabled ? .wholeOr($0[LoRAPlus.self].rateRatio) : .null
        } write: {
            $0[LoRAPlus.self].rateRatio = try number($1)
        }
    ]

    public var isEnabled: Bool { rateRatio != 1 }

    public func label(_ name: String) -> String { name + "+" }
}
