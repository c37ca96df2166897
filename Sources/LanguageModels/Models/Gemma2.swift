import PEFTSupport

extension ModelFamily {
    /// Gemma 2 (Gemma Team 2024, Improving Open Language Models at a Practical Size).
    static let gemma2 = ModelFamily(
        name: "gemma2", constructor: .generator { try Gemma(GemmaConfiguration($0, version: 2, family: $1)) },
        modules: .llama, tokenTypes: .none,
        adapterTargets: AdapterTargets(
            lora: .named(["q_proj", "v_proj"]), adaLoRA: .named(["q_proj", "v_proj"]),
            ia3: .named(["q_proj", "v_proj", "down_proj"]), ia3FeedForward: ["down_proj"],
            norms: [
                "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
                "post_feedforward_layernorm", "norm",
            ]),
        gguf: .architecture(.gemma2))
}

extension GGUFArchitecture {
    static let gemma2 = GGUFArchitecture(
        name: "gemma2", modelClass: "Gemma2ForCausalLM", tensors: .gemma2, pairsNeighbors: false, addsOneToNorms: true
    ) { read, sizes in
        Gemma.ggufActivation.merging([
            "query_pre_attn_scalar": .integer(Gemma.scoreWidth(sizes, version: 2)),
            "sliding_window": .integer(try read.count("attention.sliding_window", default: 4096)),
            "attn_logit_softcapping": .number(try read.number("attn_logit_softcapping", default: 50)),
            "final_logit_softcapping": .number(try read.number("final_logit_softcapping", default: 30)),
        ]) { $1 }
    }
}
