import PEFTSupport
import Torch

extension ModelFamily {
    /// Phi-1 to Phi-2 (Gunasekar et al. 2023; Li et al. 2023): parallel sublayers with one norm, RoPE over a part of each
    /// head, and biases everywhere.
    static let phi = ModelFamily(
        name: "phi", constructor: .generator { try LayerNormDecoder(.phi($0, $1)) },
        modules: .llama, tokenTypes: .none,
        // Hugging Face has no AdaLoRA defaults for Phi; these are LoRA's.
        adapterTargets: AdapterTargets(
            lora: .named(["q_proj", "v_proj", "fc1", "fc2"]), adaLoRA: .named(["q_proj", "v_proj", "fc1", "fc2"]),
            ia3: .named(["q_proj", "v_proj", "fc2"]), ia3FeedForward: ["fc2"],
            norms: ["input_layernorm", "final_layernorm"], vera: .named(["q_proj", "v_proj"])),
        gguf: .architecture(.phi))
}

extension GGUFArchitecture {
    static let phi = GGUFArchitecture(
        name: "phi2", modelClass: "PhiForCausalLM",
        tensors: .decoder(
            ("model", "layers", "embed_tokens", "final_layernorm"), attention: "self_attn", output: "dense",
            norms: [("attn_norm", "input_layernorm")], up: "fc1", down: "fc2"),
        pairsNeighbors: false, addsOneToNorms: false, hasRotaryFactors: false, rotatesParts: true,
        epsilon: ("attention.layer_norm_epsilon", "layer_norm_eps"),
        decoder: GGUFDecoderForm(
            activation: .geluTanh, residuals: [.parallelWithSharedNorm], hasInputBias: true, hasBiases: true,
            allowsTying: false)
    ) { _, _ in ["hidden_act": "gelu_new"] }
}

extension LayerNormDecoderConfiguration {
    static func phi(_ json: JSON, _ family: ModelFamily) throws -> Self {
        let read = ConfigurationReader(json: json, defaults: ["partial_rotary_factor": 0.5])
        var settings = try Self(
            read, json, family,
            names: Names(
                stack: "model", layers: "layers", finalNorm: "final_layernorm", attention: "self_attn",
                attentionNorm: "input_layernorm", feedForwardNorm: "", feedForward: "mlp", up: "fc1", down: "fc2",
                buffers: ["rotary_emb.inv_freq"]),
            keys: Keys(
                hiddenSize: ("hidden_size", 2048), layers: ("num_hidden_layers", 24),
                heads: ("num_attention_heads", 32), vocabularySize: 51200, isTied: false, endToken: 2),
            projections: .separate, output: "dense")
        settings.attention.headSize = try read.integer("head_dim", .headSize, default: settings.attention.headSize)
        try settings.readKeyHeads(read, "num_key_value_heads", default: settings.attention.heads)
        settings.feedForwardSize = try read.integer("intermediate_size", .width, default: 8192)
        settings.activation = try read.activation("hidden_act", default: "gelu_new")
        settings.residual = .parallelWithSharedNorm
        settings.hasOutputBias = true
        if try read.boolean("qk_layernorm", default: false) {
            settings.attention.headNorm = HeadNorm(kind: .shared, epsilon: settings.epsilon)
        }
        settings.attention.rotary = try RotaryPositions(
            read, headSize: settings.attention.headSize, allowsPartial: true)
        settings.attention.dropout = try read.number("attention_dropout", default: 0)
        settings.embeddingDropout = try read.number("embd_pdrop", default: 0)
        let dropout = try read.number("resid_pdrop", default: 0)
        settings.dropouts = Dropouts(attention: dropout, feedForward: dropout)
        return settings
    }
}
