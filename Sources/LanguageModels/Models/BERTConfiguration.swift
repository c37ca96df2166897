import PEFTSupport
import Torch

/// What encoders with BERT's blocks differ in, besides `config.json`.
struct BERTVariant: Sendable {
    /// Paths of the modules within the encoder, and of those of a block within the block.
    struct Names: Sendable {
        var layers = "encoder.layer"
        /// From embeddings of another size.
        var projection = "embeddings_project"
        var pooler = "pooler.dense"
        /// Where the attention's sites are.
        var attention = "attention"
        var q = "attention.self.query"
        var k = "attention.self.key"
        var v = "attention.self.value"
        var o = "attention.output.dense"
        var attentionNorm = "attention.output.LayerNorm"
        /// The gate of a gated feed-forward network.
        var gate: String?
        var up = "intermediate.dense"
        var down = "output.dense"
        var feedForwardNorm = "output.LayerNorm"
    }

    enum Positions: Sendable {
        /// A table whose first entry is the first position.
        case table
        /// A table in which positions start after the padding token's id.
        case afterPadding
        /// A table in which they start at its third entry.
        case fromTwo
        case rotary(base: Double)
    }

    var names = Names()
    var positions = Positions.table
    /// Whether norms precede the sublayers, with one more after the last layer, or follow them and the embeddings.
    var normsFirst = false
    /// Whether projections have biases.
    var hasBiases = true
    /// Whether the feed-forward network's output has dropout.
    var dropsFeedForward = true
    /// Whether embeddings are projected even if they have the hidden size.
    var alwaysProjects = false
    /// Whether a model for embeddings has a pooler.
    var pools = true
    var classifierDropoutKey = "classifier_dropout"
    /// Whether layers are shared (ALBERT).
    var sharesLayers = false
    /// Whether attention is disentangled (DeBERTa), whose embeddings are projected before their norm.
    var isDisentangled = false
    /// The activation between the two layers of a head for sequences; tanh if `nil`.
    var headActivation: Activation?
    /// Whether the attention has a relative position bias (MPNet).
    var hasRelativeBias = false
    // Values of missing keys; the embeddings have the hidden size if `embeddingSize` is `nil`.
    var vocabularySize = 30522
    var size = 768
    var embeddingSize: Int?
    var layers = 12
    var heads = 12
    var feedForwardSize = 3072
    var activation = "gelu"
    var dropout = 0.1
    var attentionDropout = 0.1
    var classifierDropout: Double?
    var positionCount = 512
    var padToken = 1
    /// `nil` without token types.
    var types: Int? = 2
    var epsilon = 1e-12
}

/// `config.json` of an encoder with BERT's blocks.
struct BERTConfiguration: EncoderConfiguration {
    let family: ModelFamily
    let variant: BERTVariant
    let vocabularySize: Int
    let size: Int
    let embeddingSize: Int
    let feedForwardSize: Int
    let layers: Int
    let heads: Int
    let headSize: Int
    let positions: Int
    /// Entry of the first token's position.
    let firstPosition: Int
    let rotary: RotaryPositions?
    /// Entries of the relative position bias.
    let relativeBuckets: Int?
    /// Number of groups of shared layers, and of layers in each.
    let groups: (count: Int, layers: Int)?
    let disentangled: DisentangledSettings?
    let types: Int
    let epsilon: Double
    let dropout: Double
    let attentionDropout: Double
    let classifierDropout: Double
    let activation: Activation
    let json: JSON

    var hasPositionTable: Bool { rotary == nil && disentangled?.hasPositionTable != false }
    var positionLimit: Int? { hasPositionTable ? positions - firstPosition : nil }

    init(_ json: JSON, _ variant: BERTVariant, family: ModelFamily) throws {
        let read = ConfigurationReader(json: json)
        (self.json, self.family, self.variant) = (json, family, variant)
        vocabularySize = try read.integer("vocab_size", .vocabulary, default: variant.vocabularySize)
        size = try read.integer("hidden_size", .width, default: variant.size)
        embeddingSize =
            try variant.embeddingSize.map { try read.integer("embedding_size", .width, default: $0) } ?? size
        layers = try read.integer("num_hidden_layers", .layers, default: variant.layers)
        heads = try read.integer("num_attention_heads", .heads, default: variant.heads)
        feedForwardSize = try read.integer("intermediate_size", .width, default: variant.feedForwardSize)
        positions = try read.integer("max_position_embeddings", .length, default: variant.positionCount)
        types =
            try variant.types.map {
                try read.integer("type_vocab_size", default: $0, in: 0...ConfigurationReader.Size.width.rawValue)
            } ?? 0
        epsilon = try read.number("layer_norm_eps", default: variant.epsilon)
        dropout = try read.number("hidden_dropout_prob", default: variant.dropout)
        attentionDropout = try read.number("attention_probs_dropout_prob", default: variant.attentionDropout)
        classifierDropout = try read.number(
            variant.classifierDropoutKey, default: variant.classifierDropout ?? dropout)
        activation = try read.activation("hidden_act", default: variant.activation)
        guard size.isMultiple(of: heads) else {
            throw PEFTError(
                "config.json: the hidden size \(size) isn't divisible by \(heads) heads",
                remedy: "check 'num_attention_heads'")
        }
        switch variant.positions {
        case .table: (firstPosition, rotary, headSize) = (0, nil, size / heads)
        case .fromTwo: (firstPosition, rotary, headSize) = (2, nil, size / heads)
        case .afterPadding:
            let pad = try read.integer("pad_token_id", default: variant.padToken, in: 0...1_000_000_000)
            (firstPosition, rotary, headSize) = (pad + 1, nil, size / heads)
        case .rotary(let base):
            headSize = try read.integer("head_dim", .headSize, default: size / heads)
            (firstPosition, rotary) = (0, try RotaryPositions(read, headSize: headSize, base: base))
        }
        relativeBuckets =
            variant.hasRelativeBias
            ? try read.integer("relative_attention_num_buckets", default: 32, in: 32...1_000_000) : nil
        disentangled = variant.isDisentangled ? try DisentangledSettings(read, positions: positions) : nil
        groups = variant.sharesLayers ? try Self.groups(read, layers: layers) : nil
        try Self.refuseDecoders(read)
    }

    private static func groups(_ read: ConfigurationReader, layers: Int) throws -> (count: Int, layers: Int) {
        let count = try read.integer("num_hidden_groups", .layers, default: 1)
        guard count <= layers else {
            throw PEFTError(
                "config.json: 'num_hidden_groups' is \(count), but there are \(layers) layers",
                remedy: "use at most one group per layer")
        }
        return (count, try read.integer("inner_group_num", .layers, default: 1))
    }

    private static func refuseDecoders(_ read: ConfigurationReader) throws {
        for key in ["is_decoder", "add_cross_attention"] { try read.refuse(key, unless: [false]) }
        let kind = try read.string("position_embedding_type", default: "absolute")
        guard kind == "absolute" else {
            throw PEFTError(
                "config.json: 'position_embedding_type' is '\(kind)', which is not supported",
                remedy: "use a model with absolute positions")
        }
    }
}

extension ConfigurationReader {
    /// An activation by Hugging Face's name; GELU by default.
    func activation(_ key: String) throws -> Activation { try activation(key, default: "gelu") }
}
