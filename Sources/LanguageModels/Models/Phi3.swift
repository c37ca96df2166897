import PEFTSupport
import Torch
import TorchNN

/// Phi-3 (Abdin et al. 2024): a Llama with fused q/k/v and gate/up projections, which may apply RoPE to a part of
/// each head only.
package final class Phi3: Module, CausalModel {
    let settings: Phi3Configuration
    package var folderSettings = FolderSettings()
    @ModuleInfo(key: "model.embed_tokens") var embedding: Embedding
    @ModuleInfo(key: "model.input_site") var inputSite: InputSite
    @ModuleInfo(key: "model.layers") var layers: [Phi3Block]
    @ModuleInfo(key: "model.norm") var norm: RMSNorm
    /// `nil` if the output layer is tied to the embedding.
    @ModuleInfo(key: "lm_head") var outputProjection: Linear?

    init(_ settings: Phi3Configuration) {
        self.settings = settings
        _embedding.wrappedValue = Embedding(settings.vocabularySize, settings.hiddenSize)
        _inputSite.wrappedValue = InputSite(.decoder, size: settings.hiddenSize)
        _layers.wrappedValue = (0..<settings.layers).map { Phi3Block(settings, layer: $0) }
        _norm.wrappedValue = RMSNorm(settings.hiddenSize, epsilon: settings.epsilon)
        _outputProjection.wrappedValue =
            settings.isTied ? nil : Linear(settings.hiddenSize, settings.vocabularySize, bias: false)
    }

    package func fusedParts(of path: String) -> [FusedPart]? {
        if path.hasSuffix(".qkv_proj") {
            let keys = settings.keyHeads * settings.headSize
            return [
                FusedPart(name: "q", size: settings.heads * settings.headSize), FusedPart(name: "k", size: keys),
                FusedPart(name: "v", size: keys),
            ]
        }
        return path.hasSuffix(".gate_up_proj") ? FusedFeedForward.parts(hidden: settings.feedForwardSize) : nil
    }

    var prefixSites: [KeyValueSite] { layers.map(\.attention.prefix) }
    func decode(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        norm(through(layers, x, context))
    }
    /// Keys rotated with the short-context frequencies don't match queries with the long-context ones.
    var rereadLength: Int? { settings.rotary.longFrequencies == nil ? nil : settings.rotary.switchLength }
}

final class Phi3Block: Module, StackLayer {
    @ModuleInfo(key: "input_layernorm") var attentionNorm: RMSNorm
    @ModuleInfo(key: "self_attn") var attention: Phi3Attention
    @ModuleInfo(key: "attention_output_site") var attentionOutput: OutputSite
    @ModuleInfo(key: "post_attention_layernorm") var feedForwardNorm: RMSNorm
    @ModuleInfo(key: "mlp") var feedForward: FusedFeedForward
    @ModuleInfo(key: "mlp_output_site") var feedForwardOutput: OutputSite
    private let rate: Double

    init(_ settings: Phi3Configuration, layer: Int) {
        _attentionNorm.wrappedValue = RMSNorm(settings.hiddenSize, epsilon: settings.epsilon)
        _attention.wrappedValue = Phi3Attention(settings, layer: layer)
        _attentionOutput.wrappedValue = OutputSite(.attention, size: settings.hiddenSize)
        _feedForwardNorm.wrappedValue = RMSNorm(settings.hiddenSize, epsilon: settings.epsilon)
        _feedForward.wrappedValue = FusedFeedForward(
            settings.hiddenSize, hidden: settings.feedForwardSize, activation: settings.activation)
        _feedForwardOutput.wrappedValue = OutputSite(.feedForward, size: settings.hiddenSize)
        rate = settings.residualDropout
    }

    /// `[tokens, hiddenSize]` -> `[tokens, hiddenSize]`.
    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        var normed = attentionNorm(x)
        let attended = attention(normed, context)
        normed = context.selected(normed)
        let x = context.selected(x) + dropout(attentionOutput(attended, input: normed), rate)
        normed = feedForwardNorm(x)
        return x + dropout(feedForwardOutput(feedForward(normed), input: normed), rate)
    }
}

final class Phi3Attention: Module {
    /// The fused q/k/v projection.
    @ModuleInfo(key: "qkv_proj") var fused: Linear
    @ModuleInfo(key: "o_proj") var output: Linear
    @ModuleInfo(key: "prefix_site") var prefix: KeyValueSite
    private let settings: Phi3Configuration
    private let layer: Int

    init(_ settings: Phi3Configuration, layer: Int) {
        (self.settings, self.layer) = (settings, layer)
        let (size, head) = (settings.hiddenSize, settings.headSize)
        _fused.wrappedValue = Linear(size, (settings.heads + 2 * settings.keyHeads) * head, bias: false)
        _output.wrappedValue = Linear(settings.heads * head, size, bias: false)
        _prefix.wrappedValue = KeyValueSite(.attention, role: .decoder, heads: settings.keyHeads, headSize: head)
    }

    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let (heads, keyHeads, size) = (settings.heads, settings.keyHeads, settings.headSize)
        // `[tokens, heads, headSize]`: queries, then keys, then values.
        let parts = fused(x).reshaped(-1, heads + 2 * keyHeads, size).split(axis: 1, [heads, keyHeads, keyHeads])
        let mixed = context.attend(
            context.rotatedQueries(context.selected(parts[0]), settings.rotary),
            context.rotated(parts[1], settings.rotary), parts[2],
            site: prefix, layer: layer, window: settings.window, scale: 1 / Double(size).squareRoot(),
            dropout: settings.attentionDropout)
        return output(mixed.reshaped(-1, heads * size))
    }
}

/// `config.json` of Phi-3.
struct Phi3Configuration: CausalConfiguration {
    let family: ModelFamily
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
    let attentionDropout: Double
    let residualDropout: Double
    let endTokens: [Int]
    /// Sliding-window size, including the token itself; `nil` for full causal attention.
    let window: Int?
    let rotary: RotaryPositions
    let json: JSON

    init(_ json: JSON, family: ModelFamily) throws {
        let read = ConfigurationReader(json: json)
        (self.json, self.family) = (json, family)
        vocabularySize = try read.integer("vocab_size", .vocabulary, default: 32064)
        hiddenSize = try read.integer("hidden_size", .width, default: 3072)
        feedForwardSize = try read.integer("intermediate_size", .width, default: 8192)
        layers = try read.integer("num_hidden_layers", .layers, default: 32)
        let count = try read.integer("num_attention_heads", .heads, default: 32)
        (heads, keyHeads, headSize) = try read.heads(count: count, headSize: hiddenSize / count)
        epsilon = try read.number("rms_norm_eps", default: 1e-5)
        isTied = try read.boolean("tie_word_embeddings", default: false)
        activation = try read.activation("hidden_act", default: "silu")
        attentionDropout = try read.number("attention_dropout", default: 0)
        residualDropout = try read.number("resid_pdrop", default: 0)
        endTokens = try read.tokens("eos_token_id", default: [32000])
        window = try read.optionalInteger("sliding_window", default: nil)
        guard json["layer_types"] ?? .null == .null else {
            throw PEFTError(
                "config.json: 'layer_types' is set, but all layers of a Phi-3 are alike",
                remedy: "remove 'layer_types'")
        }
        let original = try read.integer("original_max_position_embeddings", .length, default: 4096)
        rotary = try RotaryPositions(read, headSize: headSize, allowsPartial: true, originalPositions: original) {
            switch $0 {
            case "default", "longrope": return $0
            // Early files' names of longrope.
            case "su", "yarn": return "longrope"
            default:
                throw PEFTError(
                    "config.json: a Phi-3 doesn't support the RoPE type '\($0)'",
                    remedy: "use default or longrope")
            }
        }
    }
}

extension ModelFamily {
    static let phi3 = ModelFamily(
        name: "phi3", constructor: .generator { try Phi3(Phi3Configuration($0, family: $1)) },
        modules: .llama, tokenTypes: .none,
        // Hugging Face has no (IA)³ defaults for Phi-3, whose q, k and v are one fused projection.
        adapterTargets: AdapterTargets(
            lora: .named(["qkv_proj"]), adaLoRA: .named(["qkv_proj"]), ia3: .named(["qkv_proj", "down_proj"]),
            ia3FeedForward: ["down_proj"], norms: ["input_layernorm", "post_attention_layernorm", "norm"]),
        gguf: .none)
}
