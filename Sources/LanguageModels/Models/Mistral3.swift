import PEFTSupport

extension ModelFamily {
    /// The text part of Mistral Small 3.1 and Ministral 3 (Mistral AI 2025), a Mistral or a Ministral 3.
    static let mistral3 = ModelFamily(
        name: "mistral3",
        constructor: .generator { json, family in
            let text = try MultimodalText.configuration(
                of: json, types: ["mistral", "ministral3"], defaults: defaults, isTied: true)
            let variant = text["model_type"] == "ministral3" ? LlamaVariant.ministral3 : .mistral
            return try Llama(LlamaConfiguration(json, text: text, variant, family: family))
        },
        modules: .visionTower, tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Mistral's.
        adapterTargets: ModelFamily.mistral.adapterTargets, gguf: .none)

    /// transformers' text part of a file without `text_config`.
    private static let defaults: [String: JSON] = [
        "vocab_size": 131_072, "hidden_size": 5120, "intermediate_size": 32768, "num_hidden_layers": 40,
        "head_dim": 128, "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5, "rope_theta": 1_000_000_000.0,
        "sliding_window": .null,
    ]
}
