import PEFTSupport

extension ModelFamily {
    /// OLMoE (Muennighoff et al. 2024): experts in all layers, and norms of all heads of queries and of keys together.
    static let olmoe = ModelFamily(
        name: "olmoe", constructor: .generator { try Llama(LlamaConfiguration($0, .olmoe, family: $1)) },
        modules: .experts(.qwen), tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Llama's.
        adapterTargets: .likeLlama(feedForward: []), gguf: .architecture(.olmoe))
}

extension GGUFArchitecture {
    static let olmoe: GGUFArchitecture = {
        let experts = GGUFExperts(normalizes: false)
        return GGUFArchitecture(
            name: "olmoe", modelClass: "OlmoeForCausalLM", tensors: .experts(experts, biases: []),
            pairsNeighbors: false, addsOneToNorms: false, hasRotaryFactors: false, experts: experts,
            details: { settings, description in
                guard settings.details.clip == nil else {
                    throw description.refusal("queries, keys and values are clipped ('clip_qkv')")
                }
                // llama.cpp's norm of the keys is as wide as the hidden states.
                guard settings.keyHeads == settings.heads else {
                    throw description.refusal("there are fewer key-value heads than heads ('num_key_value_heads')")
                }
            }
        ) { read, _ in
            try experts.configuration(read, countKey: "num_experts").merging([
                "norm_topk_prob": false, "attention_bias": false, "clip_qkv": .null,
            ]) { $1 }
        }
    }()
}

extension LlamaVariant {
    static let olmoe = LlamaVariant(
        defaults: [
            "vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 2048, "num_hidden_layers": 16,
            "num_attention_heads": 16, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "eos_token_id": 50279,
        ],
        keyHeads: nil, headSize: nil, qkvBias: .configured("attention_bias"),
        outputBias: .configured("attention_bias"), feedForwardBias: .never, queryNorms: .wholeProjection,
        experts: { read, layers in
            let (count, choices) = try ExpertSettings.counts(read, key: "num_experts", count: 64, choices: 8)
            return ExpertSettings(
                count: count, choices: choices, feedForwardSize: try read.integer("intermediate_size", .width),
                router: .softmax(normalizes: try read.boolean("norm_topk_prob", default: false)),
                isSparse: Array(repeating: true, count: layers),
                loss: try RouterLoss(read, experts: count, choices: choices, coefficient: 0.01))
        },
        details: { read, _ in LlamaDetails(clip: try read.optionalNumber("clip_qkv", default: nil)) },
        windows: AttentionWindows.none)
}
