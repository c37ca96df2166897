import PEFTSupport

extension ModelFamily {
    /// The text model of Qwen3.5 (Qwen Team 2026): three of four layers are gated delta nets, the others gated attentions
    /// with RoPE on a part of each head.
    static let qwen3_5Text = ModelFamily(
        name: "qwen3_5_text",
        constructor: .generator { try Llama(LlamaConfiguration($0, .qwen3_5, family: $1)) },
        modules: .hybrid(experts: nil), tokenTypes: .none,
        // Hugging Face has no defaults for these families; these are Qwen3's, and the projections of gated delta nets.
        adapterTargets: .hybrid(inputs: ["in_proj_qkv"]), gguf: .none)

    /// The text part of Qwen3.5. Its multimodal RoPE has three positions per token, which are equal for texts.
    static let qwen3_5 = ModelFamily(
        name: "qwen3_5",
        constructor: .generator { json, family in
            let text = try MultimodalText.configuration(of: json, types: ["qwen3_5_text"], isTied: false)
            return try Llama(LlamaConfiguration(json, text: text, .qwen3_5, family: family))
        },
        modules: .hybridVision(experts: nil), tokenTypes: .none,
        adapterTargets: .hybrid(inputs: ["in_proj_qkv"]), gguf: .none)
}

extension LlamaVariant {
    static let qwen3_5 = LlamaVariant(
        defaults: [
            "vocab_size": 248_320, "hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 16,
            "max_position_embeddings": 32768, "eos_token_id": [], "partial_rotary_factor": 0.25,
        ],
        keyHeads: 4, headSize: 256, qkvBias: .configured("attention_bias"),
        outputBias: .configured("attention_bias"), feedForwardBias: .never, queryNorms: .eachHead,
        rotary: hybridRotary, details: { try hybridDetails($0, layers: $1, isGrouped: false) },
        windows: AttentionWindows.none)

    @Sendable static func hybridRotary(_ read: ConfigurationReader, headSize: Int) throws -> (
        full: RotaryPositions, local: RotaryPositions?
    ) {
        let rotary = try RotaryPositions(
            read, headSize: headSize, allowsPartial: true, rename: { $0 == "mrope" ? "default" : $0 })
        return (rotary, nil)
    }

    static func hybridDetails(
        _ read: ConfigurationReader, layers: Int, isGrouped: Bool
    ) throws -> LlamaDetails {
        LlamaDetails(
            normOffset: 1, hybrid: try .deltaNets(read, layers: layers, isGrouped: isGrouped),
            // The layers that predict further tokens, and the vision part of a file of the whole model.
            ignoredPrefixes: ["mtp.", "model.visual."])
    }
}

extension ModuleNames {
    static func hybrid(experts: ExpertNames?) -> ModuleNames {
        ModuleNames(
            prefix: "model", embedding: "embed_tokens", output: .projection("lm_head"),
            attention: ["self_attn", "linear_attn"], feedForward: ["mlp"],
            unquantized: experts == nil ? [] : ["gate"], experts: experts)
    }

    /// The text part below `model.language_model`, beside a vision encoder and layers that predict further tokens.
    static func hybridVision(experts: ExpertNames?) -> ModuleNames {
        let text = hybrid(experts: experts)
        return ModuleNames(
            prefix: "model.language_model", embedding: text.embedding, output: text.output,
            attention: text.attention, feedForward: text.feedForward, unquantized: text.unquantized,
            otherParts: ["model.visual.", "mtp."], experts: experts)
    }
}

extension AdapterTargets {
    /// - Parameters:
    ///   - inputs: projections of the inputs of gated delta nets.
    ///   - feedForward: targets of (IA)³ whose input is rescaled; empty for a family whose layers have experts.
    static func hybrid(inputs: [String], feedForward: [String] = ["down_proj"]) -> AdapterTargets {
        let projections = ["q_proj", "v_proj"] + inputs
        return AdapterTargets(
            lora: .named(projections), adaLoRA: .named(projections), ia3: .named(projections + feedForward),
            ia3FeedForward: feedForward, norms: ["input_layernorm", "post_attention_layernorm", "norm"])
    }
}
