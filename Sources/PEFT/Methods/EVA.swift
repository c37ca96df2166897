import Foundation
import PEFTSupport

/// EVA (Paischer et al. 2024): A is initialized with the principal directions of the projection's inputs on training
/// data, and ranks are redistributed to projections where they explain more variance.
public struct EVA: BuiltInMethod, LoRAInitialization {
    /// ρ: the maximum rank of a projection as a multiple of the configured rank.
    package var rho = 2.0

    package init() {}

    package static let fields: [ConfigurationField<LoRAVariants>] = [
        .init(
            "eva-rho", key: "eva_config", .number(1...1000),
            help: "EVA: maximum rank of a projection as a multiple of the rank (default: 2)"
        ) {
            $0.uses(EVA.self)
                ? [
                    "rho": .number($0[EVA.self].rho), "tau": 0.99, "whiten": false,
                    "use_label_mask": true, "label_mask_value": -100, "adjust_scaling_factors": true,
                ] : .null
        } write: {
            $0[EVA.self].rho = try number($1["rho"] ?? $1)
        }
    ]

    package func label(_ name: String) -> String { "EVA" }

    package func trainingHook(for adapter: Adapter) -> (any TrainingHook)? {
        adapter.isFromFile ? nil : PrincipalDirections(adapter, rho: rho)
    }

    /// The file contains the ranks that the projections got.
    package func fileConfiguration(_ configuration: LoRA.Configuration, of adapter: Adapter) -> LoRA.Configuration {
        var configuration = configuration
        for entry in adapter.attached {
            guard let update = entry.adapter as? LoRAAdapter, update.rank != update.plannedRank else { continue }
            let path = NSRegularExpression.escapedPattern(for: entry.path)
            configuration.rankPattern[path] = Double(update.rank)
            // Keep the scale unchanged when the rank changes.
            configuration.alphaPattern[path] =
                update.scale * configuration.variants.scaleDivisor(rank: update.rank)
        }
        return configuration
    }

    package enum Implementation: LoRAFamily {
        package static let name = "eva"
        package static let summary =
            "LoRA initialized with the principal directions of the activations (Paischer et al. 2024)"

        package static func recognizes(_ json: [String: JSON]) -> Bool { json["init_lora_weights"] == "eva" }

        package static func configure(_ configuration: inout LoRA.Configuration) {
            configuration.variants.initialization = EVA()
        }
    }
}
