import PEFTSupport

extension ModelFamily {
    /// Qwen3-Next (Qwen Team 2025): three of four layers are gated delta nets, with experts and a gated network beside them.
    static let qwen3Next = ModelFamily(
        name: "qwen3_next",
        constructor: .generator { try Llama(LlamaConfiguration($0, .qwen3Next, family: $1)) },
        modules: .hybrid(experts: .qwen), tokenTypes: .none,
        adapterTargets: .hybrid(inputs: ["in_proj_qkvz"], feedForward: []), gguf: .none)
}

extension LlamaVariant {
    static let qwen3Next = LlamaVariant(
        defaults: [
            "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 48,
            "num_attention_heads": 16, "max_position_embeddings": 32768, "eos_token_id": [],
            "partial_rotary_factor": 0.25,
        ],
        keyHeads: 2, headSize: 256, qkvBias: .configured("attention_bias"),
        outputBias: .configured("attention_bias"), feedForwardBias: .never, queryNorms: .eachHead,
        experts: { read, layers in
            let (count, choices) = try ExpertSettings.counts(read, key: "num_experts", count: 512, choices: 10)
            return ExpertSettings(
                count: count, choices: choices,
                feedForwardSize: try read.integer("moe_intermediate_size", .width, default: 512),
                router: .softmax(normalizes: try read.boolean("norm_topk_prob", default: true)),
                shared: try .gated(read), isSparse: try ExpertSettings.steps(read, layers: layers),
                loss: try RouterLoss(read, experts: count, choices: choices, coefficient: 0.001))
        },
        rotary: hybridRotary, details: { try hybridDetails($0, layers: $1, isGrouped: true) },
        windows: AttentionWindows.none)
}
