extension ModelFamily {
    /// Arcee's AFM: a Llama whose feed-forward network has no gate and squares its ReLU.
    static let arcee = ModelFamily(
        name: "arcee", constructor: .generator { try Llama(LlamaConfiguration($0, .arcee, family: $1)) },
        modules: .llama, tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Llama's.
        adapterTargets: .likeLlama(),
        gguf: .architecture(.arcee))
}

extension LlamaVariant {
    static let arcee = LlamaVariant(
        defaults: [
            "hidden_size": 2560, "intermediate_size": 18432, "hidden_act": "relu2", "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5, "eos_token_id": 128_001,
        ],
        keyHeads: nil, headSize: nil, qkvBias: .configured("attention_bias"),
        outputBias: .configured("attention_bias"), feedForwardBias: .configured("mlp_bias"), queryNorms: .none,
        feedForward: .ungated(isSquared: false), windows: AttentionWindows.none)
}

extension GGUFArchitecture {
    static let arcee = GGUFArchitecture(
        name: "arcee", modelClass: "ArceeForCausalLM", tensors: .unbiased, pairsNeighbors: true, addsOneToNorms: false
    ) { _, _ in ["hidden_act": "relu2"] }
}
