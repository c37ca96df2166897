import PEFTSupport
import TorchNN

/// Where families that share Llama's layers differ, as their `config.json` is read.
struct LlamaVariant: Sendable {
    /// Values of keys that a `config.json` lacks, if they aren't Llama's.
    var defaults: [String: JSON] = [:]
    /// Default number of key-value heads; `nil` for as many as query heads.
    let keyHeads: Int?
    /// Default size of a head; `nil` for the hidden size divided by the number of heads.
    let headSize: Int?
    let qkvBias: Bias
    let outputBias: Bias
    let feedForwardBias: Bias
    let queryNorms: QueryNorms
    var blockNorms = BlockNorms.llama
    var feedForward = FeedForwardKind.gated
    /// Name of the feed-forward network in the checkpoint.
    var feedForwardKey = "mlp"
    /// Name of the last norm in the checkpoint.
    var normKey = "norm"
    /// Key of the norms' ε.
    var epsilonKey = "rms_norm_eps"
    var attentionNames = GroupedQueryAttention.Names()
    /// Reads the experts of that many layers; `nil` for a dense family.
    var experts: @Sendable (ConfigurationReader, Int) throws -> ExpertSettings? = { _, _ in nil }
    /// Reads latent attention; `nil` for grouped-query attention.
    var latent: @Sendable (ConfigurationReader) throws -> LatentAttention.Settings? = { _ in nil }
    /// RoPE of the full-attention layers and of the sliding-window layers, for heads of that size.
    var rotary: @Sendable (ConfigurationReader, Int) throws -> (full: RotaryPositions, local: RotaryPositions?) = {
        (try RotaryPositions($0, headSize: $1), nil)
    }
    /// Reads what only this family has.
    var details: @Sendable (ConfigurationReader, Int) throws -> LlamaDetails = { _, _ in LlamaDetails() }
    /// The sliding-window size of each of so many layers; `nil` for full attention.
    let windows: @Sendable (ConfigurationReader, Int) throws -> [Int?]

    enum Bias: Sendable {
        case always, never
        /// A key of `config.json` says so, false by default.
        case configured(String)

        func isPresent(_ read: ConfigurationReader) throws -> Bool {
            switch self {
            case .always: true
            case .never: false
            case .configured(let key): try read.boolean(key, default: false)
            }
        }
    }
}

/// Values of `config.json` that few families have; by default those of a Llama, which has none of them.
struct LlamaDetails: Sendable {
    /// Factor of the embedded input, virtual tokens included.
    var inputScale = 1.0
    /// Factor of each sublayer's output before it joins the residual stream.
    var residualScale = 1.0
    /// Factor of the attention scores; headSize^−½ by default.
    var attentionScale: Double?
    /// Factor of the logits.
    var outputScale = 1.0
    /// Dropout probability of each sublayer's output.
    var residualDropout = 0.0
    /// Growth of the queries with their position.
    var queryGrowth: QueryGrowth?
    /// Norms of queries and keys, if `config.json` decides.
    var queryNorms: QueryNorms?
    /// ε of norms without scales of queries and keys, after RoPE.
    var unscaledNorm: Double?
    /// Maximum sequence length, if longer ones need an attention that isn't implemented.
    var positionLimit: Int?
    /// Whether each head has an attention sink.
    var hasSinks = false
    /// Whether files have layers beyond the model's, which predict further tokens.
    var ignoresFurtherLayers = false
    /// Bound of queries, keys and values.
    var clip: Double?
    /// Whether RoPE is applied in each layer; `nil` for all of them.
    var rotatedLayers: [Bool]?
    /// Added to the stored scales of all norms but those of gated delta nets.
    var normOffset = 0.0
    /// Layers with states in place of keys and values, or beside them.
    var hybrid: HybridLayers?
    /// Factor of the keys.
    var keyScale = 1.0
    /// Whether virtual tokens can precede the input.
    var takesPrompts = true
    /// Size of the hidden layer of a network that computes every token, beside experts or alone (Granite 4).
    var sharedSize: Int?
    /// Names and factors of gated feed-forward networks.
    var feedForwardForm = GatedFeedForward.Form()
    /// Prefixes of tensors that transformers doesn't load either.
    var ignoredPrefixes: [String] = []
}

/// The norms of a block by their names in the checkpoint: before the attention and the feed-forward network, and of
/// their outputs.
struct BlockNorms: Sendable {
    var beforeAttention: String?
    var afterAttention: String?
    var beforeFeedForward: String?
    var afterFeedForward: String?

    static let llama = BlockNorms(
        beforeAttention: "input_layernorm", beforeFeedForward: "post_attention_layernorm")
    /// OLMo 2 (OLMo Team 2024, section 3.2) normalizes only the sublayers' outputs.
    static let outputs = BlockNorms(
        afterAttention: "post_attention_layernorm", afterFeedForward: "post_feedforward_layernorm")
}

extension AttentionWindows {
    /// No windows, whatever the configuration.
    static let none: @Sendable (ConfigurationReader, Int) throws -> [Int?] = { _, layers in
        Array(repeating: nil, count: layers)
    }

    /// Windows from `max_window_layers` on if `use_sliding_window` is true, or those of `layer_types` (Qwen2, Qwen3).
    static func fromConfiguredLayer(_ read: ConfigurationReader, layers: Int) throws -> [Int?] {
        let isUsed = try read.boolean("use_sliding_window", default: false)
        let first = try read.integer("max_window_layers", default: 28, in: 0...1_000_000)
        let window = try read.optionalInteger("sliding_window", default: 4096)
        return try AttentionWindows.read(read, layers: layers, window: isUsed ? window : nil) { $0 >= first }
    }
}
