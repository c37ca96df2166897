import PEFTSupport

extension ModelFamily {
    /// The mixtures of experts of LFM2 (Liquid AI 2025), chosen by a sigmoid router after some dense layers.
    static let lfm2MoE = ModelFamily(
        name: "lfm2_moe",
        constructor: .generator { json, family in
            let text = try LFM2.configuration(json, isDense: false)
            return try Llama(LlamaConfiguration(json, text: text, .lfm2MoE, family: family))
        },
        modules: .lfm2(experts: .lfm2), tokenTypes: .none, adapterTargets: .lfm2(feedForward: []),
        gguf: .architecture(.lfm2MoE))
}

extension ExpertNames {
    /// LFM2's files, where the correction of the router is beside it.
    static let lfm2 = ExpertNames(
        separate: ("w1", "w3", "w2"), renamesTargets: false,
        renamed: [(".feed_forward.expert_bias", ".feed_forward.gate.e_score_correction_bias")])
}

extension LlamaVariant {
    static let lfm2MoE = LlamaVariant(
        defaults: [
            "vocab_size": 65536, "hidden_size": 2048, "intermediate_size": 7168, "norm_eps": 1e-5,
            "max_position_embeddings": 128_000,
        ],
        keyHeads: 8, headSize: nil, qkvBias: .never, outputBias: .never, feedForwardBias: .never,
        queryNorms: .eachHead, blockNorms: .lfm2, feedForwardKey: "feed_forward", normKey: "embedding_norm",
        epsilonKey: "norm_eps", attentionNames: .lfm2,
        experts: { read, layers in
            let (count, choices) = try ExpertSettings.counts(read, key: "num_experts", count: 32, choices: 4)
            let dense = try read.integer(
                "num_dense_layers", default: 2, in: 0...ConfigurationReader.Size.layers.rawValue)
            // transformers has no loss of these routers.
            _ = try read.boolean("output_router_logits", default: false)
            let groups = ExpertRouter.Groups(
                isSigmoid: true, count: 1, chosen: 1, best: 1,
                normalizes: try read.boolean("norm_topk_prob", default: true),
                scale: try read.number("routed_scaling_factor", default: 1), epsilon: 1e-6,
                hasCorrection: try read.boolean("use_expert_bias", default: true))
            return ExpertSettings(
                count: count, choices: choices,
                feedForwardSize: try read.integer("moe_intermediate_size", .width, default: 1792),
                router: .grouped(groups), isSparse: (0..<layers).map { $0 >= dense })
        },
        rotary: LFM2.rotary,
        details: { read, layers in
            LlamaDetails(hybrid: try LFM2.layers(read, layers: layers), feedForwardForm: .lfm2)
        }, windows: AttentionWindows.none)
}
