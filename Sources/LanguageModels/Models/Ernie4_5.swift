extension ModelFamily {
    /// The dense text model of ERNIE 4.5 (Baidu 2025): a Llama whose RoPE rotates neighboring dimensions.
    static let ernie4_5 = ModelFamily(
        name: "ernie4_5", constructor: .generator { try Llama(LlamaConfiguration($0, .ernie4_5, family: $1)) },
        modules: .llama, tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Llama's.
        adapterTargets: .likeLlama(),
        gguf: .architecture(.ernie4_5))
}

extension LlamaVariant {
    static let ernie4_5 = LlamaVariant(
        defaults: [
            "vocab_size": 103_424, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 18,
            "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 128,
            "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
            "rope_theta": 500_000.0,
        ],
        keyHeads: nil, headSize: nil, qkvBias: .configured("use_bias"), outputBias: .configured("use_bias"),
        feedForwardBias: .configured("use_bias"), queryNorms: .none,
        rotary: { (try RotaryPositions($0, headSize: $1, pairsNeighbors: true), nil) }, windows: AttentionWindows.none
    )
}

extension GGUFArchitecture {
    /// The checkpoint's rows are in the order of interleaved RoPE already.
    static let ernie4_5 = GGUFArchitecture(
        name: "ernie4_5", modelClass: "Ernie4_5ForCausalLM", tensors: .unbiased, pairsNeighbors: false,
        addsOneToNorms: false, hasRotaryFactors: false
    ) { _, _ in ["hidden_act": "silu"] }
}
