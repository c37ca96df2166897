import PEFTSupport
import Torch

extension ModelFamily {
    /// Falcon (Almazrouei et al. 2023): multi-query or grouped-query attention beside the feed-forward network, with RoPE;
    /// the Falcon RW models are sequential, with a key head for each query head and linear biases (ALiBi).
    static let falcon = ModelFamily(
        name: "falcon", constructor: .generator { try LayerNormDecoder(.falcon($0, $1)) },
        modules: ModuleNames(
            prefix: "transformer", embedding: "word_embeddings", output: .projection("lm_head"),
            attention: ["self_attention"], feedForward: ["mlp"], unquantized: []),
        tokenTypes: .none,
        // Hugging Face has no AdaLoRA defaults for Falcon; these are LoRA's.
        adapterTargets: AdapterTargets(
            lora: .named(["query_key_value"]), adaLoRA: .named(["query_key_value"]),
            ia3: .named(["query_key_value", "dense_4h_to_h"]), ia3FeedForward: ["dense_4h_to_h"],
            norms: ["input_layernorm", "post_attention_layernorm", "ln_f"]),
        gguf: .architecture(.falcon))
}

extension GGUFArchitecture {
    static let falcon = GGUFArchitecture(
        name: "falcon", modelClass: "FalconForCausalLM",
        tensors: .falcon(norms: [
            ("attn_norm", "input_layernorm"), ("attn_norm", "ln_mlp"), ("attn_norm_2", "ln_attn"),
        ]),
        fileTensors: { read in
            let hasTwo = read.hasTensor("blk.0.attn_norm_2.weight")
            return .falcon(
                norms: hasTwo
                    ? [("attn_norm", "ln_mlp"), ("attn_norm_2", "ln_attn")] : [("attn_norm", "input_layernorm")])
        }, pairsNeighbors: false, fusedProjection: "query_key_value", addsOneToNorms: false, hasRotaryFactors: false,
        epsilon: ("attention.layer_norm_epsilon", "layer_norm_epsilon"),
        decoder: GGUFDecoderForm(
            activation: .gelu, residuals: [.parallel, .parallelWithSharedNorm], hasInputBias: false,
            hasBiases: false, allowsTying: true
        ) { _, description in
            // The order of the rows of queries, keys and values.
            description.add("tensor_data_layout", .string("jploski"))
        }
    ) { read, sizes in
        let hasTwo = read.hasTensor("blk.0.attn_norm_2.weight")
        return [
            "activation": "gelu", "alibi": false, "bias": false, "parallel_attn": true, "multi_query": true,
            "new_decoder_architecture": .bool(hasTwo || sizes.keyHeads > 1),
            "num_ln_in_parallel_attn": .integer(hasTwo ? 2 : 1), "num_kv_heads": .integer(sizes.keyHeads),
            "ffn_hidden_size": .integer(sizes.feedForwardSize),
        ]
    }
}

extension GGUFTensorNames {
    fileprivate static func falcon(norms: [(file: String, model: String)]) -> GGUFTensorNames {
        .decoder(
            ("transformer", "h", "word_embeddings", "ln_f"), attention: "self_attention", qkv: "query_key_value",
            output: "dense", norms: norms, up: "dense_h_to_4h", down: "dense_4h_to_h")
    }
}

extension LayerNormDecoderConfiguration {
    static func falcon(_ json: JSON, _ family: ModelFamily) throws -> Self {
        let read = ConfigurationReader(json: json)
        let isNew = try read.boolean("new_decoder_architecture", default: false)
        let isParallel = try read.boolean("parallel_attn", default: true)
        let norms = try read.falconNorms(isNew: isNew, isParallel: isParallel)
        var settings = try Self(
            read, json, family,
            names: Names(
                stack: "transformer", layers: "h", finalNorm: "ln_f", attention: "self_attention",
                attentionNorm: norms == 2 ? "ln_attn" : "input_layernorm",
                feedForwardNorm: norms == 2 ? "ln_mlp" : "post_attention_layernorm", feedForward: "mlp",
                up: "dense_h_to_4h", down: "dense_4h_to_h", buffers: ["rotary_emb.inv_freq"]),
            keys: Keys(
                hiddenSize: (read.present("n_embed", or: "hidden_size"), 4544), layers: ("num_hidden_layers", 32),
                heads: ("num_attention_heads", 71), epsilon: ("layer_norm_epsilon", 1e-5), vocabularySize: 65024,
                isTied: true, endToken: 11),
            projections: .fused("query_key_value"), output: "dense")
        settings.residual = !isParallel ? .sequential : norms == 2 ? .parallel : .parallelWithSharedNorm
        try settings.readFalconKeyHeads(read, isNew: isNew)
        settings.feedForwardSize =
            try read.optionalInteger("ffn_hidden_size", default: nil) ?? settings.feedForwardSize
        settings.activation = try read.activation("activation", default: "gelu")
        let hasBias = try read.boolean("bias", default: false)
        settings.hasFeedForwardBias = hasBias
        (settings.attention.hasInputBias, settings.attention.hasOutputBias) = (hasBias, hasBias)
        let headSize = settings.attention.headSize
        let attentionDropout = try read.number("attention_dropout", default: 0)
        if try read.boolean("alibi", default: false) {
            settings.linearBiases = LinearBiases(
                heads: settings.attention.heads, scale: 1 / Double(headSize).squareRoot(), areRounded: true)
            // transformers drops no attention weights beside RoPE.
            settings.attention.dropout = attentionDropout
        } else {
            try settings.refuseOtherHeadSize(read)
            settings.attention.rotary = try RotaryPositions(read, headSize: headSize)
        }
        settings.dropouts = Dropouts(
            attention: attentionDropout, feedForward: try read.number("hidden_dropout", default: 0), areOfTheSum: true
        )
        return settings
    }

    /// Reads the number of key-value heads: that of the file in the new architecture, otherwise 1 or that of the heads.
    private mutating func readFalconKeyHeads(_ read: ConfigurationReader, isNew: Bool) throws {
        guard try isNew || !read.boolean("multi_query", default: true) else {
            // The file's number is that of the query heads.
            _ = try read.optionalInteger("num_kv_heads", default: nil)
            attention.keyHeads = 1
            return
        }
        try readKeyHeads(read, "num_kv_heads", default: attention.heads)
        guard isNew || attention.keyHeads == attention.heads else {
            throw PEFTError(
                "config.json: 'num_kv_heads' is \(attention.keyHeads), but 'multi_query' and 'new_decoder_architecture'"
                    + " are false",
                remedy: "remove 'num_kv_heads'")
        }
    }
}

extension ConfigurationReader {
    /// Number of norms before parallel sublayers; 2 by default in the new architecture.
    fileprivate func falconNorms(isNew: Bool, isParallel: Bool) throws -> Int {
        guard isParallel else {
            guard !isNew else {
                throw PEFTError(
                    "config.json: 'parallel_attn' is false, but 'new_decoder_architecture' is true",
                    remedy: "set one of them as the model was trained")
            }
            return 1
        }
        let fallback = isNew ? 2 : 1
        let isNull = json["num_ln_in_parallel_attn"] == .null
        return try isNull
            ? fallback : integer("num_ln_in_parallel_attn", default: fallback, in: 1...(isNew ? 2 : 1))
    }
}
