import PEFTSupport

/// Settings of Megatron's parallel projections (`megatron_config`), which models in Hugging Face's format don't have: an
/// adapter of such a model is LoRA, and its file keeps them.
package struct Megatron: LoRAVariant {
    private var settings: JSON = .null

    package init() {}

    package var isEnabled: Bool { settings != .null }

    package static let fields: [ConfigurationField<LoRAVariants>] = [
        .init(
            "megatron", key: "megatron_config", .text, help: "settings of Megatron's layers, which are only stored",
            isExtension: true
        ) {
            $0[Megatron.self].settings
        } write: {
            guard $1.object != nil || $1 == .null else {
                throw PEFTError("'megatron_config' is \($1.text(indent: nil))", remedy: "use an object")
            }
            $0[Megatron.self].settings = $1
        }
    ]

    package func validate(beside variants: LoRAVariants) throws {
        guard !variants.uses(DoRA.self) else {
            throw PEFTError("DoRA can't be combined with megatron_config", remedy: "remove one of them")
        }
    }

    package static func note(on configuration: [String: JSON]) -> String? {
        guard configuration["megatron_config"]?.object != nil else { return nil }
        return "'megatron_config' concerns Megatron's parallel layers, which this base doesn't have"
    }
}
