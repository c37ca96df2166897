import PEFTSupport

extension ModelFamily {
    /// The text model of Ministral 3 (Mistral AI 2025): a Mistral whose queries grow with their position.
    static let ministral3 = ModelFamily(
        name: "ministral3", constructor: .generator { try Llama(LlamaConfiguration($0, .ministral3, family: $1)) },
        modules: .llama, tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Mistral's.
        adapterTargets: .likeLlama(),
        gguf: .none)
}

extension LlamaVariant {
    static let ministral3 = LlamaVariant(
        defaults: [
            "vocab_size": 131_072, "intermediate_size": 14336, "num_hidden_layers": 34, "num_key_value_heads": 8,
            "head_dim": 128, "max_position_embeddings": 262_144, "rms_norm_eps": 1e-5,
            "rope_parameters": [
                "rope_type": "yarn", "rope_theta": 1_000_000.0, "factor": 16.0,
                "original_max_position_embeddings": 16384, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0,
                "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
            ],
        ],
        keyHeads: nil, headSize: nil, qkvBias: .never, outputBias: .never, feedForwardBias: .never,
        queryNorms: .none,
        details: { read, _ in LlamaDetails(queryGrowth: try queryGrowth(read)) },
        windows: { read, layers in
            guard read.json["layer_types"] ?? .null == .null else {
                throw PEFTError(
                    "config.json: 'layer_types' is set, but all layers of a Ministral 3 are alike",
                    remedy: "remove 'layer_types'")
            }
            return Array(repeating: try read.optionalInteger("sliding_window", default: nil), count: layers)
        })

    private static func queryGrowth(_ read: ConfigurationReader) throws -> QueryGrowth {
        let parameters = read.filledObject("rope_scaling") ?? read.json["rope_parameters"]
        let kind = (parameters?["rope_type"] ?? parameters?["type"])?.string ?? "default"
        let isScaled = ["yarn", "llama3", "longrope"].contains(kind)
        var original = parameters?["original_max_position_embeddings"]?.int
        if isScaled {
            let other = try read.integer("max_position_embeddings", .length)
            original = read.json["original_max_position_embeddings"]?.int ?? original ?? other
        }
        guard let strength = parameters?["llama_4_scaling_beta"]?.double else {
            throw PEFTError(
                "config.json: 'rope_parameters' has no 'llama_4_scaling_beta'", remedy: "add it as a number")
        }
        guard let original, original > 0 else {
            throw PEFTError(
                "config.json: 'rope_parameters' has no 'original_max_position_embeddings'",
                remedy: "add it as a number of tokens")
        }
        return QueryGrowth(strength: strength, length: original)
    }
}
