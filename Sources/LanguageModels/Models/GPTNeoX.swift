import PEFTSupport
import Torch

extension ModelFamily {
    /// GPT-NeoX (Black et al. 2022) and Pythia (Biderman et al. 2023): parallel sublayers, and RoPE over a part of each
    /// head.
    static let gptNeoX = ModelFamily(
        name: "gpt_neox", constructor: .generator { try LayerNormDecoder(.gptNeoX($0, $1)) },
        modules: ModuleNames(
            prefix: "gpt_neox", embedding: "embed_in", output: .projection("lm_head"), attention: ["attention"],
            feedForward: ["mlp"], unquantized: []),
        tokenTypes: .none,
        // Hugging Face has no norms for GPT-NeoX.
        adapterTargets: AdapterTargets(
            lora: .named(["query_key_value"]), adaLoRA: .named(["query_key_value"]),
            ia3: .named(["query_key_value", "dense_4h_to_h"]), ia3FeedForward: ["dense_4h_to_h"],
            norms: ["input_layernorm", "post_attention_layernorm", "final_layer_norm"]),
        gguf: .architecture(.gptNeoX))
}

extension GGUFArchitecture {
    static let gptNeoX = GGUFArchitecture(
        name: "gptneox", modelClass: "GPTNeoXForCausalLM",
        tensors: .decoder(
            ("gpt_neox", "layers", "embed_in", "final_layer_norm"), attention: "attention", qkv: "query_key_value",
            output: "dense", norms: [("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")],
            up: "dense_h_to_4h", down: "dense_4h_to_h"),
        pairsNeighbors: false, fusedProjection: "query_key_value", addsOneToNorms: false, hasRotaryFactors: false,
        rotatesParts: true, epsilon: ("attention.layer_norm_epsilon", "layer_norm_eps"),
        decoder: GGUFDecoderForm(
            activation: .gelu, residuals: [.parallel, .sequential], hasInputBias: true, hasBiases: true,
            allowsTying: false
        ) { settings, description in
            description.add("use_parallel_residual", .flag(settings.residual == .parallel))
        }
    ) { read, sizes in
        try read.requireEqualHeads(sizes)
        let rotated = try read.count("rope.dimension_count", default: sizes.headSize)
        return [
            "hidden_act": "gelu", "attention_bias": true,
            "use_parallel_residual": .bool(read["use_parallel_residual"]?.flag ?? true),
            "rotary_pct": .number(GGUFSizes.share(rotated, of: sizes.headSize)),
            "rotary_emb_base": .number(try read.number("rope.freq_base", default: 10_000)),
        ]
    }
}

extension LayerNormDecoderConfiguration {
    static func gptNeoX(_ json: JSON, _ family: ModelFamily) throws -> Self {
        let read = ConfigurationReader(json: json)
        var settings = try Self(
            read, json, family,
            names: Names(
                stack: "gpt_neox", layers: "layers", finalNorm: "final_layer_norm", attention: "attention",
                attentionNorm: "input_layernorm", feedForwardNorm: "post_attention_layernorm", feedForward: "mlp",
                up: "dense_h_to_4h", down: "dense_4h_to_h",
                buffers: [".attention.bias", ".attention.masked_bias", "rotary_emb.inv_freq"],
                older: [("embed_out", "lm_head")]),
            keys: Keys(
                hiddenSize: ("hidden_size", 6144), layers: ("num_hidden_layers", 44),
                heads: ("num_attention_heads", 64), vocabularySize: 50432, isTied: false, endToken: 2),
            projections: .fused("query_key_value"), output: "dense")
        try settings.refuseOtherHeadSize(read)
        settings.feedForwardSize = try read.integer("intermediate_size", .width, default: 24576)
        settings.activation = try read.activation("hidden_act", default: "gelu")
        settings.residual = try read.boolean("use_parallel_residual", default: true) ? .parallel : .sequential
        let hasBias = try read.boolean("attention_bias", default: true)
        (settings.attention.hasInputBias, settings.attention.hasOutputBias) = (hasBias, hasBias)
        settings.attention.rotary = try RotaryPositions(
            try read.withGPTNeoXRotary(), headSize: settings.attention.headSize, allowsPartial: true)
        settings.attention.dropout = try read.number("attention_dropout", default: 0)
        let dropout = try read.number("hidden_dropout", default: 0)
        settings.embeddingDropout = dropout
        settings.dropouts = Dropouts(attention: dropout, feedForward: dropout)
        return settings
    }
}

extension ConfigurationReader {
    /// The same with GPT-NeoX's keys of θ and of the rotated part of each head under their usual names.
    fileprivate func withGPTNeoXRotary() throws -> ConfigurationReader {
        let share = try number("rotary_pct", default: 0.25)
        guard share > 0, share <= 1 else {
            throw PEFTError("config.json: 'rotary_pct' is \(share)", remedy: "use a value above 0 and up to 1")
        }
        var fields = json.object ?? [:]
        fields["rope_theta"] = .number(try number("rotary_emb_base", default: 10_000))
        fields["partial_rotary_factor"] = .number(share)
        return ConfigurationReader(json: .object(fields))
    }
}
