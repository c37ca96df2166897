import PEFTSupport

extension ModelFamily {
    /// OLMo 3 (OLMo Team 2025): an OLMo 2 with sliding windows in three of four layers, whose RoPE is never scaled.
    static let olmo3 = ModelFamily(
        name: "olmo3", constructor: .generator { try Llama(LlamaConfiguration($0, .olmo3, family: $1)) },
        modules: .llama, tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Llama's.
        adapterTargets: .likeLlama(norms: ["post_attention_layernorm", "post_feedforward_layernorm", "norm"]),
        gguf: .architecture(.olmo3))
}

extension LlamaVariant {
    static let olmo3 = LlamaVariant(
        defaults: ["vocab_size": 50304, "rms_norm_eps": 1e-5, "eos_token_id": 50279], keyHeads: nil, headSize: nil,
        qkvBias: .configured("attention_bias"), outputBias: .configured("attention_bias"), feedForwardBias: .never,
        queryNorms: .wholeProjection, blockNorms: .outputs,
        rotary: { read, size in
            let base = 500_000.0
            return (
                try RotaryPositions(
                    read, headSize: size, layers: "full_attention", base: base, baseKey: "rope_theta"),
                // transformers applies older files' 'rope_theta' to the other layers only.
                try RotaryPositions(read, headSize: size, layers: "sliding_attention", base: base, baseKey: nil)
            )
        },
        windows: { read, layers in
            let window = try read.optionalInteger("sliding_window", default: 4096)
            return try AttentionWindows.read(read, layers: layers, window: window) { !($0 + 1).isMultiple(of: 4) }
        })
}

extension GGUFArchitecture {
    /// llama.cpp's `olmo2` with sliding windows, in whose layers RoPE isn't scaled.
    static let olmo3 = GGUFArchitecture(
        name: "olmo2", modelClass: "Olmo3ForCausalLM", tensors: .olmo2, pairsNeighbors: false, addsOneToNorms: false,
        hasRotaryFactors: false, windowPeriod: 4,
        isFamily: { $0["attention.sliding_window"]?.integer ?? 0 > 0 },
        rotary: { _, fields in
            var full = fields["rope_scaling"]?.object ?? ["rope_type": "default"]
            var sliding: [String: JSON] = ["rope_type": "default"]
            (full["rope_theta"], sliding["rope_theta"]) = (fields["rope_theta"], fields["rope_theta"])
            fields["rope_parameters"] = ["full_attention": .object(full), "sliding_attention": .object(sliding)]
            (fields["rope_theta"], fields["rope_scaling"]) = (nil, nil)
        },
        details: { settings, description in
            try olmo2.details(settings, &description)
            let (full, sliding) = (settings.rotary.settings, settings.localRotary.settings)
            guard sliding.kind == "default", sliding.base == full.base else {
                throw description.refusal("sliding-window layers have other RoPE positions")
            }
            description.add(
                "attention.sliding_window_pattern", .list(GGUFList(settings.windows.map { $0 != nil })))
        }
    ) { read, _ in
        ["hidden_act": "silu", "sliding_window": .integer(try read.count("attention.sliding_window"))]
    }
}
