import Support

/// PiSSA (Meng et al. 2024, eq. 2–4): A and B are initialized with the principal singular values and vectors of W,
/// and the base weight keeps the residual.
public enum PiSSA: LoRAFamily {
    public static let name = "pissa"
    public static let summary = "LoRA initialized with the weight's principal singular vectors (Meng et al. 2024)"
    public static let defaultLearningRate = 3e-4

    public static func configure(_ configuration: inout LoRA.Configuration) {
        configuration.variant.initialization = .pissa(iterations: nil)
    }

    public static func recognizes(_ json: [String: JSON]) -> Bool {
        (json["init_lora_weights"]?.string ?? "").hasPrefix("pissa")
    }
}
