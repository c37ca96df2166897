import PEFTSupport

extension ModelFamily {
    /// The text model of Llama 4 (Meta 2025): experts whose inputs a sigmoid router scales, and layers without RoPE, whose
    /// queries grow with their position.
    static let llama4 = ModelFamily(
        name: "llama4_text", constructor: .generator { try Llama(LlamaConfiguration($0, .llama4, family: $1)) },
        modules: .experts(.stacked), tokenTypes: .none, adapterTargets: .likeLlama(), gguf: .none)
}

extension LlamaVariant {
    static let llama4 = LlamaVariant(
        defaults: [
            "vocab_size": 202_048, "hidden_size": 5120, "intermediate_size": 8192, "num_hidden_layers": 48,
            "num_attention_heads": 40, "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5,
            "rope_theta": 500_000.0,
        ],
        keyHeads: 8, headSize: 128, qkvBias: .configured("attention_bias"),
        outputBias: .configured("attention_bias"), feedForwardBias: .never, queryNorms: .none,
        feedForwardKey: "feed_forward",
        experts: { read, layers in
            let (count, choices) = try ExpertSettings.counts(read, key: "num_local_experts", count: 16, choices: 1)
            let size = try read.integer("intermediate_size", .width)
            // transformers neither adds these routers' loss nor multiplies by noise.
            _ = try read.boolean("output_router_logits", default: false)
            _ = try read.number("router_aux_loss_coef", default: 0)
            guard try read.number("router_jitter_noise", default: 0) == 0 else {
                throw PEFTError(
                    "config.json: 'router_jitter_noise' isn't 0, which is not supported", remedy: "set it to 0")
            }
            return ExpertSettings(
                count: count, choices: choices, feedForwardSize: size, router: .sigmoid, isTransposed: true,
                scalesInputs: true, routerKey: "router",
                shared: ExpertSettings.Shared(key: "shared_expert", size: size),
                isSparse: try sparseLayers(read, layers: layers),
                denseSize: try read.integer("intermediate_size_mlp", .width, default: 16384))
        },
        rotary: { (try RotaryPositions($0, headSize: $1, pairsNeighbors: true), nil) },
        details: { read, layers in
            let rotated = try llama4RotatedLayers(read, layers: layers)
            let chunk = try read.optionalInteger("attention_chunk_size", default: 8192)
            try checkTypes(read, rotated: rotated, hasChunks: chunk != nil)
            let growth = QueryGrowth(
                strength: try read.number("attn_scale", default: 0.1),
                length: try read.integer("floor_scale", .length, default: 8192), isWithoutPositions: true)
            return LlamaDetails(
                queryGrowth: try read.boolean("attn_temperature_tuning", default: true) ? growth : nil,
                unscaledNorm: try read.boolean("use_qk_norm", default: true)
                    ? read.number("rms_norm_eps", default: 1e-5) : nil,
                // Within the first chunk, chunked attention is full attention.
                positionLimit: rotated.contains(true) ? chunk : nil, rotatedLayers: rotated)
        },
        windows: AttentionWindows.none)

    private static func llama4RotatedLayers(_ read: ConfigurationReader, layers: Int) throws -> [Bool] {
        // An empty list is none.
        let isEmpty = read.json["no_rope_layers"]?.array?.isEmpty == true
        return try rotatedLayers(isEmpty ? read.without("no_rope_layers") : read, layers: layers)
    }

    /// - Throws: ``PEFTError`` for layer types that don't follow from the other keys.
    private static func checkTypes(_ read: ConfigurationReader, rotated: [Bool], hasChunks: Bool) throws {
        guard let types = read.json["layer_types"], types != .null else { return }
        let usual = rotated.map { $0 && hasChunks ? "chunked_attention" : "full_attention" }
        guard types.array?.compactMap(\.string) == usual else {
            throw PEFTError(
                "config.json: 'layer_types' differs from the types that 'no_rope_layers' and 'attention_chunk_size' imply",
                remedy: "remove 'layer_types'")
        }
    }

    /// `moe_layers`, or every `interleave_moe_layer_step`-th layer.
    private static func sparseLayers(_ read: ConfigurationReader, layers: Int) throws -> [Bool] {
        let step = try read.integer("interleave_moe_layer_step", .layers, default: 1)
        guard let value = read.json["moe_layers"], value != .null else {
            return (0..<layers).map { ($0 + 1).isMultiple(of: step) }
        }
        let list = (value.array ?? []).compactMap(\.int)
        guard let all = value.array, all.count == list.count else {
            throw PEFTError(
                "config.json: 'moe_layers' is \(value.text(indent: nil))", remedy: "use a list of layers")
        }
        return (0..<layers).map { Set(list).contains($0) }
    }
}
