import Support
import Torch
import TorchNN

/// Llama (Touvron et al. 2023) and similar models: Mistral (sliding-window attention), Qwen2 (biases on q, k, v) and
/// Qwen3 (norms on q and k). Decoder-only, with RoPE, grouped-query attention and a gated feed-forward network.
public final class Llama: Module, CausalModel, TiedOutputModel {
    public let settings: LlamaConfiguration
    public var folderSettings = FolderSettings()
    @ModuleInfo(key: "model.embed_tokens") var embedding: Embedding
    @ModuleInfo(key: "model.input_site") var inputSite: InputSite
    @ModuleInfo(key: "model.layers") var layers: [LlamaBlock]
    @ModuleInfo(key: "model.norm") var norm: RMSNorm
    /// `nil` if the output layer is tied to the embedding.
    @ModuleInfo(key: "lm_head") var head: Linear?

    public init(_ settings: LlamaConfiguration) {
        self.settings = settings
        _embedding.wrappedValue = Embedding(settings.vocabularySize, settings.hiddenSize)
        _inputSite.wrappedValue = InputSite(.decoder, size: settings.hiddenSize)
        _layers.wrappedValue = (0..<settings.layers).map { LlamaBlock(settings, layer: $0) }
        _norm.wrappedValue = RMSNorm(settings.hiddenSize, epsilon: settings.epsilon)
        _head.wrappedValue =
            settings.isTied ? nil : Linear(settings.hiddenSize, settings.vocabularySize, bias: false)
    }

    public var family: String { settings.family }
    public var architecture: Architecture { .decoder }
    public var configuration: JSON { settings.json }
    public var outputLayer: String { "lm_head" }
    public var inputEmbedding: String { "model.embed_tokens" }
    public var vocabularySize: Int { embedding.entries }
    public var aliases: [String: String] { settings.isTied ? ["lm_head.weight": "model.embed_tokens.weight"] : [:] }
    public var generationDefaults: GenerationDefaults {
        GenerationDefaults(
            startToken: nil, endTokens: Set(settings.endTokens), padToken: settings.endTokens.first ?? 0)
    }
    /// Files of a headless model have no prefix.
    public func canonicalName(_ name: String) -> String { decoderName(name, aliases: aliases) }
    public func isIgnorable(_ name: String) -> Bool { name.hasSuffix("rotary_emb.inv_freq") }

    var prefixSites: [KeyValueSite] { layers.map(\.attention.prefix) }
    func embed(_ ids: Tensor) -> Tensor { embedding(ids) }
    func decode(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        norm(through(layers, x, context))
    }
    var outputProjection: Linear? {
        get { head }
        set { head = newValue }
    }
    func scores(_ hidden: Tensor) -> Tensor { head?(hidden) ?? embedding.outputWeight.project(hidden, bias: nil) }
    var outputWeight: (any LinearWeight)? {
        guard let head else { return embedding.outputWeight }
        return head.isAdapted ? nil : head.weight
    }

    public func batch(_ rows: [(input: [Int], target: [Int])], device: Device) -> TrainingBatch {
        causalBatch(rows, device: device)
    }
    public func lossSum(_ batch: TrainingBatch, labelSmoothing: Double) -> Tensor {
        causalLoss(batch, labelSmoothing: labelSmoothing)
    }
    public func logits(_ batch: TrainingBatch) -> Tensor { causalLogits(batch) }
    public func startDecoding(_ prompts: PackedSequences, capacity: Int, beams: Int) -> any DecodingState {
        CausalDecodingState(self, prompts, capacity: capacity, beams: beams)
    }
}

final class LlamaBlock: Module, StackLayer {
    @ModuleInfo(key: "input_layernorm") var attentionNorm: RMSNorm
    @ModuleInfo(key: "self_attn") var attention: GroupedQueryAttention
    @ModuleInfo(key: "attention_output_site") var attentionOutput: OutputSite
    @ModuleInfo(key: "post_attention_layernorm") var feedForwardNorm: RMSNorm
    @ModuleInfo(key: "mlp") var feedForward: GatedFeedForward
    @ModuleInfo(key: "mlp_output_site") var feedForwardOutput: OutputSite

    init(_ settings: LlamaConfiguration, layer: Int) {
        _attentionNorm.wrappedValue = RMSNorm(settings.hiddenSize, epsilon: settings.epsilon)
        _attention.wrappedValue = GroupedQueryAttention(
            settings.attention, layer: layer, rotary: settings.rotary, window: settings.windows[layer])
        _attentionOutput.wrappedValue = OutputSite(.attention, size: settings.hiddenSize)
        _feedForwardNorm.wrappedValue = RMSNorm(settings.hiddenSize, epsilon: settings.epsilon)
        _feedForward.wrappedValue = GatedFeedForward(
            settings.hiddenSize, hidden: settings.feedForwardSize, bias: settings.hasFeedForwardBias,
            activation: settings.activation)
        _feedForwardOutput.wrappedValue = OutputSite(.feedForward, size: settings.hiddenSize)
    }

    /// `[tokens, hiddenSize]` -> `[tokens, hiddenSize]`.
    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        var normed = attentionNorm(x)
        let attended = attention(normed, context)
        normed = context.selected(normed)
        let x = context.selected(x) + attentionOutput(attended, input: normed)
        normed = feedForwardNorm(x)
        return x + feedForwardOutput(feedForward(normed), input: normed)
    }
}

/// `config.json` of Llama and similar models.
public struct LlamaConfiguration: Sendable {
    public let family: String
    public let vocabularySize: Int
    public let hiddenSize: Int
    public let feedForwardSize: Int
    public let layers: Int
    public let heads: Int
    /// Number of key-value heads.
    public let keyHeads: Int
    public let headSize: Int
    public let epsilon: Double
    /// Whether the output layer is tied to the embedding.
    public let isTied: Bool
    public let activation: Activation
    public let hasQKVBias: Bool
    public let hasOutputBias: Bool
    public let hasFeedForwardBias: Bool
    /// Whether queries and keys are normalized per head (Qwen3).
    public let hasHeadNorms: Bool
    public let attentionDropout: Double
    public let endTokens: [Int]
    /// Sliding-window size of each layer; `nil` for full attention.
    public let windows: [Int?]
    let rotary: RotaryPositions
    public let json: JSON

    public init(_ json: JSON) throws {
        let read = ConfigurationReader(json: json)
        self.json = json
        family = try read.string("model_type", default: "llama")
        vocabularySize = try read.integer("vocab_size", default: 32000)
        hiddenSize = try read.integer("hidden_size", default: 4096)
        feedForwardSize = try read.integer("intermediate_size", default: 11008)
        layers = try read.integer("num_hidden_layers", default: 32)
        let count = try read.integer("num_attention_heads", default: 32)
        (heads, keyHeads, headSize) = try read.heads(
            count: count, keyHeads: family == "mistral" ? 8 : nil,
            headSize: family == "qwen3" ? 128 : hiddenSize / count)
        epsilon = try read.number("rms_norm_eps", default: 1e-6)
        isTied = try read.boolean("tie_word_embeddings", default: false)
        let (hasBiases, isQwen2) = (["llama", "qwen3"].contains(family), family == "qwen2")
        hasQKVBias = try isQwen2 || hasBiases && read.boolean("attention_bias", default: false)
        hasOutputBias = try hasBiases && read.boolean("attention_bias", default: false)
        hasFeedForwardBias = try family == "llama" && read.boolean("mlp_bias", default: false)
        hasHeadNorms = family == "qwen3"
        attentionDropout = try read.number("attention_dropout", default: 0)
        endTokens = try read.tokens("eos_token_id", default: [2])
        activation = try read.activation("hidden_act", default: "silu")
        windows = try Self.windows(read, family: family, layers: layers)
        rotary = try RotaryPositions(read, headSize: headSize)
    }

    private static func windows(_ read: ConfigurationReader, family: String, layers: Int) throws -> [Int?] {
        switch family {
        case "mistral":
            let window = try read.optionalInteger("sliding_window", default: 4096)
            let windows = [Int?](repeating: window, count: layers)
            guard try AttentionWindows.read(read, layers: layers, window: window, slides: { _ in true }) == windows
            else {
                throw PEFTError(
                    "config.json: 'layer_types' mixes layer types, but all layers of a Mistral are alike",
                    remedy: "remove 'layer_types'")
            }
            return windows
        case "qwen2", "qwen3":
            let isUsed = try read.boolean("use_sliding_window", default: false)
            let first = try read.integer("max_window_layers", default: 28, in: 0...1_000_000)
            return try AttentionWindows.read(
                read, layers: layers, window: isUsed ? read.optionalInteger("sliding_window", default: 4096) : nil
            ) { $0 >= first }
        default:
            if let window = read.json["sliding_window"], window != .null {
                throw PEFTError(
                    "config.json: 'sliding_window' is \(window.text(indent: nil)), which a \(family) model doesn't have",
                    remedy: "check 'model_type'")
            }
            return Array(repeating: nil, count: layers)
        }
    }

    var attention: GroupedQueryAttention.Settings {
        var settings = GroupedQueryAttention.Settings(
            hiddenSize: hiddenSize, heads: heads, keyHeads: keyHeads, headSize: headSize, hasQKVBias: hasQKVBias,
            hasOutputBias: hasOutputBias, dropout: attentionDropout)
        if hasHeadNorms { settings.headNorm = { [headSize, epsilon] in RMSNorm(headSize, epsilon: epsilon) } }
        return settings
    }
}
