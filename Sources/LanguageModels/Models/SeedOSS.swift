extension ModelFamily {
    /// Seed-OSS (ByteDance Seed Team 2025): a Llama with biases on q, k and v, and dropout of the sublayers' outputs.
    static let seedOSS = ModelFamily(
        name: "seed_oss", constructor: .generator { try Llama(LlamaConfiguration($0, .seedOSS, family: $1)) },
        modules: .llama, tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Llama's.
        adapterTargets: .likeLlama(),
        gguf: .architecture(.seedOSS))
}

extension LlamaVariant {
    static let seedOSS = LlamaVariant(
        defaults: [
            "vocab_size": 155_136, "intermediate_size": 27648, "num_hidden_layers": 64, "num_attention_heads": 80,
            "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 524_288, "attention_bias": true,
            "attention_dropout": 0.1, "residual_dropout": 0.1,
        ],
        keyHeads: nil, headSize: nil, qkvBias: .configured("attention_bias"),
        outputBias: .configured("attention_out_bias"), feedForwardBias: .configured("mlp_bias"), queryNorms: .none,
        details: { read, _ in LlamaDetails(residualDropout: try read.number("residual_dropout", default: 0.1)) },
        windows: AttentionWindows.none)
}

extension GGUFArchitecture {
    static let seedOSS = GGUFArchitecture(
        name: "seed_oss", modelClass: "SeedOssForCausalLM", tensors: .seedOSS, pairsNeighbors: false,
        addsOneToNorms: false, hasRotaryFactors: false
    ) { read, _ in
        [
            "hidden_act": "silu", "attention_bias": .bool(read.hasTensor("blk.0.attn_q.bias")),
            "residual_dropout": 0.0,
        ]
    }
}

extension GGUFTensorNames {
    /// Llama's names, but the norm before the feed-forward network is named after the attention that precedes it.
    static let seedOSS = GGUFTensorNames(
        outer: llama.outer,
        inner: llama.inner.filter { $0.file != "ffn_norm" } + [("post_attention_norm", "post_attention_layernorm")],
        biases: ["attn_q", "attn_k", "attn_v"])
}
