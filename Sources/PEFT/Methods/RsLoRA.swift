import Support

/// Rank-stabilized LoRA (Kalajdzievski 2023): s = α / √r instead of α / r, so that large ranks learn as fast as small
/// ones.
public enum RsLoRA: LoRAFamily {
    public static let name = "rslora"
    public static let summary = "rank-stabilized LoRA, scaled by α / √r (Kalajdzievski 2023)"

    public static func configure(_ configuration: inout LoRA.Configuration) { configuration.isRankStabilized = true }

    public static func recognizes(_ json: [String: JSON]) -> Bool {
        json["use_rslora"] == true && json["use_dora"] != true
    }
}
