import Foundation
import Support
import Torch
import TorchNN

/// Llama (Touvron et al. 2023) and the models built like it: Mistral, Qwen2 (biases on q, k, v) and Qwen3 (norms on q
/// and k). Decoder-only, with rotary positions, grouped-query attention and a gated feed-forward network.
public final class Llama: Module, CausalModel {
    public let settings: LlamaConfiguration
    @ModuleInfo(key: "model.embed_tokens") var embedding: Embedding
    @ModuleInfo(key: "model.input_site") var inputSite: InputSite
    @ModuleInfo(key: "model.layers") var layers: [LlamaBlock]
    @ModuleInfo(key: "model.norm") var norm: RMSNorm
    /// Absent where the embedding is the output layer.
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
    public var aliases: [String: String] { settings.isTied ? ["lm_head.weight": "model.embed_tokens.weight"] : [:] }
    public var generationDefaults: GenerationDefaults {
        GenerationDefaults(
            startToken: nil, endTokens: Set(settings.endTokens), padToken: settings.endTokens.first ?? 0)
    }
    public func isIgnorable(_ name: String) -> Bool { name.hasSuffix("rotary_emb.inv_freq") }

    var prefixSites: [KeyValueSite] { layers.map(\.attention.prefix) }
    func embed(_ ids: Tensor) -> Tensor { embedding(ids) }
    func decode(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        norm(layers.reduce(x) { $1($0, context) })
    }
    func scores(_ hidden: Tensor) -> Tensor { head?(hidden) ?? Functions.linear(hidden, embedding.outputWeight) }
    var outputWeight: Tensor? {
        guard let head else { return embedding.outputWeight }
        return head.isAdapted ? nil : head.weight.dense(as: embedding.weight.dtype)
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

final class LlamaBlock: Module {
    @ModuleInfo(key: "input_layernorm") var attentionNorm: RMSNorm
    @ModuleInfo(key: "self_attn") var attention: LlamaAttention
    @ModuleInfo(key: "attention_output_site") var attentionOutput: OutputSite
    @ModuleInfo(key: "post_attention_layernorm") var feedForwardNorm: RMSNorm
    @ModuleInfo(key: "mlp") var feedForward: LlamaFeedForward
    @ModuleInfo(key: "mlp_output_site") var feedForwardOutput: OutputSite

    init(_ settings: LlamaConfiguration, layer: Int) {
        _attentionNorm.wrappedValue = RMSNorm(settings.hiddenSize, epsilon: settings.epsilon)
        _attention.wrappedValue = LlamaAttention(settings, layer: layer)
        _attentionOutput.wrappedValue = OutputSite(.attention, size: settings.hiddenSize)
        _feedForwardNorm.wrappedValue = RMSNorm(settings.hiddenSize, epsilon: settings.epsilon)
        _feedForward.wrappedValue = LlamaFeedForward(settings)
        _feedForwardOutput.wrappedValue = OutputSite(.feedForward, size: settings.hiddenSize)
    }

    /// [tokens, hiddenSize] → the same shape.
    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        var normed = attentionNorm(x)
        let x = x + attentionOutput(attention(normed, context), input: normed)
        normed = feedForwardNorm(x)
        return x + feedForwardOutput(feedForward(normed), input: normed)
    }
}

final class LlamaAttention: Module {
    @ModuleInfo(key: "q_proj") var q: Linear
    @ModuleInfo(key: "k_proj") var k: Linear
    @ModuleInfo(key: "v_proj") var v: Linear
    @ModuleInfo(key: "o_proj") var o: Linear
    /// Qwen3 normalises each head.
    @ModuleInfo(key: "q_norm") var qNorm: RMSNorm?
    @ModuleInfo(key: "k_norm") var kNorm: RMSNorm?
    @ModuleInfo(key: "prefix_site") var prefix: KeyValueSite
    private let settings: LlamaConfiguration
    private let layer: Int

    init(_ settings: LlamaConfiguration, layer: Int) {
        (self.settings, self.layer) = (settings, layer)
        let (size, head) = (settings.hiddenSize, settings.headSize)
        _q.wrappedValue = Linear(size, settings.heads * head, bias: settings.hasQKVBias)
        _k.wrappedValue = Linear(size, settings.keyHeads * head, bias: settings.hasQKVBias)
        _v.wrappedValue = Linear(size, settings.keyHeads * head, bias: settings.hasQKVBias)
        _o.wrappedValue = Linear(settings.heads * head, size, bias: settings.hasOutputBias)
        _qNorm.wrappedValue = settings.hasHeadNorms ? RMSNorm(head, epsilon: settings.epsilon) : nil
        _kNorm.wrappedValue = settings.hasHeadNorms ? RMSNorm(head, epsilon: settings.epsilon) : nil
        _prefix.wrappedValue = KeyValueSite(.attention, role: .decoder, heads: settings.keyHeads, headSize: head)
    }

    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let size = settings.headSize
        func split(_ x: Tensor) -> Tensor { x.reshaped(-1, x.dim(-1) / size, size) }
        let queries = split(q(x)), keys = split(k(x))
        let mixed = context.attend(
            context.rotated(qNorm?(queries) ?? queries, frequencies: settings.frequencies),
            context.rotated(kNorm?(keys) ?? keys, frequencies: settings.frequencies), split(v(x)), site: prefix,
            layer: layer, scale: 1 / Double(size).squareRoot(), dropout: settings.attentionDropout)
        return o(mixed.reshaped(-1, settings.heads * size))
    }
}

final class LlamaFeedForward: Module {
    @ModuleInfo(key: "gate_proj") var gate: Linear
    @ModuleInfo(key: "up_proj") var up: Linear
    @ModuleInfo(key: "down_proj") var down: Linear
    let activation: Activation

    init(_ settings: LlamaConfiguration) {
        func linear(_ inputs: Int, _ outputs: Int) -> Linear {
            Linear(inputs, outputs, bias: settings.hasFeedForwardBias)
        }
        _gate.wrappedValue = linear(settings.hiddenSize, settings.feedForwardSize)
        _up.wrappedValue = linear(settings.hiddenSize, settings.feedForwardSize)
        _down.wrappedValue = linear(settings.feedForwardSize, settings.hiddenSize)
        activation = settings.activation
    }

    func callAsFunction(_ x: Tensor) -> Tensor { down(activation.gated(gate(x), up(x))) }
}

/// `config.json` of Llama and its kin.
public struct LlamaConfiguration: Sendable {
    public let family: String
    public let vocabularySize: Int
    public let hiddenSize: Int
    public let feedForwardSize: Int
    public let layers: Int
    public let heads: Int
    /// Heads of keys and values.
    public let keyHeads: Int
    public let headSize: Int
    public let epsilon: Double
    public let isTied: Bool
    public let activation: Activation
    public let hasQKVBias: Bool
    public let hasOutputBias: Bool
    public let hasFeedForwardBias: Bool
    public let hasHeadNorms: Bool
    public let attentionDropout: Double
    public let endTokens: [Int]
    /// Angles per position of each pair, [headSize / 2].
    public let frequencies: [Double]
    public let json: JSON

    public init(_ json: JSON) throws {
        let read = ConfigurationReader(json: json)
        self.json = json
        family = try read.string("model_type", default: "llama")
        vocabularySize = try read.integer("vocab_size", default: 32000)
        hiddenSize = try read.integer("hidden_size", default: 4096)
        feedForwardSize = try read.integer("intermediate_size", default: 11008)
        layers = try read.integer("num_hidden_layers", default: 32)
        heads = try read.integer("num_attention_heads", default: 32)
        keyHeads = try read.integer("num_key_value_heads", default: heads)
        headSize = try read.integer("head_dim", default: hiddenSize / heads)
        epsilon = try read.number("rms_norm_eps", default: 1e-6)
        isTied = try read.boolean("tie_word_embeddings", default: false)
        let isQwen2 = family == "qwen2"
        hasQKVBias = try isQwen2 || read.boolean("attention_bias", default: false)
        hasOutputBias = try !isQwen2 && read.boolean("attention_bias", default: false)
        hasFeedForwardBias = try read.boolean("mlp_bias", default: false)
        hasHeadNorms = family == "qwen3"
        attentionDropout = try read.number("attention_dropout", default: 0)
        endTokens = try read.tokens("eos_token_id", default: [2])
        let name = try read.string("hidden_act", default: "silu")
        guard let activation = Activation(huggingFaceName: name) else {
            throw PEFTError("config.json: 'hidden_act' is '\(name)', which is not supported", remedy: "silu is")
        }
        self.activation = activation
        guard heads.isMultiple(of: keyHeads) else {
            throw PEFTError(
                "config.json: \(heads) heads can't share \(keyHeads) heads of keys",
                remedy: "'num_attention_heads' has to be a multiple of 'num_key_value_heads'")
        }
        guard headSize.isMultiple(of: 2) else {
            throw PEFTError("config.json: a head of \(headSize) can't be rotated", remedy: "it has to be even")
        }
        let longest = try read.integer("max_position_embeddings", default: 2048)
        if let window = json["sliding_window"]?.int, json["use_sliding_window"]?.bool ?? true, window < longest {
            throw PEFTError(
                "config.json: 'sliding_window' is \(window), shorter than the \(longest) positions",
                remedy: "attention windows are not supported")
        }
        frequencies = try Self.frequencies(json, read, headSize: headSize)
    }

    /// θ^(−2i/d), scaled as Llama 3 does where the file asks for it.
    private static func frequencies(_ json: JSON, _ read: ConfigurationReader, headSize: Int) throws -> [Double] {
        let parameters = json["rope_parameters"] ?? json["rope_scaling"]
        let base = try parameters?["rope_theta"]?.double ?? read.number("rope_theta", default: 10_000)
        let plain = (0..<(headSize / 2)).map { Foundation.pow(base, -2 * Double($0) / Double(headSize)) }
        let kind = parameters?["rope_type"]?.string ?? parameters?["type"]?.string ?? "default"
        switch kind {
        case "default": return plain
        case "linear":
            let factor = parameters?["factor"]?.double ?? 1
            return plain.map { $0 / factor }
        case "llama3":
            let factor = parameters?["factor"]?.double ?? 8
            let low = parameters?["low_freq_factor"]?.double ?? 1
            let high = parameters?["high_freq_factor"]?.double ?? 4
            let original = parameters?["original_max_position_embeddings"]?.double ?? 8192
            return plain.map { frequency in
                let length = 2 * Double.pi / frequency
                if length < original / high { return frequency }
                if length > original / low { return frequency / factor }
                let smooth = (original / length - low) / (high - low)
                return (1 - smooth) * frequency / factor + smooth * frequency
            }
        default:
            throw PEFTError(
                "config.json: the rotary positions '\(kind)' are not supported",
                remedy: "supported are default, linear and llama3")
        }
    }
}
