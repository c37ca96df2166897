import PEFTSupport

extension ModelFamily {
    /// The text model of the mixtures of Qwen3.5 (Qwen Team 2026), with a gated network beside the experts.
    static let qwen3_5MoEText = ModelFamily(
        name: "qwen3_5_moe_text",
        constructor: .generator { try Llama(LlamaConfiguration($0, .qwen3_5MoE, family: $1)) },
        modules: .hybrid(experts: .qwen2), tokenTypes: .none,
        adapterTargets: .hybrid(inputs: ["in_proj_qkv"], feedForward: []), gguf: .none)

    /// The text part of the mixtures of Qwen3.5.
    static let qwen3_5MoE = ModelFamily(
        name: "qwen3_5_moe",
        constructor: .generator { json, family in
            let text = try MultimodalText.configuration(
                of: json, types: ["qwen3_5_moe_text"], isTied: false, hasExperts: true)
            return try Llama(LlamaConfiguration(json, text: text, .qwen3_5MoE, family: family))
        },
        modules: .hybridVision(experts: .qwen2), tokenTypes: .none,
        adapterTargets: .hybrid(inputs: ["in_proj_qkv"], feedForward: []), gguf: .none)
}

extension LlamaVariant {
    static let qwen3_5MoE = LlamaVariant(
        defaults: [
            "vocab_size": 248_320, "hidden_size": 2048, "num_hidden_layers": 40, "num_attention_heads": 16,
            "max_position_embeddings": 32768, "eos_token_id": [], "partial_rotary_factor": 0.25,
        ],
        keyHeads: 2, headSize: 256, qkvBias: .configured("attention_bias"),
        outputBias: .configured("attention_bias"), feedForwardBias: .never, queryNorms: .eachHead,
        experts: { read, layers in
            let (count, choices) = try ExpertSettings.counts(read, key: "num_experts", count: 256, choices: 8)
            return ExpertSettings(
                count: count, choices: choices,
                feedForwardSize: try read.integer("moe_intermediate_size", .width, default: 512),
                router: .softmax(normalizes: true), shared: try .gated(read),
                isSparse: Array(repeating: true, count: layers),
                loss: try RouterLoss(read, experts: count, choices: choices, coefficient: 0.001))
        },
        rotary: hybridRotary, details: { try hybridDetails($0, layers: $1, isGrouped: false) },
        windows: AttentionWindows.none)
}

extension ExpertSettings.Shared {
    /// The gated network of Qwen3-Next and Qwen3.5.
    static func gated(_ read: ConfigurationReader) throws -> Self {
        Self(
            key: "shared_expert", size: try read.integer("shared_expert_intermediate_size", .width, default: 512),
            isGated: true)
    }
}
