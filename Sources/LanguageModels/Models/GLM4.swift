import PEFTSupport

extension ModelFamily {
    /// GLM-4-0414 (GLM Team 2025): norms before and after each sublayer, a fused gate/up projection, and RoPE over the
    /// first half of each head, whose neighboring dimensions it rotates.
    static let glm4 = ModelFamily(
        name: "glm4", constructor: .generator { try Llama(LlamaConfiguration($0, .glm4, family: $1)) },
        modules: .llama, tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Llama's.
        adapterTargets: .likeLlama(norms: [
            "input_layernorm", "post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm", "norm",
        ]),
        gguf: .architecture(.glm4))
}

extension GGUFArchitecture {
    static let glm4 = GGUFArchitecture(
        name: "glm4", modelClass: "Glm4ForCausalLM", tensors: .glm4, pairsNeighbors: false, addsOneToNorms: false,
        hasRotaryFactors: false, rotatesParts: true
    ) { read, _ in
        ["hidden_act": "silu", "attention_bias": .bool(read.hasTensor("blk.0.attn_q.bias"))]
    }
}

extension GGUFTensorNames {
    static let glm4: GGUFTensorNames = {
        let own: Set<String> = ["ffn_gate", "ffn_up", "ffn_norm"]
        return GGUFTensorNames(
            outer: llama.outer,
            inner: llama.inner.filter { !own.contains($0.file) } + [
                ("ffn_up", "mlp.gate_up_proj"), ("post_attention_norm", "post_self_attn_layernorm"),
                ("ffn_norm", "post_attention_layernorm"), ("post_ffw_norm", "post_mlp_layernorm"),
            ], biases: ["attn_q", "attn_k", "attn_v"])
    }()
}

extension LlamaVariant {
    static let glm4 = LlamaVariant(
        defaults: [
            "vocab_size": 151_552, "intermediate_size": 13696, "num_hidden_layers": 40, "num_key_value_heads": 2,
            "head_dim": 128, "max_position_embeddings": 131_072, "rms_norm_eps": 1.5625e-07, "attention_bias": true,
            "eos_token_id": [151_329, 151_336, 151_338], "partial_rotary_factor": 0.5,
        ],
        keyHeads: nil, headSize: nil, qkvBias: .configured("attention_bias"), outputBias: .never,
        feedForwardBias: .never, queryNorms: .none,
        blockNorms: BlockNorms(
            beforeAttention: "input_layernorm", afterAttention: "post_self_attn_layernorm",
            beforeFeedForward: "post_attention_layernorm", afterFeedForward: "post_mlp_layernorm"),
        feedForward: .fused,
        rotary: { (try RotaryPositions($0, headSize: $1, allowsPartial: true, pairsNeighbors: true), nil) },
        windows: AttentionWindows.none)
}
