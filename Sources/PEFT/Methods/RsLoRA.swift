import PEFTSupport

/// Rank-stabilized LoRA (Kalajdzievski 2023): s = α / √r instead of α / r, so that large ranks learn as fast as small
/// ones.
public struct RsLoRA: LoRAFamily, LoRAVariant {
    public static let name = "rslora"
    public static let summary = "rank-stabilized LoRA, scaled by α / √r (Kalajdzievski 2023)"

    public var isEnabled = false

    public init() {}

    public static func configure(_ configuration: inout LoRA.Configuration) { configuration.isRankStabilized = true }

    public static func recognizes(_ json: [String: JSON]) -> Bool {
        json["use_rslora"] == true && json["use_dora"] != true
    }

    public static let scalingFields: [ConfigurationField<LoRAVariants>] = [
        .init("rslora", key: "use_rslora", .flag, help: "scale by alpha / √rank instead") {
            .bool($0[RsLoRA.self].isEnabled)
        } write: {
            $0[RsLoRA.self].isEnabled = try flag($1)
        }
    ]

    public func label(_ name: String) -> String { "rs" + name }

    public func scaleDivisor(rank: Int) -> Double? { Double(rank).squareRoot() }
}

extension LoRA.Configuration {
    /// Whether s = α / √r (rsLoRA; Kalajdzievski 2023).
    public var isRankStabilized: Bool {
        get { variants[RsLoRA.self].isEnabled }
        set { variants[RsLoRA.self].isEnabled = newValue }
    }
}
