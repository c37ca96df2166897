import PEFTSupport

extension ModelFamily {
    /// Falcon-H1 (Zuo et al. 2025): each layer has an attention and a Mamba-2 layer side by side, with factors of their parts.
    static let falconH1 = ModelFamily(
        name: "falcon_h1", constructor: .generator { try Llama(LlamaConfiguration($0, .falconH1, family: $1)) },
        modules: ModuleNames(
            prefix: "model", embedding: "embed_tokens", output: .projection("lm_head"),
            attention: ["self_attn", "mamba"], feedForward: ["feed_forward"], unquantized: []),
        tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Llama's, and the projections of the Mamba-2 layers' inputs.
        adapterTargets: AdapterTargets(
            lora: .named(["q_proj", "v_proj", "in_proj"]), adaLoRA: .named(["q_proj", "v_proj", "in_proj"]),
            ia3: .named(["k_proj", "v_proj", "in_proj", "down_proj"]), ia3FeedForward: ["down_proj"],
            norms: ["input_layernorm", "pre_ff_layernorm", "final_layernorm"]),
        gguf: .none)
}

extension LlamaVariant {
    static let falconH1 = LlamaVariant(
        defaults: [
            "vocab_size": 128_000, "intermediate_size": 14336, "rms_norm_eps": 1e-5, "max_position_embeddings": 8192,
        ],
        keyHeads: 8, headSize: nil, qkvBias: .configured("attention_bias"),
        outputBias: .configured("attention_bias"), feedForwardBias: .configured("mlp_bias"), queryNorms: .none,
        blockNorms: BlockNorms(beforeAttention: "input_layernorm", beforeFeedForward: "pre_ff_layernorm"),
        feedForwardKey: "feed_forward", normKey: "final_layernorm",
        details: { read, layers in
            let inner = try innerSize(read)
            var settings = try Mamba2.Settings(read, innerSize: inner, outputBias: "projectors_bias")
            let isFirst = try read.boolean("mamba_norm_before_gate", default: true)
            settings.norm =
                try read.boolean("mamba_rms_norm", default: false) ? isFirst ? .beforeGate : .afterGate : nil
            settings.inputScale = try read.number("ssm_in_multiplier", default: 1)
            let factors = try read.numbers("ssm_multipliers", count: 5)
            settings.scales = Mamba2.Scales(
                gates: factors[0], values: factors[1], writers: factors[2], readers: factors[3], steps: factors[4])
            let mixer = ParallelMixer.Settings(
                stateSpace: settings, attentionInputScale: try read.number("attention_in_multiplier", default: 1),
                attentionOutputScale: try read.number("attention_out_multiplier", default: 1),
                stateOutputScale: try read.number("ssm_out_multiplier", default: 1))
            let feedForward = try read.numbers("mlp_multipliers", count: 2)
            let scale = try read.number("embedding_multiplier", default: 1)
            return LlamaDetails(
                inputScale: scale, outputScale: try read.number("lm_head_multiplier", default: 1),
                hybrid: HybridLayers(mixer: .parallel(mixer), layers: Array(repeating: true, count: layers)),
                keyScale: try read.number("key_multiplier", default: 1),
                // With embedded inputs, transformers doesn't scale the embeddings of the text, either.
                takesPrompts: scale == 1,
                feedForwardForm: GatedFeedForward.Form(gateScale: feedForward[0], outputScale: feedForward[1]))
        }, windows: AttentionWindows.none)

    /// The number of values of all heads of a Mamba-2 layer.
    private static func innerSize(_ read: ConfigurationReader) throws -> Int {
        let expanded = try Mamba2.Settings.expanded(read)
        return read.json["mamba_d_ssm"] == .null
            ? expanded : try read.integer("mamba_d_ssm", .width, default: 1024)
    }
}
