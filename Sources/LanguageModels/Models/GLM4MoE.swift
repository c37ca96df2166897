import PEFTSupport

extension ModelFamily {
    /// GLM-4.5 (GLM Team 2025): experts that a sigmoid router chooses, after a dense first layer.
    static let glm4MoE = ModelFamily(
        name: "glm4_moe", constructor: .generator { try Llama(LlamaConfiguration($0, .glm4MoE, family: $1)) },
        modules: .experts(.qwen), tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Llama's.
        adapterTargets: .likeLlama(), gguf: .none)
}

extension LlamaVariant {
    static let glm4MoE = LlamaVariant(
        defaults: [
            "vocab_size": 151_552, "intermediate_size": 10944, "num_hidden_layers": 46, "num_attention_heads": 96,
            "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5, "partial_rotary_factor": 0.5,
        ],
        keyHeads: 8, headSize: nil, qkvBias: .configured("attention_bias"), outputBias: .never,
        feedForwardBias: .never, queryNorms: .none,
        experts: { read, layers in
            let (count, choices) = try ExpertSettings.counts(read, key: "n_routed_experts", count: 128, choices: 8)
            let size = try read.integer("moe_intermediate_size", .width, default: 1408)
            let shared = try read.integer("n_shared_experts", .heads, default: 1)
            // transformers has no loss of these routers.
            _ = try read.boolean("output_router_logits", default: false)
            let groups = try ExpertSettings.groups(
                read, experts: count, choices: choices, isSigmoid: true, count: 1, chosen: 1,
                normalizes: read.boolean("norm_topk_prob", default: true), scale: 1)
            return ExpertSettings(
                count: count, choices: choices, feedForwardSize: size, router: .grouped(groups),
                shared: ExpertSettings.Shared(key: "shared_experts", size: size * shared),
                isSparse: try ExpertSettings.afterDense(read, layers: layers, dense: 1))
        },
        rotary: { (try RotaryPositions($0, headSize: $1, allowsPartial: true, adjust: { $0.roundsUp = true }), nil) },
        details: { read, _ in
            LlamaDetails(
                queryNorms: try read.boolean("use_qk_norm", default: false) ? .eachHead : QueryNorms.none,
                ignoresFurtherLayers: true)
        }, windows: AttentionWindows.none)
}
