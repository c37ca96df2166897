import PEFTSupport
import Torch

extension ModelFamily {
    /// StableLM (Bellagente et al. 2024): a Llama with layer norms and RoPE over a part of each head, and in some models
    /// norms of each query and key head and parallel sublayers.
    static let stableLM = ModelFamily(
        name: "stablelm", constructor: .generator { try LayerNormDecoder(.stableLM($0, $1)) },
        modules: .llama, tokenTypes: .none,
        // Hugging Face has LoRA's defaults only; the others are Llama's.
        adapterTargets: AdapterTargets(
            lora: .named(["q_proj", "v_proj"]), adaLoRA: .named(["q_proj", "v_proj"]),
            ia3: .named(["k_proj", "v_proj", "down_proj"]), ia3FeedForward: ["down_proj"],
            norms: ["input_layernorm", "post_attention_layernorm", "norm"]),
        gguf: .architecture(.stableLM))
}

extension GGUFArchitecture {
    static let stableLM = GGUFArchitecture(
        name: "stablelm", modelClass: "StableLmForCausalLM",
        tensors: .decoder(
            ("model", "layers", "embed_tokens", "norm"), attention: "self_attn", output: "o_proj",
            norms: [("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")], up: "up_proj",
            down: "down_proj", others: [("ffn_gate", "mlp.gate_proj")],
            stacks: ["q", "k"].map { ("attn_\($0)_norm", "self_attn.\($0)_layernorm.norms") }),
        pairsNeighbors: false, addsOneToNorms: false, hasRotaryFactors: false, rotatesParts: true,
        epsilon: ("attention.layer_norm_epsilon", "layer_norm_eps"),
        decoder: GGUFDecoderForm(
            activation: .silu, residuals: [.sequential, .parallelWithSharedNorm], hasBiases: false,
            allowsTying: false, headNorm: .separate
        ) { settings, description in
            description.add("use_parallel_residual", .flag(settings.residual != .sequential))
        }
    ) { read, _ in
        // llama.cpp's sublayers are parallel if there is no second norm.
        [
            "hidden_act": "silu", "use_parallel_residual": .bool(!read.hasTensor("blk.0.ffn_norm.weight")),
            "use_qkv_bias": .bool(read.hasTensor("blk.0.attn_q.bias")),
            "qk_layernorm": .bool(read.hasTensor("blk.0.attn_q_norm.weight")),
        ]
    }
}

extension LayerNormDecoderConfiguration {
    static func stableLM(_ json: JSON, _ family: ModelFamily) throws -> Self {
        let read = ConfigurationReader(
            json: json, defaults: ["partial_rotary_factor": 0.25, "max_position_embeddings": 4096])
        var settings = try Self(
            read, json, family,
            names: Names(
                stack: "model", layers: "layers", finalNorm: "norm", attention: "self_attn",
                attentionNorm: "input_layernorm", feedForwardNorm: "post_attention_layernorm", feedForward: "mlp",
                gate: "gate_proj", up: "up_proj", down: "down_proj", buffers: ["rotary_emb.inv_freq"]),
            keys: Keys(
                hiddenSize: ("hidden_size", 2560), layers: ("num_hidden_layers", 32),
                heads: ("num_attention_heads", 32), vocabularySize: 50304, isTied: false, endToken: 0),
            projections: .separate, output: "o_proj")
        try settings.refuseOtherHeadSize(read)
        try settings.readKeyHeads(read, "num_key_value_heads", default: 32)
        settings.feedForwardSize = try read.integer("intermediate_size", .width, default: 6912)
        settings.activation = try read.activation("hidden_act", default: "silu")
        settings.hasFeedForwardBias = false
        settings.residual =
            try read.boolean("use_parallel_residual", default: false) ? .parallelWithSharedNorm : .sequential
        settings.attention.hasInputBias = try read.boolean("use_qkv_bias", default: false)
        settings.attention.hasOutputBias = false
        if try read.boolean("qk_layernorm", default: false) {
            settings.attention.headNorm = HeadNorm(kind: .separate, epsilon: settings.epsilon)
        }
        settings.attention.rotary = try RotaryPositions(
            read, headSize: settings.attention.headSize, allowsPartial: true)
        settings.attention.dropout = try read.number("attention_dropout", default: 0)
        settings.dropouts = Dropouts(feedForward: try read.number("hidden_dropout", default: 0))
        return settings
    }
}
