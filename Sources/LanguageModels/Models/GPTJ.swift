import PEFTSupport
import Torch

extension ModelFamily {
    /// GPT-J (Wang & Komatsuzaki 2021): parallel sublayers with one norm, and RoPE over neighboring dimensions of a part
    /// of each head.
    static let gptJ = ModelFamily(
        name: "gptj", constructor: .generator { try LayerNormDecoder(.gptJ($0, $1)) },
        modules: ModuleNames(
            prefix: "transformer", embedding: "wte", output: .projection("lm_head"), attention: ["attn"],
            feedForward: ["mlp"], unquantized: []),
        tokenTypes: .none,
        adapterTargets: AdapterTargets(
            lora: .named(["q_proj", "v_proj"]), adaLoRA: .named(["q_proj", "v_proj"]),
            ia3: .named(["q_proj", "v_proj", "fc_out"]), ia3FeedForward: ["fc_out"], norms: ["ln_1", "ln_f"]),
        gguf: .none)
}

extension LayerNormDecoderConfiguration {
    static func gptJ(_ json: JSON, _ family: ModelFamily) throws -> Self {
        let read = ConfigurationReader(json: json)
        var settings = try Self(
            read, json, family,
            names: Names(
                stack: "transformer", layers: "h", finalNorm: "ln_f", attention: "attn", attentionNorm: "ln_1",
                feedForwardNorm: "", feedForward: "mlp", up: "fc_in", down: "fc_out",
                buffers: [".attn.bias", ".attn.masked_bias"]),
            keys: Keys(
                hiddenSize: (read.present("hidden_size", or: "n_embd"), 4096),
                layers: (read.present("num_hidden_layers", or: "n_layer"), 28),
                heads: (read.present("num_attention_heads", or: "n_head"), 16), epsilon: ("layer_norm_epsilon", 1e-5),
                vocabularySize: 50400, isTied: false, endToken: 50256),
            projections: .separate, output: "out_proj")
        if read.json["n_inner"] ?? .null != .null { settings.feedForwardSize = try read.integer("n_inner", .width) }
        settings.activation = try read.activation("activation_function", default: "gelu_new")
        settings.residual = .parallelWithSharedNorm
        settings.hasOutputBias = true
        (settings.attention.hasInputBias, settings.attention.hasOutputBias) = (false, false)
        // Angles come from a table of so many positions.
        let positions = try read.integer(
            read.present("max_position_embeddings", or: "n_positions"), .length, default: 2048)
        settings.positionLimit = positions
        guard read.json["rotary_dim"] != .null else {
            throw PEFTError(
                "config.json: 'rotary_dim' is null, which is not supported",
                remedy: "use the number of dimensions of a head that RoPE rotates")
        }
        let rotated = try read.integer("rotary_dim", default: 64, in: 2...max(2, settings.attention.headSize))
        guard settings.attention.headSize >= 2 else {
            throw PEFTError(
                "config.json: 'n_embd' gives heads of one dimension, which RoPE can't rotate",
                remedy: "use fewer heads")
        }
        settings.attention.rotary = try RotaryPositions(
            RotaryPositions.Settings(
                parameters: nil, kind: "default", base: 10_000, size: rotated, positions: positions,
                pairsNeighbors: true))
        settings.attention.dropout = try read.number("attn_pdrop", default: 0)
        settings.embeddingDropout = try read.number("embd_pdrop", default: 0)
        let dropout = try read.number("resid_pdrop", default: 0)
        settings.dropouts = Dropouts(attention: dropout, feedForward: dropout)
        return settings
    }
}
