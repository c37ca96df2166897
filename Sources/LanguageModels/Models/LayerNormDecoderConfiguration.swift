import PEFTSupport
import Torch
import TorchNN

/// What a family of ``LayerNormDecoder`` reads from `config.json`.
struct LayerNormDecoderConfiguration: CausalConfiguration {
    /// How the sublayers of a block are connected.
    enum Residual: Sendable {
        /// x + attention(norm(x)), then x + feedForward(norm(x)).
        case sequential
        /// The same with norm(x) in place of the first x (BLOOM's `apply_residual_connection_post_layernorm`).
        case sequentialFromNorms
        /// norm(x + attention(x)), then norm(x + feedForward(x)), as in Vaswani et al. 2017.
        case afterNorms
        /// x + attention(norm(x)) + feedForward(norm'(x)) (Wang & Komatsuzaki 2021, GPT-J).
        case parallel
        /// The same with one norm.
        case parallelWithSharedNorm
    }

    /// Dropout probabilities of the sublayers' outputs.
    struct Dropouts: Sendable {
        var attention = 0.0
        var feedForward = 0.0
        /// Whether in a parallel block the sum of both outputs has the dropout of the feed-forward network.
        var areOfTheSum = false
    }

    /// Names of the modules, where they aren't those of ``ModuleNames``.
    struct Names: Sendable {
        /// Path of the layers' parent.
        var stack: String
        var layers: String
        /// Norm of the embedded input, if the family has one.
        var embeddingNorm: String?
        var finalNorm: String
        var attention: String
        var attentionNorm: String
        var feedForwardNorm: String
        /// Empty if its projections are the block's.
        var feedForward: String
        var gate: String?
        var up: String
        var down: String
        /// Endings of the names of buffers that published files contain.
        var buffers: [String] = []
        /// Older names of the outermost modules.
        var older: [(old: String, new: String)] = []

        /// The current name of a tensor.
        func current(_ name: String) -> String {
            older.first { name.hasPrefix($0.old + ".") }.map { $0.new + name.dropFirst($0.old.count) } ?? name
        }
    }

    let family: ModelFamily
    let json: JSON
    var names: Names
    let vocabularySize: Int
    let hiddenSize: Int
    /// Size of the embeddings.
    var embeddingSize: Int
    var feedForwardSize: Int
    let layers: Int
    let isTied: Bool
    let endTokens: [Int]
    var attention: DecoderAttention.Settings
    var activation = Activation.gelu
    var hasFeedForwardBias = true
    var hasOutputBias = false
    var residual = Residual.sequential
    var epsilon: Double
    /// Whether norms have a scale and a shift.
    var areNormsAffine = true
    var hasFinalNorm = true
    /// Learned positions, the first of which is row `offset` of the table.
    var positions: (count: Int, offset: Int)?
    var positionLimit: Int?
    var linearBiases: LinearBiases?
    var embeddingDropout = 0.0
    var dropouts = Dropouts()

    func norm() -> LayerNorm {
        LayerNorm(hiddenSize, epsilon: epsilon, hasScale: areNormsAffine, hasBias: areNormsAffine)
    }

    /// Keys of sizes and norms, and the values of those that the file lacks.
    struct Keys {
        var hiddenSize = (key: "hidden_size", default: 0)
        var layers = (key: "num_hidden_layers", default: 0)
        var heads = (key: "num_attention_heads", default: 0)
        var epsilon = (key: "layer_norm_eps", default: 1e-5)
        var vocabularySize: Int
        var isTied: Bool
        var endToken: Int
    }

    /// Reads what all families have; the feed-forward network has four times the hidden size.
    ///
    /// - Parameters:
    ///   - keyHeads: number of key-value heads; `nil` for as many as query heads.
    ///   - headSize: size of a head, from the hidden size and the number of heads.
    init(
        _ read: ConfigurationReader, _ json: JSON, _ family: ModelFamily, names: Names, keys: Keys,
        projections: DecoderAttention.Projections, output: String
    ) throws {
        (self.family, self.json, self.names) = (family, json, names)
        vocabularySize = try read.integer("vocab_size", .vocabulary, default: keys.vocabularySize)
        hiddenSize = try read.integer(keys.hiddenSize.key, .width, default: keys.hiddenSize.default)
        layers = try read.integer(keys.layers.key, .layers, default: keys.layers.default)
        let heads = try read.integer(keys.heads.key, .heads, default: keys.heads.default)
        isTied = try read.boolean("tie_word_embeddings", default: keys.isTied)
        endTokens = try read.tokens("eos_token_id", default: [keys.endToken])
        epsilon = try read.number(keys.epsilon.key, default: keys.epsilon.default)
        guard hiddenSize.isMultiple(of: heads) else {
            throw PEFTError(
                "config.json: the hidden size \(hiddenSize) isn't divisible by \(heads) heads"
                    + " ('\(keys.heads.key)')",
                remedy: "make '\(keys.hiddenSize.key)' a multiple of '\(keys.heads.key)'")
        }
        (embeddingSize, feedForwardSize) = (hiddenSize, 4 * hiddenSize)
        attention = DecoderAttention.Settings(
            hiddenSize: hiddenSize, heads: heads, keyHeads: heads, headSize: hiddenSize / heads,
            projections: projections, output: output)
    }

    /// Rejects a head size that isn't the hidden size divided by the heads.
    func refuseOtherHeadSize(_ read: ConfigurationReader) throws {
        guard try read.integer("head_dim", .headSize, default: attention.headSize) == attention.headSize else {
            throw PEFTError(
                "config.json: 'head_dim' is \(read.json["head_dim"]?.text(indent: nil) ?? ""), but the heads of this"
                    + " family have the hidden size divided by their number, \(attention.headSize)",
                remedy: "remove 'head_dim'")
        }
    }

    /// Reads the number of key-value heads.
    mutating func readKeyHeads(_ read: ConfigurationReader, _ key: String, default fallback: Int) throws {
        let isNull = read.json[key] == .null
        let count = try isNull ? attention.heads : read.integer(key, .heads, default: fallback)
        guard attention.heads.isMultiple(of: count) else {
            throw PEFTError(
                "config.json: \(attention.heads) attention heads aren't divisible by \(count) key-value heads",
                remedy: "make 'num_attention_heads' a multiple of '\(key)'")
        }
        attention.keyHeads = count
    }
}

extension ConfigurationReader {
    /// The first of two names of a key if the file has it, otherwise the second.
    func present(_ key: String, or other: String) -> String { json[key] ?? .null == .null ? other : key }

    /// Rejects a value of a key that changes the computation and that isn't implemented.
    func refuse(_ key: String, unless expected: [JSON]) throws {
        guard let value = json[key], value != .null, !expected.contains(value) else { return }
        throw PEFTError(
            "config.json: '\(key)' is \(value.text(indent: nil)), which is not supported",
            remedy: "use \(expected.map { $0.text(indent: nil) }.joined(separator: " or "))")
    }
}
