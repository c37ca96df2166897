import PEFTSupport

extension ModelFamily {
    /// The text model of Gemma 3 (Gemma Team 2025).
    static let gemma3 = ModelFamily(
        name: "gemma3_text", constructor: .generator { try Gemma(GemmaConfiguration($0, version: 3, family: $1)) },
        modules: .llama, tokenTypes: .none,
        adapterTargets: AdapterTargets(
            lora: .named(["q_proj", "v_proj"]), adaLoRA: .named(["q_proj", "v_proj"]),
            ia3: .named(["q_proj", "v_proj", "down_proj"]), ia3FeedForward: ["down_proj"],
            norms: [
                "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
                "post_feedforward_layernorm", "norm",
            ]),
        gguf: .architecture(.gemma3))
}

extension GGUFArchitecture {
    static let gemma3 = GGUFArchitecture(
        name: "gemma3", modelClass: "Gemma3ForCausalLM", tensors: .gemma2, pairsNeighbors: false, addsOneToNorms: true
    ) { read, sizes in
        let window = try read.count("attention.sliding_window", default: 4096)
        let softcap = "final_logit_softcapping"
        return Gemma.ggufActivation.merging([
            "query_pre_attn_scalar": .integer(Gemma.scoreWidth(sizes, version: 3)),
            "sliding_window": .integer(window), "attn_logit_softcapping": .null,
            softcap: read[softcap] == nil ? .null : .number(try read.number(softcap)),
            "rope_local_base_freq": .number(try read.number("rope.freq_base_swa", default: 10_000)),
            "sliding_window_pattern": 6,
        ]) { $1 }
    }
}
