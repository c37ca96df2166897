import PEFTSupport
import Torch

extension ModelFamily {
    /// BLOOM (BigScience Workshop 2022): linear biases (ALiBi) in place of positions, and a norm of the embedded input.
    static let bloom = ModelFamily(
        name: "bloom", constructor: .generator { try LayerNormDecoder(.bloom($0, $1)) },
        modules: ModuleNames(
            prefix: "transformer", embedding: "word_embeddings", output: .projection("lm_head"),
            attention: ["self_attention"], feedForward: ["mlp"], unquantized: []),
        tokenTypes: .none,
        adapterTargets: AdapterTargets(
            lora: .named(["query_key_value"]), adaLoRA: .named(["query_key_value"]),
            ia3: .named(["query_key_value", "mlp.dense_4h_to_h"]), ia3FeedForward: ["mlp.dense_4h_to_h"],
            norms: ["input_layernorm", "post_attention_layernorm", "ln_f"]),
        gguf: .architecture(.bloom))
}

extension GGUFArchitecture {
    static let bloom = GGUFArchitecture(
        name: "bloom", modelClass: "BloomForCausalLM",
        tensors: .decoder(
            ("transformer", "h", "word_embeddings", "ln_f"), attention: "self_attention", qkv: "query_key_value",
            output: "dense", norms: [("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")],
            up: "dense_h_to_4h", down: "dense_4h_to_h",
            outer: [("token_embd_norm", "transformer.word_embeddings_layernorm")]),
        pairsNeighbors: false, fusedProjection: "query_key_value", addsOneToNorms: false, hasRotary: false,
        epsilon: ("attention.layer_norm_epsilon", "layer_norm_epsilon"),
        decoder: GGUFDecoderForm(
            activation: .geluTanh, hasInputBias: true, hasBiases: true, allowsTying: true, hasLinearBiases: true)
    ) { read, sizes in
        try read.requireEqualHeads(sizes)
        return ["apply_residual_connection_post_layernorm": false]
    }
}

extension LayerNormDecoderConfiguration {
    static func bloom(_ json: JSON, _ family: ModelFamily) throws -> Self {
        let read = ConfigurationReader(json: json)
        var settings = try Self(
            read, json, family,
            names: Names(
                stack: "transformer", layers: "h", embeddingNorm: "word_embeddings_layernorm", finalNorm: "ln_f",
                attention: "self_attention", attentionNorm: "input_layernorm",
                feedForwardNorm: "post_attention_layernorm", feedForward: "mlp", up: "dense_h_to_4h",
                down: "dense_4h_to_h"),
            keys: Keys(
                hiddenSize: (read.present("n_embed", or: "hidden_size"), 64),
                layers: (read.present("num_hidden_layers", or: "n_layer"), 2),
                heads: (read.present("num_attention_heads", or: "n_head"), 8), epsilon: ("layer_norm_epsilon", 1e-5),
                vocabularySize: 250_880, isTied: true, endToken: 2),
            projections: .fused("query_key_value"), output: "dense")
        // 'slow_but_exact' and 'pretraining_tp' choose the order of sums.
        settings.activation = .geluTanh
        settings.residual =
            try read.boolean("apply_residual_connection_post_layernorm", default: false)
            ? .sequentialFromNorms : .sequential
        settings.linearBiases = LinearBiases(heads: settings.attention.heads)
        settings.attention.dropout = try read.number("attention_dropout", default: 0)
        let dropout = try read.number("hidden_dropout", default: 0)
        settings.dropouts = Dropouts(attention: dropout, feedForward: dropout)
        return settings
    }
}
