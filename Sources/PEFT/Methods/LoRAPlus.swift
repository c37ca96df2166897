import Support

/// LoRA+ (Hayou et al. 2024): B's learning rate is λ times A's, which makes feature learning efficient in wide
/// models. The file is LoRA's, with the ratio noted for further training.
public enum LoRAPlus: LoRAFamily {
    public static let name = "lora+"
    public static let summary = "LoRA with a higher learning rate for B than for A (Hayou et al. 2024)"
    public static let defaultLearningRate = 3e-4

    public static func configure(_ configuration: inout LoRA.Configuration) { configuration.variant.rateRatio = 16 }

    public static func recognizes(_ json: [String: JSON]) -> Bool { json["swift_peft_lr_ratio"]?.double != nil }
}
