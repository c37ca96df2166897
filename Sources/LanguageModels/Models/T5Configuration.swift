import PEFTSupport
import Torch

/// `config.json` of a T5: v1.0 (ReLU, tied), v1.1 and FLAN (gated GELU, untied), tied gated models, mT5 and UMT5.
package struct T5Configuration: EncoderDecoderConfiguration {
    package let family: ModelFamily
    package let vocabularySize: Int
    /// Size of the hidden states.
    package let modelSize: Int
    /// Size of one attention head; heads · headSize need not equal modelSize.
    package let headSize: Int
    package let feedForwardSize: Int
    package let encoderLayers: Int
    package let decoderLayers: Int
    package let heads: Int
    /// Number of buckets of the relative position bias.
    package let relativeBuckets: Int
    /// Distance from which on all positions share the last bucket.
    package let relativeMaximumDistance: Int
    package let dropout: Double
    package let epsilon: Double
    package let activation: Activation
    /// Whether the feed-forward network is gated.
    package let isGated: Bool
    /// Whether the output layer is tied to the embedding.
    package var isTied: Bool
    /// Whether hidden states are scaled by modelSize^−½ before the output layer, as in v1.0.
    package let scalesOutput: Bool
    package let padToken: Int
    package let endTokens: [Int]
    package let startToken: Int
    let startsWithLastToken = false
    let forcedEndTokens: [Int] = []
    /// Whether each layer has a position bias of its own (UMT5), and not the first layer's.
    let hasBiasInEachLayer: Bool
    package let json: JSON

    enum Variant {
        case t5
        /// Other defaults, and hidden states are never scaled.
        case mt5
        /// mT5's defaults, and position biases in each layer.
        case umt5
    }

    init(_ json: JSON, _ variant: Variant, family: ModelFamily) throws {
        let isMultilingual = variant != .t5
        hasBiasInEachLayer = variant == .umt5
        let read = ConfigurationReader(json: json)
        (self.json, self.family) = (json, family)
        vocabularySize = try read.integer("vocab_size", .vocabulary, default: isMultilingual ? 250_112 : 32128)
        modelSize = try read.integer("d_model", .width, default: 512)
        headSize = try read.integer("d_kv", .headSize, default: 64)
        feedForwardSize = try read.integer("d_ff", .width, default: isMultilingual ? 1024 : 2048)
        encoderLayers = try read.integer("num_layers", .layers, default: isMultilingual ? 8 : 6)
        decoderLayers = try read.integer("num_decoder_layers", .layers, default: encoderLayers)
        heads = try read.integer("num_heads", .heads, default: isMultilingual ? 6 : 8)
        relativeBuckets = try read.integer("relative_attention_num_buckets", default: 32, in: 4...1_000_000)
        relativeMaximumDistance = try read.integer("relative_attention_max_distance", .length, default: 128)
        guard relativeMaximumDistance > relativeBuckets / 2 else {
            throw PEFTError(
                "config.json: 'relative_attention_max_distance' is \(relativeMaximumDistance)",
                remedy: "use more than half of 'relative_attention_num_buckets' (\(relativeBuckets))")
        }
        dropout = try read.number("dropout_rate", default: 0.1)
        epsilon = try read.number("layer_norm_epsilon", default: 1e-6)
        let projection = try read.string("feed_forward_proj", default: isMultilingual ? "gated-gelu" : "relu")
        isGated = projection.hasPrefix("gated-")
        // "gated-gelu" has always meant the tanh approximation; other names are literal.
        let name = projection == "gated-gelu" ? "gelu_new" : String(projection.dropFirst(isGated ? 6 : 0))
        guard let activation = Activation(huggingFaceName: name) else {
            throw PEFTError(
                "config.json: 'feed_forward_proj' is '\(projection)', which is not supported",
                remedy: "use relu, gelu, silu or their gated- forms")
        }
        self.activation = activation
        isTied = try read.boolean("tie_word_embeddings", default: true)
        // Newer files specify it; in older ones the tied models are the ones that scale. An mT5 never does.
        scalesOutput = try variant != .mt5 && read.boolean("scale_decoder_outputs", default: isTied)
        padToken = try read.integer("pad_token_id", default: 0, in: 0...1_000_000_000)
        endTokens = try read.tokens("eos_token_id", default: [1])
        startToken = try read.integer("decoder_start_token_id", default: padToken, in: 0...1_000_000_000)
        guard dropout >= 0, dropout < 1 else {
            throw PEFTError(
                "config.json: 'dropout_rate' is \(dropout)", remedy: "use a value of at least 0 and below 1")
        }
    }
}

extension ModelFamily {
    static let t5 = ModelFamily(
        name: "t5",
        constructor: .generator { try T5(T5Configuration($0, .t5, family: $1)) },
        modules: .t5(scaleKey: "scale_decoder_outputs"), tokenTypes: .none,
        adapterTargets: AdapterTargets(
            lora: .named(["q", "v"]), adaLoRA: .named(["q", "k", "v", "o", "wi", "wo"]),
            ia3: .named(["k", "v", "wo"]), ia3FeedForward: ["wo"], norms: ["layer_norm", "final_layer_norm"]),
        gguf: .none)
}

extension ModuleNames {
    /// - Parameter scaleKey: as in ``OutputName/tiedIfMissing(_:scaleKey:)``.
    static func t5(scaleKey: String?) -> ModuleNames {
        ModuleNames(
            prefix: "", embedding: "shared", output: .tiedIfMissing("lm_head", scaleKey: scaleKey),
            attention: ["SelfAttention", "EncDecAttention"], feedForward: ["DenseReluDense"],
            // transformers never quantizes these projections, whose outputs are large.
            unquantized: ["wo"])
    }
}
