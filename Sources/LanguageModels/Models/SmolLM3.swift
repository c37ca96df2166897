import PEFTSupport

extension ModelFamily {
    /// SmolLM3 (Bakouch et al. 2025): a Llama without RoPE in every fourth layer (NoPE).
    static let smolLM3 = ModelFamily(
        name: "smollm3", constructor: .generator { try Llama(LlamaConfiguration($0, .smolLM3, family: $1)) },
        modules: .llama, tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Llama's.
        adapterTargets: .likeLlama(),
        gguf: .architecture(.smolLM3))
}

extension LlamaVariant {
    static let smolLM3 = LlamaVariant(
        defaults: [
            "vocab_size": 128_256, "hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16,
            "num_key_value_heads": 4, "max_position_embeddings": 32768, "eos_token_id": 128_001,
            "tie_word_embeddings": true, "rope_theta": 2_000_000.0,
        ],
        keyHeads: nil, headSize: nil, qkvBias: .configured("attention_bias"),
        outputBias: .configured("attention_bias"), feedForwardBias: .configured("mlp_bias"), queryNorms: .none,
        details: { LlamaDetails(rotatedLayers: try rotatedLayers($0, layers: $1)) },
        windows: { read, layers in
            let isUsed = try read.boolean("use_sliding_window", default: false)
            let rotated = try rotatedLayers(read, layers: layers)
            let window = try read.optionalInteger("sliding_window", default: nil)
            return try AttentionWindows.read(read, layers: layers, window: isUsed ? window : nil) { !rotated[$0] }
        })

    /// `no_rope_layers` has, against its name, 1 for each layer with RoPE.
    static func rotatedLayers(_ read: ConfigurationReader, layers: Int) throws -> [Bool] {
        let interval = try read.integer("no_rope_layer_interval", .layers, default: 4)
        guard let value = read.json["no_rope_layers"], value != .null else {
            return (1...layers).map { !$0.isMultiple(of: interval) }
        }
        let flags = (value.array ?? []).compactMap(\.int)
        guard flags.count == value.array?.count, flags.count >= layers, flags.allSatisfy({ $0 == 0 || $0 == 1 })
        else {
            throw PEFTError(
                "config.json: 'no_rope_layers' doesn't list 0 or 1 for each of the \(layers) layers",
                remedy: "use 1 for a layer with RoPE and 0 for one without")
        }
        return flags.prefix(layers).map { $0 == 1 }
    }
}

extension GGUFArchitecture {
    static let smolLM3 = GGUFArchitecture(
        name: "smollm3", modelClass: "SmolLM3ForCausalLM", tensors: .unbiased, pairsNeighbors: true,
        addsOneToNorms: false, hasRotaryFactors: false,
        details: { settings, description in
            let usual = (1...settings.layers).map { !$0.isMultiple(of: 4) }
            guard settings.details.rotatedLayers == usual else {
                throw description.refusal("layers without RoPE aren't every fourth")
            }
        }
    ) { _, _ in ["hidden_act": "silu"] }
}
