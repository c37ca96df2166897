extension ModelFamily {
    /// Qwen2 (Yang et al. 2024): a Llama with biases on q, k and v.
    static let qwen2 = ModelFamily(
        name: "qwen2", constructor: .generator { try Llama(LlamaConfiguration($0, .qwen2, family: $1)) },
        modules: .llama, tokenTypes: .none,
        adapterTargets: AdapterTargets(
            lora: .named(["q_proj", "v_proj"]), adaLoRA: .named(["q_proj", "v_proj"]),
            ia3: .named(["q_proj", "v_proj", "down_proj"]), ia3FeedForward: ["down_proj"],
            norms: ["post_attention_layernorm"]),
        gguf: .architecture(.qwen2))
}

extension LlamaVariant {
    static let qwen2 = LlamaVariant(
        keyHeads: nil, headSize: nil, qkvBias: .always, outputBias: .never, feedForwardBias: .never,
        queryNorms: .none
    ) { try AttentionWindows.fromConfiguredLayer($0, layers: $1) }
}

extension GGUFArchitecture {
    static let qwen2 = GGUFArchitecture(
        name: "qwen2", modelClass: "Qwen2ForCausalLM", tensors: .llama, pairsNeighbors: false, addsOneToNorms: false
    ) { _, _ in ["hidden_act": "silu"] }
}
