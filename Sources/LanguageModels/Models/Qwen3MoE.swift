import PEFTSupport

extension ModelFamily {
    /// The mixtures of experts of Qwen3 (Yang et al. 2025).
    static let qwen3MoE = ModelFamily(
        name: "qwen3_moe", constructor: .generator { try Llama(LlamaConfiguration($0, .qwen3MoE, family: $1)) },
        modules: .experts(.qwen), tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Llama's.
        adapterTargets: .likeLlama(feedForward: []), gguf: .architecture(.qwen3MoE))
}

extension GGUFArchitecture {
    static let qwen3MoE: GGUFArchitecture = {
        let experts = GGUFExperts(normalizes: true, hasSize: true)
        return GGUFArchitecture(
            name: "qwen3moe", modelClass: "Qwen3MoeForCausalLM", tensors: .experts(experts, biases: []),
            pairsNeighbors: false, addsOneToNorms: false, hasRotaryFactors: false, experts: experts
        ) { read, _ in
            try experts.configuration(read, countKey: "num_experts").merging([
                "moe_intermediate_size": .integer(try read.count("expert_feed_forward_length")),
                "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": [], "attention_bias": false,
                "use_sliding_window": false,
            ]) { $1 }
        }
    }()
}

extension LlamaVariant {
    static let qwen3MoE = LlamaVariant(
        defaults: [
            "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 24,
            "max_position_embeddings": 32768,
        ],
        keyHeads: 4, headSize: nil, qkvBias: .configured("attention_bias"),
        outputBias: .configured("attention_bias"), feedForwardBias: .never, queryNorms: .eachHead,
        experts: { read, layers in
            let key = read.json["num_local_experts"] == nil ? "num_experts" : "num_local_experts"
            let (count, choices) = try ExpertSettings.counts(read, key: key, count: 128, choices: 8)
            return ExpertSettings(
                count: count, choices: choices,
                feedForwardSize: try read.integer("moe_intermediate_size", .width, default: 768),
                router: .softmax(normalizes: try read.boolean("norm_topk_prob", default: false)),
                isSparse: try ExpertSettings.steps(read, layers: layers),
                loss: try RouterLoss(read, experts: count, choices: choices, coefficient: 0.001))
        }
    ) { read, layers in
        let isUsed = try read.boolean("use_sliding_window", default: false)
        let window = try read.optionalInteger("sliding_window", default: 4096)
        return Array(repeating: isUsed ? window : nil, count: layers)
    }
}
