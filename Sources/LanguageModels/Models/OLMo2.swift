import PEFTSupport

extension ModelFamily {
    /// OLMo 2 (OLMo Team 2024): a Llama that normalizes the sublayers' outputs instead of their inputs, and all heads of
    /// queries and of keys together.
    static let olmo2 = ModelFamily(
        name: "olmo2", constructor: .generator { try Llama(LlamaConfiguration($0, .olmo2, family: $1)) },
        modules: .llama, tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Llama's.
        adapterTargets: .likeLlama(norms: ["post_attention_layernorm", "post_feedforward_layernorm", "norm"]),
        gguf: .architecture(.olmo2))
}

extension LlamaVariant {
    static let olmo2 = LlamaVariant(
        defaults: ["vocab_size": 50304, "rms_norm_eps": 1e-5, "eos_token_id": 50279], keyHeads: nil, headSize: nil,
        qkvBias: .configured("attention_bias"), outputBias: .configured("attention_bias"), feedForwardBias: .never,
        queryNorms: .wholeProjection, blockNorms: .outputs, windows: AttentionWindows.none)
}

extension GGUFArchitecture {
    static let olmo2 = GGUFArchitecture(
        name: "olmo2", modelClass: "Olmo2ForCausalLM", tensors: .olmo2, pairsNeighbors: false, addsOneToNorms: false,
        hasRotaryFactors: false, isFamily: { $0["attention.sliding_window"]?.integer ?? 0 == 0 },
        details: { settings, description in
            guard !settings.isTied else { throw description.refusal("the output layer is tied to the embedding") }
            guard settings.heads * settings.headSize == settings.hiddenSize else {
                throw description.refusal("the heads aren't as wide as the hidden states")
            }
        }
    ) { _, _ in ["hidden_act": "silu"] }
}

extension GGUFTensorNames {
    static let olmo2 = GGUFTensorNames(
        outer: llama.outer,
        inner: llama.inner.filter { $0.file != "attn_norm" && $0.file != "ffn_norm" } + [
            ("post_attention_norm", "post_attention_layernorm"), ("post_ffw_norm", "post_feedforward_layernorm"),
        ], biases: [])
}
