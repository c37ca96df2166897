import PEFTSupport

extension ModelFamily {
    /// The mixtures of experts of Qwen1.5 and Qwen2 (Yang et al. 2024), with a gated network that all tokens share.
    static let qwen2MoE = ModelFamily(
        name: "qwen2_moe", constructor: .generator { try Llama(LlamaConfiguration($0, .qwen2MoE, family: $1)) },
        modules: .experts(.qwen2), tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Llama's.
        adapterTargets: .likeLlama(), gguf: .architecture(.qwen2MoE))
}

extension GGUFArchitecture {
    static let qwen2MoE: GGUFArchitecture = {
        let experts = GGUFExperts(normalizes: false, hasSize: true, hasShared: true)
        return GGUFArchitecture(
            name: "qwen2moe", modelClass: "Qwen2MoeForCausalLM",
            tensors: .experts(experts, biases: ["attn_q", "attn_k", "attn_v"]), pairsNeighbors: false,
            addsOneToNorms: false, hasRotaryFactors: false, experts: experts
        ) { read, sizes in
            let used = try read.count("expert_used_count")
            let size = try read.count("expert_feed_forward_length", default: max(1, sizes.feedForwardSize / used))
            let shared = try read.count("expert_shared_feed_forward_length", default: sizes.feedForwardSize)
            return try experts.configuration(read, countKey: "num_experts").merging([
                "moe_intermediate_size": .integer(size), "shared_expert_intermediate_size": .integer(shared),
                "norm_topk_prob": false, "decoder_sparse_step": 1, "mlp_only_layers": [],
                "qkv_bias": .bool(read.hasTensor("blk.0.attn_q.bias")), "use_sliding_window": false,
            ]) { $1 }
        }
    }()
}

extension LlamaVariant {
    static let qwen2MoE = LlamaVariant(
        defaults: [
            "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24,
            "num_attention_heads": 16, "max_position_embeddings": 32768, "qkv_bias": true,
        ],
        keyHeads: 16, headSize: nil, qkvBias: .configured("qkv_bias"), outputBias: .never, feedForwardBias: .never,
        queryNorms: .none,
        experts: { read, layers in
            let (count, choices) = try ExpertSettings.counts(read, key: "num_experts", count: 60, choices: 4)
            return ExpertSettings(
                count: count, choices: choices,
                feedForwardSize: try read.integer("moe_intermediate_size", .width, default: 1408),
                router: .softmax(normalizes: try read.boolean("norm_topk_prob", default: false)),
                shared: ExpertSettings.Shared(
                    key: "shared_expert",
                    size: try read.integer("shared_expert_intermediate_size", .width, default: 5632), isGated: true),
                isSparse: try ExpertSettings.steps(read, layers: layers),
                loss: try RouterLoss(read, experts: count, choices: choices, coefficient: 0.001))
        }
    ) { read, layers in
        let isUsed = try read.boolean("use_sliding_window", default: false)
        let last = try read.integer("max_window_layers", default: 28, in: 0...1_000_000)
        // transformers writes 0 for none.
        let window =
            read.json["sliding_window"] == 0 ? nil : try read.optionalInteger("sliding_window", default: 4096)
        return try AttentionWindows.read(read, layers: layers, window: isUsed ? window : nil) {
            $0.isMultiple(of: 2) && $0 < last
        }
    }
}
