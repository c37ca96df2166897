import PEFTSupport

extension ModelFamily {
    /// The text part of Qwen2.5-VL (Bai et al. 2025), a Qwen2. Its multimodal RoPE has three positions per token, which
    /// are equal for texts.
    static let qwen2_5VL = ModelFamily(
        name: "qwen2_5_vl",
        constructor: .generator { json, family in
            var fields = json.object ?? [:]
            let isTied = fields["text_config"]?["tie_word_embeddings"]?.bool ?? false
            if fields["text_config"] ?? .null == .null {
                // Older files have the text part's keys beside the others.
                fields["text_config"] = .object(fields.filter { !["model_type", "vision_config"].contains($0.key) })
            }
            var text = try MultimodalText.configuration(
                of: .object(fields), types: ["qwen2_5_vl_text"], isTied: isTied)
            // transformers divides the hidden size among the heads, whatever 'head_dim' says.
            text = ConfigurationReader(json: text).without("head_dim").json
            return try Llama(LlamaConfiguration(json, text: text, .qwen2_5VL, family: family))
        },
        modules: .qwenVision, tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Qwen2's.
        adapterTargets: ModelFamily.qwen2.adapterTargets, gguf: .none)
}

extension LlamaVariant {
    static let qwen2_5VL = LlamaVariant(
        defaults: [
            "vocab_size": 152_064, "hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80,
            "num_attention_heads": 64, "num_key_value_heads": 8, "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5, "eos_token_id": 151_645, "max_window_layers": 80, "rope_theta": 1_000_000.0,
        ],
        keyHeads: nil, headSize: nil, qkvBias: .always, outputBias: .never, feedForwardBias: .never,
        queryNorms: .none,
        rotary: { read, size in (try RotaryPositions.ofText(read, headSize: size), nil) },
        windows: { try AttentionWindows.fromConfiguredLayer($0, layers: $1) })
}

extension RotaryPositions {
    /// Multimodal RoPE (Wang et al. 2024, Qwen2-VL) of texts, whose three positions are the same: plain RoPE.
    static func ofText(_ read: ConfigurationReader, headSize: Int) throws -> RotaryPositions {
        try RotaryPositions(read, headSize: headSize, rename: { $0 == "mrope" ? "default" : $0 })
    }
}
