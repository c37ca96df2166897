import PEFTSupport
import Torch
import TorchNN

/// `config.json` of the text model of Gemma 4.
struct Gemma4Configuration: CausalConfiguration {
    let family: ModelFamily
    let vocabularySize: Int
    let hiddenSize: Int
    let feedForwardSize: Int
    let layers: Int
    let heads: Int
    /// Number of key-value heads, and size of a head, of sliding-window and of full-attention layers.
    let local: (keyHeads: Int, headSize: Int)
    let full: (keyHeads: Int, headSize: Int)
    /// Whether full-attention layers use their keys as values.
    let keysAreValues: Bool
    let epsilon: Double
    let isTied: Bool
    let activation: Activation
    let hasBiases: Bool
    let outputSoftcap: Double?
    let attentionDropout: Double
    let endTokens: [Int]
    /// Sliding-window size of each layer; `nil` for full attention.
    let windows: [Int?]
    /// The layer to whose keys and values each layer attends; `nil` for its own.
    let sources: [Int?]
    /// Whether the feed-forward networks of layers without keys have twice the size.
    let hasDoubleWidth: Bool
    let perLayer: PerLayerEmbeddings.Settings?
    let experts: Gemma4Experts.Settings?
    /// RoPE of the full-attention layers and of the sliding-window layers.
    let rotary: RotaryPositions
    let localRotary: RotaryPositions
    let json: JSON

    /// RoPE of a file without `rope_parameters`.
    private static let rotaryDefaults: JSON = [
        "full_attention": ["rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0],
        "sliding_attention": ["rope_type": "default", "rope_theta": 10_000.0],
    ]

    /// - Parameter text: the keys of a multimodal model's text part, in place of `json`'s.
    init(_ json: JSON, text: JSON? = nil, family: ModelFamily) throws {
        let given = text ?? json
        let hasRotary = given["rope_parameters"] ?? .null != .null
        let read = ConfigurationReader(
            json: hasRotary
                ? given : .object((given.object ?? [:]).merging(["rope_parameters": Self.rotaryDefaults]) { $1 }))
        (self.json, self.family) = (json, family)
        vocabularySize = try read.integer("vocab_size", .vocabulary, default: 262_144)
        hiddenSize = try read.integer("hidden_size", .width, default: 2304)
        feedForwardSize = try read.integer("intermediate_size", .width, default: 9216)
        layers = try read.integer("num_hidden_layers", .layers, default: 30)
        epsilon = try read.number("rms_norm_eps", default: 1e-6)
        isTied = try read.boolean("tie_word_embeddings", default: true)
        activation = try read.activation("hidden_activation", default: "gelu_pytorch_tanh")
        hasBiases = try read.boolean("attention_bias", default: false)
        outputSoftcap = try read.optionalNumber("final_logit_softcapping", default: nil)
        attentionDropout = try read.number("attention_dropout", default: 0)
        endTokens = try read.tokens("eos_token_id", default: [1])
        guard try ["", "vision"].contains(read.string("use_bidirectional_attention", default: "")) else {
            throw PEFTError(
                "config.json: 'use_bidirectional_attention' is not 'vision', which is not supported",
                remedy: "use a causal model")
        }
        let window = try read.integer("sliding_window", .length, default: 512)
        var windows = try AttentionWindows.read(read, layers: layers, window: window) {
            !($0 + 1).isMultiple(of: 6)
        }
        // As in transformers, whatever the file says.
        windows[layers - 1] = nil
        self.windows = windows
        sources = try SharedKeys.sources(read, windows: windows, shared: 0)
        hasDoubleWidth = try read.boolean("use_double_wide_mlp", default: false)
        keysAreValues = try read.boolean("attention_k_eq_v", default: false)
        let (heads, keyHeads, headSize) = try read.heads(count: 8, keyHeads: 4, headSize: 256)
        self.heads = heads
        local = (keyHeads, headSize)
        full = try Self.fullHeads(read, keysAreValues: keysAreValues, heads: heads, local: local, windows: windows)
        perLayer = try PerLayerEmbeddings.Settings(read, layers: layers, hiddenSize: hiddenSize, epsilon: epsilon)
        if let perLayer, perLayer.vocabularySize < vocabularySize {
            throw PEFTError(
                "config.json: 'vocab_size_per_layer_input' is \(perLayer.vocabularySize), less than 'vocab_size'"
                    + " (\(vocabularySize))",
                remedy: "use a model whose tables have the same tokens")
        }
        experts = try Self.experts(read)
        (rotary, localRotary) = try (
            Self.rotary(read, headSize: full.headSize, "full_attention", isUsed: true),
            Self.rotary(
                read, headSize: headSize, "sliding_attention", isUsed: windows.contains { $0 != nil })
        )
    }

    private static func rotary(
        _ read: ConfigurationReader, headSize: Int, _ type: String, isUsed: Bool
    ) throws -> RotaryPositions {
        if let old = read.json["rope_scaling"], old != .null {
            throw PEFTError(
                "config.json: 'rope_scaling' is set, which a Gemma 4 doesn't have",
                remedy: "use 'rope_parameters' with the layer types as keys")
        }
        if isUsed, let parameters = read.json["rope_parameters"]?.object, parameters[type]?.object == nil {
            throw PEFTError(
                "config.json: 'rope_parameters' has no '\(type)'",
                remedy: "add an object with 'rope_type' and 'rope_theta'")
        }
        return try RotaryPositions(
            read, headSize: headSize, layers: type, base: type == "full_attention" ? 1_000_000 : 10_000, baseKey: nil,
            allowsProportional: true)
    }

    /// Key-value heads of full-attention layers: `global_head_dim` and `num_global_key_value_heads`, or the
    /// `per_layer_config` that transformers writes in their place.
    private static func fullHeads(
        _ read: ConfigurationReader, keysAreValues: Bool, heads: Int, local: (keyHeads: Int, headSize: Int),
        windows: [Int?]
    ) throws -> (keyHeads: Int, headSize: Int) {
        var (keyHeads, headSize) = local
        if let value = read.json["per_layer_config"], value != .null {
            func refused() -> PEFTError {
                PEFTError(
                    "config.json: 'per_layer_config' is \(value.text(indent: nil)), which is not supported",
                    remedy:
                        "set head_dim and num_key_value_heads there, alike for all full-attention layers and for no other"
                )
            }
            guard let all = value.object else { throw refused() }
            let sizes = try windows.indices.map { layer -> [Int] in
                let own = try all[String(layer)].map { value -> [String: JSON] in
                    guard let fields = value.object,
                        Set(fields.keys).isSubset(of: ["head_dim", "num_key_value_heads"])
                    else { throw refused() }
                    return fields
                }
                let part = ConfigurationReader(json: .object(own ?? [:]))
                return try [
                    part.integer("num_key_value_heads", .heads, default: local.keyHeads),
                    part.integer("head_dim", .headSize, default: local.headSize),
                ]
            }
            let isFull = windows.map { $0 == nil }
            let full = Set(sizes.indices.filter { isFull[$0] }.map { sizes[$0] })
            let others = Set(sizes.indices.filter { !isFull[$0] }.map { sizes[$0] })
            guard full.count == 1, others.isSubset(of: [[local.keyHeads, local.headSize]]), let own = full.first,
                all.keys.allSatisfy({ Int($0).map { windows.indices.contains($0) } ?? false })
            else { throw refused() }
            (keyHeads, headSize) = (own[0], own[1])
        } else {
            headSize = try read.integer("global_head_dim", .headSize, default: 512)
            let isNull = read.json["num_global_key_value_heads"] == .null
            let count = try isNull ? keyHeads : read.integer("num_global_key_value_heads", .heads, default: keyHeads)
            if keysAreValues { keyHeads = count }
        }
        guard heads.isMultiple(of: keyHeads) else {
            throw PEFTError(
                "config.json: \(heads) attention heads aren't divisible by \(keyHeads) key-value heads of full-attention"
                    + " layers",
                remedy: "check 'num_global_key_value_heads'")
        }
        return (keyHeads, headSize)
    }

    private static func experts(_ read: ConfigurationReader) throws -> Gemma4Experts.Settings? {
        func size(_ key: String, _ size: ConfigurationReader.Size) throws -> Int? {
            try read.json[key] ?? .null == .null ? nil : read.integer(key, size)
        }
        let (count, choices) = try (size("num_experts", .heads), size("top_k_experts", .heads))
        let hidden = try size("moe_intermediate_size", .width)
        guard try read.boolean("enable_moe_block", default: false) else { return nil }
        guard let count, let choices, let hidden, choices <= count else {
            throw PEFTError(
                "config.json: 'enable_moe_block' is true, but 'num_experts', 'top_k_experts' and 'moe_intermediate_size'"
                    + " don't describe experts",
                remedy: "set all of them, with at most as many experts per token as there are")
        }
        return Gemma4Experts.Settings(count: count, choices: choices, feedForwardSize: hidden)
    }

    func norm() -> RMSNorm { RMSNorm(hiddenSize, epsilon: epsilon) }

    func attention(ofLayer layer: Int) -> SharedKeyAttention {
        let isFull = windows[layer] == nil
        let (keyHeads, headSize) = isFull ? full : local
        return SharedKeyAttention(
            SharedKeyAttention.Settings(
                hiddenSize: hiddenSize, heads: heads, keyHeads: keyHeads, headSize: headSize, hasBiases: hasBiases,
                keysAreValues: isFull && keysAreValues, epsilon: epsilon, dropout: attentionDropout),
            layer: layer, source: sources[layer], rotary: isFull ? rotary : localRotary, window: windows[layer])
    }
}
