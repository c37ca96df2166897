extension ModelFamily {
    /// Qwen3 (Yang et al. 2025): a Llama with norms on q and k.
    static let qwen3 = ModelFamily(
        name: "qwen3", constructor: .generator { try Llama(LlamaConfiguration($0, .qwen3, family: $1)) },
        modules: .llama, tokenTypes: .none,
        adapterTargets: AdapterTargets(
            lora: .named(["q_proj", "v_proj"]), adaLoRA: .named(["q_proj", "v_proj"]),
            ia3: .named(["q_proj", "v_proj", "down_proj"]), ia3FeedForward: ["down_proj"],
            norms: ["post_attention_layernorm"]),
        gguf: .architecture(.qwen3))
}

extension LlamaVariant {
    static let qwen3 = LlamaVariant(
        keyHeads: nil, headSize: 128, qkvBias: .configured("attention_bias"),
        outputBias: .configured("attention_bias"), feedForwardBias: .never, queryNorms: .eachHead
    ) { try AttentionWindows.fromConfiguredLayer($0, layers: $1) }
}

extension GGUFArchitecture {
    static let qwen3 = GGUFArchitecture(
        name: "qwen3", modelClass: "Qwen3ForCausalLM", tensors: .llama, pairsNeighbors: false, addsOneToNorms: false
    ) { read, _ in
        ["hidden_act": "silu", "attention_bias": .bool(read.hasTensor("blk.0.attn_q.bias"))]
    }
}
