import PEFTSupport
import Torch
import TorchNN

/// Gemma (Gemma Team 2024) in its three text versions. All scale embeddings by √size and norms by 1 + w. Gemma 2 has
/// norms before and after each sublayer, sliding windows in every other layer, and softcapped scores; Gemma 3
/// normalizes queries and keys instead of softcapping, and its sliding-window layers have their own RoPE base.
package final class Gemma: Module, CausalModel {
    let settings: GemmaConfiguration
    package var folderSettings = FolderSettings()
    @ModuleInfo var embedding: Embedding
    @ModuleInfo var inputSite: InputSite
    @ModuleInfo var layers: [GemmaBlock]
    @ModuleInfo var norm: RMSNorm
    /// `nil` if the output layer is tied to the embedding.
    @ModuleInfo(key: "lm_head") var outputProjection: Linear?

    init(_ settings: GemmaConfiguration) {
        self.settings = settings
        let prefix = settings.family.modules.prefix
        _embedding = ModuleInfo(
            wrappedValue: Embedding(settings.vocabularySize, settings.hiddenSize), key: "\(prefix).embed_tokens")
        _inputSite = ModuleInfo(
            wrappedValue: InputSite(.decoder, size: settings.hiddenSize), key: "\(prefix).input_site")
        _layers = ModuleInfo(
            wrappedValue: (0..<settings.layers).map { GemmaBlock(settings, layer: $0) }, key: "\(prefix).layers")
        _norm = ModuleInfo(wrappedValue: settings.norm(), key: "\(prefix).norm")
        _outputProjection.wrappedValue =
            settings.isTied ? nil : Linear(settings.hiddenSize, settings.vocabularySize, bias: false)
    }

    var prefixSites: [KeyValueSite] { layers.map(\.attention.prefix) }
    package var embeddingScale: Double { Double(settings.hiddenSize).squareRoot() }
    func embed(_ ids: Tensor) -> Tensor { embedding(ids) * embeddingScale }
    func decode(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        norm(through(layers, x, context))
    }
    var outputSoftcap: Double? { settings.outputSoftcap }
}

final class GemmaBlock: Module, StackLayer {
    @ModuleInfo(key: "input_layernorm") var attentionNorm: RMSNorm
    @ModuleInfo(key: "self_attn") var attention: GroupedQueryAttention
    /// Norms of the sublayers' outputs, since Gemma 2.
    @ModuleInfo var attentionOutputNorm: RMSNorm?
    @ModuleInfo(key: "attention_output_site") var attentionOutput: OutputSite
    @ModuleInfo var feedForwardNorm: RMSNorm
    @ModuleInfo(key: "mlp") var feedForward: GatedFeedForward
    @ModuleInfo(key: "post_feedforward_layernorm") var feedForwardOutputNorm: RMSNorm?
    @ModuleInfo(key: "mlp_output_site") var feedForwardOutput: OutputSite

    init(_ settings: GemmaConfiguration, layer: Int) {
        let window = settings.windows[layer]
        _attentionNorm.wrappedValue = settings.norm()
        _attention.wrappedValue = GroupedQueryAttention(
            settings.attention, layer: layer, rotary: window == nil ? settings.rotary : settings.localRotary,
            window: window)
        // In the first Gemma, `post_attention_layernorm` is the norm before the feed-forward network.
        _attentionOutputNorm = ModuleInfo(
            wrappedValue: settings.hasOutputNorms ? settings.norm() : nil, key: "post_attention_layernorm")
        _attentionOutput.wrappedValue = OutputSite(.attention, size: settings.hiddenSize)
        _feedForwardNorm = ModuleInfo(
            wrappedValue: settings.norm(),
            key: settings.hasOutputNorms ? "pre_feedforward_layernorm" : "post_attention_layernorm")
        _feedForward.wrappedValue = GatedFeedForward(
            settings.hiddenSize, hidden: settings.feedForwardSize, activation: settings.activation)
        _feedForwardOutputNorm.wrappedValue = settings.hasOutputNorms ? settings.norm() : nil
        _feedForwardOutput.wrappedValue = OutputSite(.feedForward, size: settings.hiddenSize)
    }

    /// `[tokens, hiddenSize]` -> `[tokens, hiddenSize]`.
    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        var normed = attentionNorm(x)
        let mixed = attention(normed, context)
        normed = context.selected(normed)
        let attended = attentionOutput(mixed, input: normed)
        let x = context.selected(x) + (attentionOutputNorm?(attended) ?? attended)
        normed = feedForwardNorm(x)
        let fed = feedForwardOutput(feedForward(normed), input: normed)
        return x + (feedForwardOutputNorm?(fed) ?? fed)
    }
}

/// `config.json` of Gemma, Gemma 2 and the text model of Gemma 3.
struct GemmaConfiguration: CausalConfiguration {
    let family: ModelFamily
    /// 1, 2 or 3.
    let version: Int
    let vocabularySize: Int
    let hiddenSize: Int
    let feedForwardSize: Int
    let layers: Int
    let heads: Int
    let keyHeads: Int
    let headSize: Int
    let epsilon: Double
    let isTied: Bool
    let activation: Activation
    let hasBiases: Bool
    /// Scale of the attention scores.
    let scale: Double
    let attentionSoftcap: Double?
    let outputSoftcap: Double?
    let attentionDropout: Double
    let endTokens: [Int]
    /// Sliding-window size of each layer; `nil` for full attention.
    let windows: [Int?]
    /// RoPE of the full-attention layers and of the sliding-window layers.
    let rotary: RotaryPositions
    let localRotary: RotaryPositions
    let json: JSON

    var hasOutputNorms: Bool { version > 1 }

    /// - Parameter text: the keys of a multimodal model's text part, in place of `json`'s.
    init(_ json: JSON, text: JSON? = nil, version: Int, family: ModelFamily) throws {
        let read = ConfigurationReader(json: text ?? json)
        (self.json, self.version, self.family) = (json, version, family)
        vocabularySize = try read.integer("vocab_size", .vocabulary, default: version == 3 ? 262_208 : 256_000)
        hiddenSize = try read.integer("hidden_size", .width, default: version == 1 ? 3072 : 2304)
        feedForwardSize = try read.integer("intermediate_size", .width, default: version == 1 ? 24_576 : 9216)
        layers = try read.integer("num_hidden_layers", .layers, default: version == 1 ? 28 : 26)
        let count = try read.integer("num_attention_heads", .heads, default: version == 1 ? 16 : 8)
        (heads, keyHeads, headSize) = try read.heads(
            count: count, keyHeads: version == 1 ? 16 : 4, headSize: 256)
        epsilon = try read.number("rms_norm_eps", default: 1e-6)
        isTied = try read.boolean("tie_word_embeddings", default: true)
        if version == 1, json["hidden_act"]?.string == "gelu" {
            // The first files said gelu but meant its tanh approximation.
            activation = .geluTanh
        } else {
            activation = try read.activation(
                version == 1 ? "hidden_act" : "hidden_activation", default: "gelu_pytorch_tanh")
        }
        hasBiases = try read.boolean("attention_bias", default: false)
        let width = try version == 1 ? Double(headSize) : read.number("query_pre_attn_scalar", default: 256)
        scale = 1 / width.squareRoot()
        attentionSoftcap =
            version == 1 ? nil : try read.optionalNumber("attn_logit_softcapping", default: version == 2 ? 50 : nil)
        let softcap = try read.optionalNumber("final_logit_softcapping", default: version == 2 ? 30 : nil)
        // transformers applies it in the model of texts alone.
        outputSoftcap = version == 1 || text != nil ? nil : softcap
        attentionDropout = try read.number("attention_dropout", default: 0)
        endTokens = try read.tokens("eos_token_id", default: [1])
        guard version < 3 || attentionSoftcap == nil else {
            throw PEFTError(
                "config.json: 'attn_logit_softcapping' is set, which Gemma 3 doesn't have",
                remedy: "check 'model_type'")
        }
        guard try !read.boolean("use_bidirectional_attention", default: false) else {
            throw PEFTError(
                "config.json: 'use_bidirectional_attention' is true, which is not supported",
                remedy: "use a causal model")
        }
        windows =
            version == 1
            ? Array(repeating: nil, count: layers) : try Self.windows(read, version: version, layers: layers)
        if version == 3 {
            (rotary, localRotary) = try (
                RotaryPositions(
                    read, headSize: headSize, layers: "full_attention", base: 1_000_000,
                    baseKey: "rope_theta"),
                RotaryPositions(
                    read, headSize: headSize, layers: "sliding_attention", base: 10_000,
                    baseKey: "rope_local_base_freq")
            )
        } else {
            rotary = try RotaryPositions(read, headSize: headSize)
            localRotary = rotary
        }
    }

    private static func windows(_ read: ConfigurationReader, version: Int, layers: Int) throws -> [Int?] {
        let pattern = try version == 2 ? 2 : read.integer("sliding_window_pattern", .length, default: 6)
        let window = try read.optionalInteger("sliding_window", default: 4096)
        return try AttentionWindows.read(read, layers: layers, window: window) { !($0 + 1).isMultiple(of: pattern) }
    }

    func norm(_ size: Int? = nil) -> RMSNorm { RMSNorm(size ?? hiddenSize, epsilon: epsilon, offset: 1) }

    var attention: GroupedQueryAttention.Settings {
        var settings = GroupedQueryAttention.Settings(
            hiddenSize: hiddenSize, heads: heads, keyHeads: keyHeads, headSize: headSize, hasQKVBias: hasBiases,
            hasOutputBias: hasBiases, scale: scale, softcap: attentionSoftcap, dropout: attentionDropout)
        if version == 3 { (settings.queryNorms, settings.norm) = (.eachHead, { norm($0) }) }
        return settings
    }
}

extension ModelFamily {
    /// The first Gemma (Gemma Team 2024, Open Models Based on Gemini Research and Technology).
    static let gemma = ModelFamily(
        name: "gemma", constructor: .generator { try Gemma(GemmaConfiguration($0, version: 1, family: $1)) },
        modules: .llama, tokenTypes: .none,
        adapterTargets: AdapterTargets(
            lora: .named(["q_proj", "v_proj"]), adaLoRA: .named(["q_proj", "v_proj"]),
            ia3: .named(["q_proj", "v_proj", "down_proj"]), ia3FeedForward: ["down_proj"],
            norms: ["input_layernorm", "post_attention_layernorm", "norm"]),
        gguf: .architecture(.gemma))
}

extension GGUFArchitecture {
    static let gemma = GGUFArchitecture(
        name: "gemma", modelClass: "GemmaForCausalLM", tensors: .llama, pairsNeighbors: false, addsOneToNorms: true
    ) { _, _ in Gemma.ggufActivation }
}
