import PEFTSupport
import Torch
import TorchNN

/// GPT-2 (Radford et al. 2019): decoder-only, with learned positions and a fused q/k/v projection.
package final class GPT2: Module, CausalModel {
    let settings: GPT2Configuration
    package var folderSettings = FolderSettings()
    @ModuleInfo(key: "transformer.wte") var embedding: Embedding
    @ModuleInfo(key: "transformer.wpe") var positions: Embedding
    @ModuleInfo(key: "transformer.input_site") var inputSite: InputSite
    @ModuleInfo(key: "transformer.h") var layers: [GPT2Block]
    @ModuleInfo(key: "transformer.ln_f") var norm: LayerNorm
    /// `nil` if the output layer is tied to the embedding, as in all published models.
    @ModuleInfo(key: "lm_head") var outputProjection: Linear?

    init(_ settings: GPT2Configuration) {
        self.settings = settings
        _embedding.wrappedValue = Embedding(settings.vocabularySize, settings.size)
        _positions.wrappedValue = Embedding(settings.positions, settings.size)
        _inputSite.wrappedValue = InputSite(.decoder, size: settings.size)
        _layers.wrappedValue = (0..<settings.layers).map { GPT2Block(settings, layer: $0) }
        _norm.wrappedValue = LayerNorm(settings.size, epsilon: settings.epsilon)
        _outputProjection.wrappedValue =
            settings.isTied ? nil : Linear(settings.size, settings.vocabularySize, bias: false)
    }

    package var positionLimit: Int? { settings.positions }
    package func fusedParts(of path: String) -> [FusedPart]? {
        path.hasSuffix(".c_attn") ? ["q", "k", "v"].map { FusedPart(name: $0, size: settings.size) } : nil
    }
    /// Published files contain the causal mask as buffers.
    package func isIgnorable(_ name: String) -> Bool {
        name.hasSuffix(".attn.bias") || name.hasSuffix(".attn.masked_bias")
    }

    var prefixSites: [KeyValueSite] { layers.map(\.attention.prefix) }
    func decode(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let x = dropout(x + positions(context.positions), settings.embeddingDropout)
        return norm(through(layers, x, context))
    }
}

final class GPT2Block: Module, StackLayer {
    @ModuleInfo(key: "ln_1") var attentionNorm: LayerNorm
    @ModuleInfo(key: "attn") var attention: GPT2Attention
    @ModuleInfo(key: "attn_output_site") var attentionOutput: OutputSite
    @ModuleInfo(key: "ln_2") var feedForwardNorm: LayerNorm
    @ModuleInfo(key: "mlp.c_fc") var up: Linear
    @ModuleInfo(key: "mlp.c_proj") var down: Linear
    @ModuleInfo(key: "mlp_output_site") var feedForwardOutput: OutputSite
    private let rate: Double
    private let activation: Activation

    init(_ settings: GPT2Configuration, layer: Int) {
        _attentionNorm.wrappedValue = LayerNorm(settings.size, epsilon: settings.epsilon)
        _attention.wrappedValue = GPT2Attention(settings, layer: layer)
        _attentionOutput.wrappedValue = OutputSite(.attention, size: settings.size, knowsStream: true)
        _feedForwardNorm.wrappedValue = LayerNorm(settings.size, epsilon: settings.epsilon)
        _up.wrappedValue = TransposedWeight.linear(settings.size, settings.feedForwardSize)
        _down.wrappedValue = TransposedWeight.linear(settings.feedForwardSize, settings.size)
        _feedForwardOutput.wrappedValue = OutputSite(.feedForward, size: settings.size, knowsStream: true)
        (rate, activation) = (settings.residualDropout, settings.activation)
    }

    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        var normed = attentionNorm(x)
        let attended = attention(normed, context)
        normed = context.selected(normed)
        var x = context.selected(x)
        x = x + dropout(attentionOutput(attended, input: normed, stream: ResidualStream(x)), rate)
        normed = feedForwardNorm(x)
        let fed = feedForwardOutput(down(activation(up(normed))), input: normed, stream: ResidualStream(x))
        return x + dropout(fed, rate)
    }
}

final class GPT2Attention: Module {
    /// The fused q/k/v projection.
    @ModuleInfo(key: "c_attn") var fused: Linear
    @ModuleInfo(key: "c_proj") var output: Linear
    @ModuleInfo(key: "prefix_site") var prefix: KeyValueSite
    private let settings: GPT2Configuration
    private let layer: Int

    init(_ settings: GPT2Configuration, layer: Int) {
        (self.settings, self.layer) = (settings, layer)
        _fused.wrappedValue = TransposedWeight.linear(settings.size, 3 * settings.size)
        _output.wrappedValue = TransposedWeight.linear(settings.size, settings.size)
        _prefix.wrappedValue = KeyValueSite(
            .attention, role: .decoder, heads: settings.heads, headSize: settings.size / settings.heads)
    }

    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let (size, heads) = (settings.size, settings.heads)
        // `[tokens, heads, headSize]`: queries, then keys, then values.
        let parts = fused(x).reshaped(-1, 3 * heads, size / heads).split(axis: 1, [heads, heads, heads])
        let mixed = context.attend(
            context.selected(parts[0]), parts[1], parts[2], site: prefix, layer: layer,
            scale: settings.scale(ofLayer: layer),
            dropout: settings.attentionDropout)
        return output(mixed.reshaped(-1, size))
    }
}

struct GPT2Configuration: CausalConfiguration {
    let family: ModelFamily
    let vocabularySize: Int
    let size: Int
    let feedForwardSize: Int
    let layers: Int
    let heads: Int
    let positions: Int
    let epsilon: Double
    let embeddingDropout: Double
    let attentionDropout: Double
    let residualDropout: Double
    let activation: Activation
    let isTied: Bool
    /// Whether scores are divided by √headSize, and whether also by the layer's index from 1.
    let scalesScores: Bool
    let scalesByLayer: Bool
    let endTokens: [Int]
    let json: JSON

    /// Scale of a layer's attention scores. (`reorder_and_upcast_attn` multiplies in another order in fp32, with the
    /// same result.)
    func scale(ofLayer layer: Int) -> Double {
        (scalesScores ? 1 / Double(size / heads).squareRoot() : 1) / (scalesByLayer ? Double(layer + 1) : 1)
    }

    init(_ json: JSON, family: ModelFamily) throws {
        let read = ConfigurationReader(json: json)
        (self.json, self.family) = (json, family)
        vocabularySize = try read.integer("vocab_size", .vocabulary, default: 50257)
        size = try read.integer("n_embd", .width, default: 768)
        layers = try read.integer("n_layer", .layers, default: 12)
        heads = try read.integer("n_head", .heads, default: 12)
        positions = try read.integer("n_positions", .length, default: 1024)
        feedForwardSize = try read.integer("n_inner", .width, default: 4 * size)
        epsilon = try read.number("layer_norm_epsilon", default: 1e-5)
        embeddingDropout = try read.number("embd_pdrop", default: 0.1)
        attentionDropout = try read.number("attn_pdrop", default: 0.1)
        residualDropout = try read.number("resid_pdrop", default: 0.1)
        isTied = try read.boolean("tie_word_embeddings", default: true)
        scalesScores = try read.boolean("scale_attn_weights", default: true)
        scalesByLayer = try read.boolean("scale_attn_by_inverse_layer_idx", default: false)
        endTokens = try read.tokens("eos_token_id", default: [50256])
        guard try !read.boolean("add_cross_attention", default: false) else {
            throw PEFTError(
                "config.json: 'add_cross_attention' is true, which is not supported",
                remedy: "use a decoder-only GPT-2")
        }
        activation = try read.activation("activation_function", default: "gelu_new")
        guard size.isMultiple(of: heads) else {
            throw PEFTError(
                "config.json: the hidden size \(size) isn't divisible by \(heads) heads", remedy: "check 'n_head'")
        }
    }
}

extension ModelFamily {
    static let gpt2 = ModelFamily(
        name: "gpt2", constructor: .generator { try GPT2(GPT2Configuration($0, family: $1)) },
        modules: ModuleNames(
            prefix: "transformer", embedding: "wte", output: .projection("lm_head"), attention: ["attn"],
            feedForward: ["mlp"], unquantized: []),
        tokenTypes: .none,
        adapterTargets: AdapterTargets(
            lora: .named(["c_attn"]), adaLoRA: .named(["c_attn"]), ia3: .named(["c_attn", "mlp.c_proj"]),
            ia3FeedForward: ["mlp.c_proj"], norms: ["ln_1", "ln_2", "ln_f"]),
        gguf: .none)
}
