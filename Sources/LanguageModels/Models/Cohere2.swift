import PEFTSupport
import Torch
import TorchNN

/// Command R7B and Command A (Cohere 2025). Attention and feed-forward network of a block read the same normalized
/// input, and their outputs are added at once (parallel sublayers; Wang & Komatsuzaki 2021). Three of four layers have
/// sliding windows and RoPE; the others have neither.
package final class Cohere2: Module, CausalModel {
    let settings: Cohere2Configuration
    package var folderSettings = FolderSettings()
    @ModuleInfo(key: "model.embed_tokens") var embedding: Embedding
    @ModuleInfo(key: "model.input_site") var inputSite: InputSite
    @ModuleInfo(key: "model.layers") var layers: [Cohere2Block]
    @ModuleInfo(key: "model.norm") var norm: LayerNorm
    /// `nil` if the output layer is tied to the embedding.
    @ModuleInfo(key: "lm_head") var outputProjection: Linear?

    init(_ settings: Cohere2Configuration) {
        self.settings = settings
        _embedding.wrappedValue = Embedding(settings.vocabularySize, settings.hiddenSize)
        _inputSite.wrappedValue = InputSite(.decoder, size: settings.hiddenSize)
        _layers.wrappedValue = (0..<settings.layers).map { Cohere2Block(settings, layer: $0) }
        _norm.wrappedValue = settings.norm()
        _outputProjection.wrappedValue =
            settings.isTied ? nil : Linear(settings.hiddenSize, settings.vocabularySize, bias: false)
    }

    var prefixSites: [KeyValueSite] { layers.map(\.attention.prefix) }
    var outputScale: Double { settings.outputScale }
    func decode(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        norm(through(layers, x, context))
    }
}

final class Cohere2Block: Module, StackLayer {
    /// The norm of the input of both sublayers.
    @ModuleInfo(key: "input_layernorm") var norm: LayerNorm
    @ModuleInfo(key: "self_attn") var attention: GroupedQueryAttention
    @ModuleInfo(key: "attention_output_site") var attentionOutput: OutputSite
    @ModuleInfo(key: "mlp") var feedForward: GatedFeedForward
    @ModuleInfo(key: "mlp_output_site") var feedForwardOutput: OutputSite

    init(_ settings: Cohere2Configuration, layer: Int) {
        let window = settings.windows[layer]
        _norm.wrappedValue = settings.norm()
        _attention.wrappedValue = GroupedQueryAttention(
            settings.attention, layer: layer, rotary: window == nil ? nil : settings.rotary, window: window)
        _attentionOutput.wrappedValue = OutputSite(.attention, size: settings.hiddenSize)
        _feedForward.wrappedValue = GatedFeedForward(
            settings.hiddenSize, hidden: settings.feedForwardSize, activation: settings.activation)
        _feedForwardOutput.wrappedValue = OutputSite(.feedForward, size: settings.hiddenSize)
    }

    /// `[tokens, hiddenSize]` -> `[tokens, hiddenSize]`.
    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        var normed = norm(x)
        let mixed = attention(normed, context)
        normed = context.selected(normed)
        return context.selected(x) + attentionOutput(mixed, input: normed)
            + feedForwardOutput(feedForward(normed), input: normed)
    }
}

/// `config.json` of Cohere 2.
struct Cohere2Configuration: CausalConfiguration {
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
    let hasBiases: Bool
    let attentionDropout: Double
    /// Factor of the logits.
    let outputScale: Double
    let endTokens: [Int]
    /// Sliding-window size of each layer; `nil` for full attention without RoPE.
    let windows: [Int?]
    let rotary: RotaryPositions
    let json: JSON

    init(_ json: JSON, family: ModelFamily) throws {
        let read = ConfigurationReader(json: json)
        (self.json, self.family) = (json, family)
        vocabularySize = try read.integer("vocab_size", .vocabulary, default: 256_000)
        hiddenSize = try read.integer("hidden_size", .width, default: 8192)
        feedForwardSize = try read.integer("intermediate_size", .width, default: 22528)
        layers = try read.integer("num_hidden_layers", .layers, default: 40)
        let count = try read.integer("num_attention_heads", .heads, default: 64)
        (heads, keyHeads, headSize) = try read.heads(count: count, headSize: hiddenSize / count)
        epsilon = try read.number("layer_norm_eps", default: 1e-5)
        isTied = try read.boolean("tie_word_embeddings", default: true)
        activation = try read.activation("hidden_act", default: "silu")
        hasBiases = try read.boolean("attention_bias", default: false)
        attentionDropout = try read.number("attention_dropout", default: 0)
        outputScale = try read.number("logit_scale", default: 0.0625)
        endTokens = try read.tokens("eos_token_id", default: [255_001])
        let period = try read.integer("sliding_window_pattern", .length, default: 4)
        let window = try read.optionalInteger("sliding_window", default: 4096)
        windows = try AttentionWindows.read(read, layers: layers, window: window) { !($0 + 1).isMultiple(of: period) }
        rotary = try RotaryPositions(read, headSize: headSize, pairsNeighbors: true)
    }

    func norm() -> LayerNorm { LayerNorm(hiddenSize, epsilon: epsilon, hasBias: false) }

    var attention: GroupedQueryAttention.Settings {
        GroupedQueryAttention.Settings(
            hiddenSize: hiddenSize, heads: heads, keyHeads: keyHeads, headSize: headSize, hasQKVBias: hasBiases,
            hasOutputBias: hasBiases, dropout: attentionDropout)
    }
}

extension ModelFamily {
    static let cohere2 = ModelFamily(
        name: "cohere2", constructor: .generator { try Cohere2(Cohere2Configuration($0, family: $1)) },
        modules: .llama, tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Llama's.
        adapterTargets: .likeLlama(norms: ["input_layernorm", "norm"]),
        gguf: .architecture(.cohere2))
}

extension Cohere2: GGUFWritable {
    var ggufSizes: GGUFSizes {
        GGUFSizes(
            layers: settings.layers, hiddenSize: settings.hiddenSize, feedForwardSize: settings.feedForwardSize,
            heads: settings.heads, keyHeads: settings.keyHeads, headSize: settings.headSize,
            epsilon: settings.epsilon)
    }

    func describe(in description: inout GGUFDescription) throws {
        guard settings.activation == .silu else { throw description.refusal("its activation isn't SiLU") }
        guard settings.isTied else { throw description.refusal("the output layer isn't tied to the embedding") }
        guard let window = settings.windows.compactMap({ $0 }).first,
            settings.windows.indices.allSatisfy({
                settings.windows[$0] == (($0 + 1).isMultiple(of: Self.period) ? nil : window)
            })
        else { throw description.refusal("sliding-window layers aren't all but every \(Self.period)th") }
        description.addSizes(of: self, epsilonKey: GGUFArchitecture.cohere2.epsilon.file)
        try description.addRotary(settings.rotary)
        guard description.factors == nil else { throw description.refusal("its RoPE is scaled") }
        description.add("attention.sliding_window", .integer(window))
        description.add("logit_scale", .number(Float(settings.outputScale)))
    }

    /// llama.cpp's sliding windows are in all layers but every fourth.
    static let period = 4
}

extension GGUFArchitecture {
    static let cohere2 = GGUFArchitecture(
        name: "cohere2", modelClass: "Cohere2ForCausalLM",
        tensors: GGUFTensorNames(
            outer: GGUFTensorNames.llama.outer.filter { $0.file != "output" },
            inner: GGUFTensorNames.llama.inner.filter { $0.file != "ffn_norm" }, biases: []),
        pairsNeighbors: false, addsOneToNorms: false, hasRotaryFactors: false,
        epsilon: ("attention.layer_norm_epsilon", "layer_norm_eps")
    ) { read, _ in
        [
            "hidden_act": "silu", "attention_bias": false, "logit_scale": .number(try read.number("logit_scale")),
            "sliding_window": .integer(try read.count("attention.sliding_window")),
            "sliding_window_pattern": .integer(Cohere2.period),
        ]
    }
}
