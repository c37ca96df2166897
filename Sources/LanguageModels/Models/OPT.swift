import PEFTSupport
import Torch

extension ModelFamily {
    /// OPT (Zhang et al. 2022): learned positions, ReLU, and norms before the sublayers or, in OPT-350m, after them;
    /// Galactica (Taylor et al. 2022) has neither biases nor scales of norms.
    static let opt = ModelFamily(
        name: "opt", constructor: .generator { try LayerNormDecoder(.opt($0, $1)) },
        modules: ModuleNames(
            prefix: "model", embedding: "decoder.embed_tokens", output: .projection("lm_head"),
            attention: ["self_attn"], feedForward: ["fc1", "fc2", "project_in", "project_out"], unquantized: []),
        tokenTypes: .none,
        // Hugging Face has no norms for OPT.
        adapterTargets: AdapterTargets(
            lora: .named(["q_proj", "v_proj"]),
            adaLoRA: .named(["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]),
            ia3: .named(["q_proj", "k_proj", "fc2"]), ia3FeedForward: ["fc2"],
            norms: ["self_attn_layer_norm", "final_layer_norm"]),
        gguf: .none)
}

extension LayerNormDecoderConfiguration {
    static func opt(_ json: JSON, _ family: ModelFamily) throws -> Self {
        let read = ConfigurationReader(json: json)
        var settings = try Self(
            read, json, family,
            names: Names(
                stack: "model.decoder", layers: "layers", finalNorm: "final_layer_norm", attention: "self_attn",
                attentionNorm: "self_attn_layer_norm", feedForwardNorm: "final_layer_norm", feedForward: "",
                up: "fc1", down: "fc2"),
            keys: Keys(
                hiddenSize: ("hidden_size", 768), layers: ("num_hidden_layers", 12),
                heads: ("num_attention_heads", 12),
                vocabularySize: 50272, isTied: true, endToken: 2),
            projections: .separate, output: "out_proj")
        settings.epsilon = 1e-5
        guard try read.number("layerdrop", default: 0) == 0 else {
            throw PEFTError(
                "config.json: 'layerdrop' is not 0, which is not supported", remedy: "set it to 0 to train all layers"
            )
        }
        let positions = try read.integer("max_position_embeddings", .length, default: 2048)
        settings.positions = (positions, 2)
        settings.positionLimit = positions
        settings.feedForwardSize = try read.integer("ffn_dim", .width, default: 3072)
        settings.embeddingSize =
            try read.optionalInteger("word_embed_proj_dim", default: nil) ?? settings.hiddenSize
        settings.activation = try read.activation("activation_function", default: "relu")
        let isBefore = try read.boolean("do_layer_norm_before", default: true)
        settings.residual = isBefore ? .sequential : .afterNorms
        // Files of early versions of transformers lack the last norm.
        settings.hasFinalNorm = try isBefore && !read.boolean("_remove_final_layer_norm", default: false)
        settings.areNormsAffine = try read.boolean("layer_norm_elementwise_affine", default: true)
        let hasBias = try read.boolean("enable_bias", default: true)
        settings.hasFeedForwardBias = hasBias
        (settings.attention.hasInputBias, settings.attention.hasOutputBias) = (hasBias, hasBias)
        settings.attention.dropout = try read.number("attention_dropout", default: 0)
        let dropout = try read.number("dropout", default: 0.1)
        settings.dropouts = Dropouts(attention: dropout, feedForward: dropout)
        return settings
    }
}
