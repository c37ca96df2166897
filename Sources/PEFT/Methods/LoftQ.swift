import Support

/// LoftQ (Li et al. 2023): the base weight is quantized to NF4, and A and B are initialized with the best
/// approximation of the quantization error. Over an NF4 base (`--weights nf4`) the quantized weight stays packed; it
/// is reproducible from the same model.
public enum LoftQ: LoRAFamily {
    public static let name = "loftq"
    public static let summary =
        "LoRA over an NF4 base, initialized with the quantization error (Li et al. 2023)"

    // A low rank can't restore all of the 4-bit quantization error.
    public static let start = AdapterStart.changed

    public static func configure(_ configuration: inout LoRA.Configuration) {
        configuration.variant.initialization = .loftq
    }

    public static func recognizes(_ json: [String: JSON]) -> Bool { json["init_lora_weights"] == "loftq" }
}
