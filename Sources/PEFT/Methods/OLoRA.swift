import Support

/// OLoRA (Büyükakyüz 2024): with W = Q R, A and B are initialized with the first r rows of R and columns of Q; the
/// base weight keeps the residual.
public enum OLoRA: LoRAFamily {
    public static let name = "olora"
    public static let summary = "LoRA initialized from a QR decomposition of the weight (Büyükakyüz 2024)"
    public static let defaultLearningRate = 3e-4

    public static func configure(_ configuration: inout LoRA.Configuration) {
        configuration.variant.initialization = .olora
    }

    public static func recognizes(_ json: [String: JSON]) -> Bool { json["init_lora_weights"] == "olora" }
}
