import PEFTSupport
import Torch

extension ModelFamily {
    /// StarCoder2 (Lozhkov et al. 2024): grouped-query attention with RoPE, in most models with sliding windows, and a
    /// feed-forward network of two projections.
    static let starCoder2 = ModelFamily(
        name: "starcoder2", constructor: .generator { try LayerNormDecoder(.starCoder2($0, $1)) },
        modules: .llama, tokenTypes: .none,
        // Hugging Face has no defaults for StarCoder2; these are like StableLM's.
        adapterTargets: AdapterTargets(
            lora: .named(["q_proj", "v_proj"]), adaLoRA: .named(["q_proj", "v_proj"]),
            ia3: .named(["k_proj", "v_proj", "c_proj"]), ia3FeedForward: ["c_proj"],
            norms: ["input_layernorm", "post_attention_layernorm", "norm"]),
        gguf: .architecture(.starCoder2))
}

extension GGUFArchitecture {
    static let starCoder2 = GGUFArchitecture(
        name: "starcoder2", modelClass: "Starcoder2ForCausalLM",
        tensors: .decoder(
            ("model", "layers", "embed_tokens", "norm"), attention: "self_attn", output: "o_proj",
            norms: [("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")], up: "c_fc",
            down: "c_proj"),
        pairsNeighbors: false, addsOneToNorms: false, hasRotaryFactors: false,
        epsilon: ("attention.layer_norm_epsilon", "norm_epsilon"),
        decoder: GGUFDecoderForm(activation: .geluTanh, hasInputBias: true, hasBiases: true, allowsTying: true)
    ) { _, _ in ["hidden_act": "gelu_pytorch_tanh", "use_bias": true, "sliding_window": .null] }
}

extension LayerNormDecoderConfiguration {
    static func starCoder2(_ json: JSON, _ family: ModelFamily) throws -> Self {
        let read = ConfigurationReader(json: json, defaults: ["max_position_embeddings": 4096])
        var settings = try Self(
            read, json, family,
            names: Names(
                stack: "model", layers: "layers", finalNorm: "norm", attention: "self_attn",
                attentionNorm: "input_layernorm", feedForwardNorm: "post_attention_layernorm", feedForward: "mlp",
                up: "c_fc", down: "c_proj", buffers: ["rotary_emb.inv_freq"]),
            keys: Keys(
                hiddenSize: ("hidden_size", 3072), layers: ("num_hidden_layers", 30),
                heads: ("num_attention_heads", 24), epsilon: ("norm_epsilon", 1e-5), vocabularySize: 49152,
                isTied: true, endToken: 50256),
            projections: .separate, output: "o_proj")
        // Published files have them; transformers computes the usual values only.
        try read.refuse("norm_type", unless: ["layer_norm"])
        try read.refuse("mlp_type", unless: ["default"])
        guard json["layer_types"] ?? .null == .null else {
            throw PEFTError(
                "config.json: 'layer_types' is set, but all layers of a StarCoder2 are alike",
                remedy: "remove 'layer_types'")
        }
        settings.attention.headSize = try read.integer("head_dim", .headSize, default: settings.attention.headSize)
        try settings.readKeyHeads(read, "num_key_value_heads", default: 2)
        settings.feedForwardSize = try read.integer("intermediate_size", .width, default: 12288)
        settings.activation = try read.activation("hidden_act", default: "gelu_pytorch_tanh")
        let hasBias = try read.boolean("use_bias", default: true)
        settings.hasFeedForwardBias = hasBias
        (settings.attention.hasInputBias, settings.attention.hasOutputBias) = (hasBias, hasBias)
        settings.attention.window = try read.optionalInteger("sliding_window", default: nil)
        settings.attention.rotary = try RotaryPositions(read, headSize: settings.attention.headSize)
        settings.attention.dropout = try read.number("attention_dropout", default: 0)
        settings.embeddingDropout = try read.number("embedding_dropout", default: 0)
        let dropout = try read.number("residual_dropout", default: 0)
        settings.dropouts = Dropouts(attention: dropout, feedForward: dropout)
        return settings
    }
}
