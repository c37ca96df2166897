import PEFTSupport

extension ModelFamily {
    /// The text part of Qwen3-VL (Qwen Team 2025), a Qwen3. Its multimodal RoPE has three positions per token, which are
    /// equal for texts.
    static let qwen3VL = ModelFamily(
        name: "qwen3_vl",
        constructor: .generator { json, family in
            let text = try MultimodalText.configuration(of: json, types: ["qwen3_vl_text"], isTied: false)
            return try Llama(LlamaConfiguration(json, text: text, .qwen3VL, family: family))
        },
        modules: .qwenVision, tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Qwen3's.
        adapterTargets: ModelFamily.qwen3.adapterTargets, gguf: .none)
}

extension LlamaVariant {
    static let qwen3VL = LlamaVariant(
        defaults: [
            "vocab_size": 151_936, "intermediate_size": 22016, "num_key_value_heads": 32, "head_dim": 128,
            "max_position_embeddings": 128_000, "eos_token_id": [], "rope_theta": 500_000.0,
        ],
        keyHeads: nil, headSize: nil, qkvBias: .configured("attention_bias"),
        outputBias: .configured("attention_bias"), feedForwardBias: .never, queryNorms: .eachHead,
        rotary: { read, size in (try RotaryPositions.ofText(read, headSize: size), nil) },
        windows: AttentionWindows.none)
}
