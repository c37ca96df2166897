/// The modules of a family that methods adapt by default, as in Hugging Face PEFT's tables
/// (`peft/utils/constants.py`). Names are last path components or dotted suffixes.
package struct AdapterTargets: Sendable {
    /// Projections of LoRA and the methods that share its table: VeRA, LoHa, LoKr, OFT, BOFT, QA-LoRA.
    package let lora: DefaultTargets
    package let adaLoRA: DefaultTargets
    package let ia3: DefaultTargets
    /// Targets of (IA)³ whose input is rescaled instead of their output.
    package let ia3FeedForward: [String]
    /// Norms that LayerNorm tuning trains.
    package let norms: Set<String>
    /// Projections of VeRA, PVeRA and SHiRA, if they aren't LoRA's.
    package var vera: DefaultTargets?

    package var veraOrLoRA: DefaultTargets { vera ?? lora }
}

extension AdapterTargets {
    /// Llama's targets, for families with the same projections.
    ///
    /// - Parameter feedForward: targets of (IA)³ whose input is rescaled; empty for a family whose layers have experts.
    static func likeLlama(
        norms: Set<String> = ["input_layernorm", "post_attention_layernorm", "norm"],
        feedForward: [String] = ["down_proj"]
    ) -> AdapterTargets {
        AdapterTargets(
            lora: .named(["q_proj", "v_proj"]), adaLoRA: .named(["q_proj", "v_proj"]),
            ia3: .named(["k_proj", "v_proj"] + feedForward), ia3FeedForward: feedForward, norms: norms)
    }
}

/// Projections that a method adapts by default.
package enum DefaultTargets: Sendable {
    /// Those of these names that a model has; every projection if it has none of them.
    case named([String])
    /// Every projection except the output layer.
    case allLinear

    /// The names; empty for every projection.
    package var names: [String] {
        switch self {
        case .named(let names): names
        case .allLinear: []
        }
    }
}
