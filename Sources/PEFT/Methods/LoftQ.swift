import Support

/// LoftQ (Li et al. 2023): the weight beneath is rounded to NF4, and A and B begin with the best approximation of what
/// that lost. Over a base that is kept in NF4 (`--weights nf4`) the rounded weight stays packed; a reader makes the same one of
/// the same model.
public enum LoftQ: LoRAFamily {
    public static let name = "loftq"
    public static let summary =
        "LoRA over an NF4 base, initialized with the quantization error (Li et al. 2023)"

    // Rounding to four bits loses more than a low rank can give back.
    public static let start = AdapterStart.changed

    public static func configure(_ configuration: inout LoRA.Configuration) {
        configuration.variant.initialisation = .loftq
    }

    public static func recognises(_ json: [String: JSON]) -> Bool { json["init_lora_weights"] == "loftq" }
}
