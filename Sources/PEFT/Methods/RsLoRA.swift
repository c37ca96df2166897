import PEFTSupport

/// Rank-stabilized LoRA (Kalajdzievski 2023): s = α / √r instead of α / r, so that large ranks learn as fast as small
/// ones.
public struct RsLoRA: BuiltInMethod, LoRAVariant {
    package var isEnabled = false

    package init() {}

    package static let scalingFields: [ConfigurationField<LoRAVariants>] = [
        .init("rslora", key: "use_rslora", .flag, help: "scale by alpha / √rank instead") {
            .bool($0[RsLoRA.self].isEnabled)
        } write: {
            $0[RsLoRA.self].isEnabled = try flag($1)
        }
    ]

    package func label(_ name: String) -> String { "rs" + name }

    package func scaleDivisor(rank: Int) -> Double? { Double(rank).squareRoot() }

    package enum Implementation: LoRAFamily {
        package static let name = "rslora"
        package static let summary = "rank-stabilized LoRA, scaled by α / √r (Kalajdzievski 2023)"

        package static func configure(_ configuration: inout LoRA.Configuration) {
            configuration.isRankStabilized = true
        }

        package static func recognizes(_ json: [String: JSON]) -> Bool {
            json["use_rslora"] == true && json["use_dora"] != true
        }
    }
}

extension LoRA.Configuration {
    /// Whether s = α / √r (rsLoRA; Kalajdzievski 2023).
    package var isRankStabilized: Bool {
        get { variants[RsLoRA.self].isEnabled }
        set { variants[RsLoRA.self].isEnabled = newValue }
    }
}
