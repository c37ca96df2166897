import PEFTSupport

extension ModelFamily {
    /// DeepSeek-V2 (DeepSeek-AI 2024): latent attention, and experts beside a shared network.
    static let deepSeekV2 = ModelFamily(
        name: "deepseek_v2", constructor: .generator { try Llama(LlamaConfiguration($0, .deepSeekV2, family: $1)) },
        modules: .experts(.qwen), tokenTypes: .none,
        // Hugging Face has no defaults for this family.
        adapterTargets: .latent, gguf: .architecture(.deepSeekV2))

    /// DeepSeek-V3 (DeepSeek-AI 2024): V2 with a sigmoid router in groups.
    static let deepSeekV3 = ModelFamily(
        name: "deepseek_v3", constructor: .generator { try Llama(LlamaConfiguration($0, .deepSeekV3, family: $1)) },
        modules: .experts(.qwen), tokenTypes: .none,
        // Hugging Face has no defaults for this family.
        adapterTargets: .latent, gguf: .architecture(.deepSeekV3))
}

extension AdapterTargets {
    /// The projections of latent attention.
    fileprivate static let latent = AdapterTargets(
        lora: .named(["q_b_proj", "kv_b_proj"]), adaLoRA: .named(["q_b_proj", "kv_b_proj"]),
        ia3: .named(["kv_b_proj", "down_proj"]), ia3FeedForward: ["down_proj"],
        norms: ["input_layernorm", "post_attention_layernorm", "norm"])
}

extension LlamaVariant {
    static let deepSeekV2 = LlamaVariant(
        defaults: ["vocab_size": 102_400],
        keyHeads: nil, headSize: 64, qkvBias: .never, outputBias: .never, feedForwardBias: .configured("mlp_bias"),
        queryNorms: .none,
        experts: { read, layers in
            let (count, choices) = try ExpertSettings.counts(read, key: "n_routed_experts", count: 64, choices: 6)
            let size = try read.integer("moe_intermediate_size", .width, default: 1407)
            let shared = try read.integer("n_shared_experts", .heads, default: 2)
            // transformers has no loss of these routers.
            _ = try read.boolean("output_router_logits", default: false)
            guard try !read.boolean("norm_topk_prob", default: false) else {
                throw PEFTError(
                    "config.json: 'norm_topk_prob' is true, which transformers ignores in this family",
                    remedy: "set it to false, as in published models")
            }
            let method = try read.string("topk_method", default: "greedy")
            guard ["greedy", "group_limited_greedy"].contains(method) else {
                throw PEFTError(
                    "config.json: 'topk_method' is '\(method)', which is not supported",
                    remedy: "use greedy or group_limited_greedy")
            }
            var groups = try ExpertSettings.groups(
                read, experts: count, choices: choices, isSigmoid: false, count: 1, chosen: 1, normalizes: false,
                scale: 1)
            if method == "greedy" {
                groups = ExpertRouter.Groups(
                    isSigmoid: false, count: 1, chosen: 1, best: 1, normalizes: false, scale: groups.scale)
            }
            let hasBias = try read.boolean("mlp_bias", default: false)
            return ExpertSettings(
                count: count, choices: choices, feedForwardSize: size, router: .grouped(groups),
                shared: ExpertSettings.Shared(key: "shared_experts", size: size * shared, hasBias: hasBias),
                isSparse: try ExpertSettings.afterDense(read, layers: layers, dense: 0))
        },
        latent: { try LatentAttention.Settings($0, size: 4096, heads: 32) },
        rotary: { read, _ in
            let size = try read.integer("qk_rope_head_dim", .headSize, default: 64)
            return (try RotaryPositions(read, headSize: size, pairsNeighbors: true), nil)
        }, windows: AttentionWindows.none)

    static let deepSeekV3 = LlamaVariant(
        defaults: [
            "vocab_size": 129_280, "hidden_size": 7168, "intermediate_size": 18432, "num_hidden_layers": 61,
            "num_attention_heads": 128, "max_position_embeddings": 4096, "eos_token_id": 1,
        ],
        keyHeads: nil, headSize: 64, qkvBias: .never, outputBias: .never, feedForwardBias: .never, queryNorms: .none,
        experts: { read, layers in
            let (count, choices) = try ExpertSettings.counts(read, key: "n_routed_experts", count: 256, choices: 8)
            let size = try read.integer("moe_intermediate_size", .width, default: 2048)
            let shared = try read.integer("n_shared_experts", .heads, default: 1)
            // transformers has no loss of these routers.
            _ = try read.boolean("output_router_logits", default: false)
            let groups = try ExpertSettings.groups(
                read, experts: count, choices: choices, isSigmoid: true, count: 8, chosen: 4,
                normalizes: read.boolean("norm_topk_prob", default: true), scale: 2.5)
            return ExpertSettings(
                count: count, choices: choices, feedForwardSize: size, router: .grouped(groups),
                shared: ExpertSettings.Shared(key: "shared_experts", size: size * shared),
                isSparse: try ExpertSettings.afterDense(read, layers: layers, dense: 3))
        },
        latent: { try LatentAttention.Settings($0, size: 7168, heads: 128) },
        rotary: { read, _ in
            let size = try read.integer("qk_rope_head_dim", .headSize, default: 64)
            let areNeighbors = try read.boolean("rope_interleave", default: true)
            return (try RotaryPositions(read, headSize: size, pairsNeighbors: areNeighbors), nil)
        },
        details: { _, _ in LlamaDetails(ignoresFurtherLayers: true) }, windows: AttentionWindows.none)
}
