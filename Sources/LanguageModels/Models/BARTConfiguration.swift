import PEFTSupport
import Torch

/// What ``BART`` and its relatives differ in, besides `config.json`.
struct BARTVariant: Sendable {
    var positions: SinusoidalPositions.Kind
    /// Whether norms precede the sublayers, with one more after the last layer, or follow them.
    var normsFirst: Bool
    /// Whether the embedded input has a norm.
    var hasEmbeddingNorm: Bool
    var hasLogitsBias = true
    /// Whether transformers has a classification head for the family.
    var classifies = false
    /// Whether a training example's decoder input begins with its last target token.
    var startsWithLastToken = false
    /// Whether the family has `forced_eos_token_id`, whose value is ``endToken`` if the key is missing.
    var hasForcedEnd = true
    /// Values of missing keys.
    var vocabularySize = 50265
    var activation = "gelu"
    var attentionDropout = 0.0
    var layerDrop = 0.0
    var scalesEmbedding = false
    var padToken = 1
    var endToken = 2
    /// The token with which the decoder starts.
    var startToken = 2
}

/// `config.json` of ``BART`` and its relatives.
struct BARTConfiguration: EncoderDecoderConfiguration {
    /// Sizes of one of the two stacks.
    struct Stack: Sendable {
        let layers: Int
        let heads: Int
        let feedForwardSize: Int
        /// Probability with which a training step leaves a layer out.
        let layerDrop: Double
    }

    static let epsilon = 1e-5
    let family: ModelFamily
    let variant: BARTVariant
    let vocabularySize: Int
    let modelSize: Int
    let encoder: Stack
    let decoder: Stack
    let positions: Int
    let dropout: Double
    let attentionDropout: Double
    let activationDropout: Double
    /// Dropout probability of the classification head.
    let classifierDropout: Double
    let activation: Activation
    /// Factor of the embeddings.
    let embeddingScale: Double
    let isTied: Bool
    let padToken: Int
    let endTokens: [Int]
    let startToken: Int
    let forcedEndTokens: [Int]
    let json: JSON

    var startsWithLastToken: Bool { variant.startsWithLastToken }
    /// M2M-100's positions grow with the text.
    var positionLimit: Int? { variant.positions == .shifted ? nil : positions }

    init(_ json: JSON, _ variant: BARTVariant, family: ModelFamily) throws {
        let read = ConfigurationReader(json: json)
        (self.json, self.family, self.variant) = (json, family, variant)
        vocabularySize = try read.integer("vocab_size", .vocabulary, default: variant.vocabularySize)
        let size = try read.integer("d_model", .width, default: 1024)
        modelSize = size
        func stack(_ name: String) throws -> Stack {
            let heads = try read.integer("\(name)_attention_heads", .heads, default: 16)
            guard size.isMultiple(of: heads) else {
                throw PEFTError(
                    "config.json: 'd_model' is \(size), which isn't divisible by \(heads) heads"
                        + " ('\(name)_attention_heads')",
                    remedy: "make 'd_model' a multiple of '\(name)_attention_heads'")
            }
            return try Stack(
                layers: read.integer("\(name)_layers", .layers, default: 12), heads: heads,
                feedForwardSize: read.integer("\(name)_ffn_dim", .width, default: 4096),
                layerDrop: read.probability("\(name)_layerdrop", default: variant.layerDrop))
        }
        (encoder, decoder) = try (stack("encoder"), stack("decoder"))
        positions = try read.integer("max_position_embeddings", .length, default: 1024)
        dropout = try read.probability("dropout", default: 0.1)
        attentionDropout = try read.probability("attention_dropout", default: variant.attentionDropout)
        activationDropout = try read.probability("activation_dropout", default: 0)
        classifierDropout = try variant.classifies ? read.probability("classifier_dropout", default: 0) : 0
        activation = try read.activation("activation_function", default: variant.activation)
        let isScaled = try read.boolean("scale_embedding", default: variant.scalesEmbedding)
        embeddingScale = isScaled ? Double(size).squareRoot() : 1
        isTied = try read.boolean("tie_word_embeddings", default: true)
        padToken = try read.integer("pad_token_id", default: variant.padToken, in: 0...1_000_000_000)
        endTokens = try read.tokens("eos_token_id", default: [variant.endToken])
        startToken = try read.integer(
            "decoder_start_token_id", default: variant.startToken, in: 0...1_000_000_000)
        let hasForcedEnd = variant.hasForcedEnd && json["forced_eos_token_id"] != .null
        forcedEndTokens = hasForcedEnd ? try read.tokens("forced_eos_token_id", default: [variant.endToken]) : []
        // transformers counts the positions of such a decoder without its first token.
        guard variant.positions != .shifted || startToken != padToken else {
            throw PEFTError(
                "config.json: 'decoder_start_token_id' is \(startToken), as 'pad_token_id', which is not supported in this"
                    + " family",
                remedy: "set both as the model was trained; published models start with the end token")
        }
        guard variant.positions != .shifted || size >= 4 else {
            throw PEFTError("config.json: 'd_model' is \(size)", remedy: "use at least 4")
        }
    }
}

extension ConfigurationReader {
    /// A probability of dropout.
    func probability(_ key: String, default fallback: Double) throws -> Double {
        let value = try number(key, default: fallback)
        guard value >= 0, value < 1 else {
            throw PEFTError("config.json: '\(key)' is \(value)", remedy: "use a value of at least 0 and below 1")
        }
        return value
    }
}

extension ModuleNames {
    static let bart = ModuleNames(
        prefix: "model", embedding: "shared", output: .projection("lm_head"),
        attention: ["self_attn", "encoder_attn"], feedForward: ["fc1", "fc2"], unquantized: [])
}

extension AdapterTargets {
    static let bart = AdapterTargets(
        lora: .named(["q_proj", "v_proj"]),
        adaLoRA: .named(["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]),
        ia3: .named(["q_proj", "v_proj", "fc2"]), ia3FeedForward: ["fc2"],
        norms: ["self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"])
}

extension ModelFamily {
    private static func bart(_ name: String, _ variant: BARTVariant) -> ModelFamily {
        ModelFamily(
            name: name, constructor: .generator { BART(try BARTConfiguration($0, variant, family: $1)) },
            modules: .bart, tokenTypes: .none, adapterTargets: .bart, gguf: .none)
    }

    static let bart = bart(
        "bart", BARTVariant(positions: .learned, normsFirst: false, hasEmbeddingNorm: true, classifies: true))

    /// mBART and mBART-50: a BART with norms before the sublayers.
    static let mBART = bart(
        "mbart",
        BARTVariant(
            positions: .learned, normsFirst: true, hasEmbeddingNorm: true, classifies: true,
            startsWithLastToken: true,
            startToken: 0))

    static let pegasus = bart(
        "pegasus",
        BARTVariant(
            positions: .plain, normsFirst: true, hasEmbeddingNorm: false, padToken: 0, endToken: 1, startToken: 0))

    static let m2m100 = bart(
        "m2m_100",
        BARTVariant(
            positions: .shifted, normsFirst: true, hasEmbeddingNorm: false, hasLogitsBias: false, hasForcedEnd: false,
            vocabularySize: 128_112, activation: "relu", attentionDropout: 0.1, layerDrop: 0.05,
            scalesEmbedding: true))
}
