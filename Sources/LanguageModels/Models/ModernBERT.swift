import PEFTSupport
import Torch
import TorchNN

/// ModernBERT (Warner et al. 2024): rotary positions, norms before the sublayers, gated feed-forward networks, and
/// sliding windows in both directions in most layers.
package final class ModernBERT: Module, PretrainedEncoder {
    package let head: ModelHead
    let settings: ModernBERTConfiguration
    let names: EncoderNames
    package var folderSettings = FolderSettings()
    @ModuleInfo var encoder: ModernBERTEncoder
    @ModuleInfo(key: "head.dense") var dense: Linear?
    @ModuleInfo(key: "head.norm") var headNorm: LayerNorm?
    @ModuleInfo var classifier: Linear?

    init(_ settings: ModernBERTConfiguration, head: ModelHead) {
        (self.settings, self.head) = (settings, head)
        names = EncoderNames(settings.family.modules, heads: ["head", "classifier", "decoder"], for: head.task)
        let hasHead = head.task != .embeddings
        _encoder = ModuleInfo(wrappedValue: ModernBERTEncoder(settings), key: names.key)
        _dense.wrappedValue =
            hasHead ? Linear(settings.size, settings.size, bias: settings.hasClassifierBias) : nil
        _headNorm.wrappedValue = hasHead ? settings.norm() : nil
        _classifier.wrappedValue = hasHead ? Linear(settings.size, head.outputs) : nil
    }

    package var outputLayer: String { head.task == .embeddings ? "" : "classifier" }
    package var newModules: [String] { head.task == .embeddings ? [] : ["classifier"] }
    package func isIgnorable(_ name: String) -> Bool { names.isHead(name) }
    /// The first layer of the head is that of the pretrained model for masked tokens, which not all files have.
    package func initialDeviation(of path: String) -> Double? {
        guard path.hasPrefix("classifier.") || path.hasPrefix("head.") else { return nil }
        return path.hasSuffix(".bias") ? 0 : 0.02
    }
    package func fusedParts(of path: String) -> [FusedPart]? {
        if path.hasSuffix(".Wqkv") { return ["q", "k", "v"].map { FusedPart(name: $0, size: settings.size) } }
        guard path.hasSuffix(".Wi") else { return nil }
        return ["gate", "up"].map { FusedPart(name: $0, size: settings.feedForwardSize) }
    }

    var rowPooling: Pooling.Mode { settings.classifierPooling }
    func encode(_ x: Tensor, types: Tensor?, _ context: AttentionContext) -> Tensor { encoder(x, context) }
    func rowScores(_ states: Tensor) -> Tensor { tokenScores(states) }
    func tokenScores(_ states: Tensor) -> Tensor {
        guard let dense, let headNorm, let classifier else { return states }
        return classifier(
            dropout(headNorm(settings.classifierActivation(dense(states))), settings.classifierDropout))
    }
}

final class ModernBERTEncoder: Module, EncoderLayers {
    @ModuleInfo(key: "embeddings.tok_embeddings") var words: Embedding
    @ModuleInfo(key: "embeddings.norm") var embeddingNorm: LayerNorm
    @ModuleInfo(key: "input_site") var inputSite: InputSite
    @ModuleInfo var layers: [ModernBERTBlock]
    @ModuleInfo(key: "final_norm") var norm: LayerNorm
    private let settings: ModernBERTConfiguration

    init(_ settings: ModernBERTConfiguration) {
        self.settings = settings
        _words.wrappedValue = Embedding(settings.vocabularySize, settings.size)
        _embeddingNorm.wrappedValue = settings.norm()
        _inputSite.wrappedValue = InputSite(.encoder, size: settings.size)
        _layers.wrappedValue = (0..<settings.layers).map { ModernBERTBlock(settings, layer: $0) }
        _norm.wrappedValue = settings.norm()
    }

    var prefixSites: [KeyValueSite] { layers.map(\.attention.prefix) }

    /// Embedded tokens `[tokens, size]` -> hidden states `[tokens, size]`.
    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let x = dropout(embeddingNorm(x), settings.embeddingDropout)
        // A window is relative to the places of all queries.
        guard case .some(.none) = settings.windows.last else { return norm(throughAll(layers, x, context)) }
        return norm(through(layers, x, context))
    }
}

final class ModernBERTBlock: Module, StackLayer {
    @ModuleInfo(key: "attn_norm") var attentionNorm: LayerNorm?
    @ModuleInfo(key: "attn") var attention: ModernBERTAttention
    @ModuleInfo(key: "attn.output_site") var attentionOutput: OutputSite
    @ModuleInfo(key: "mlp_norm") var feedForwardNorm: LayerNorm
    @ModuleInfo(key: "mlp.Wi") var up: Linear
    @ModuleInfo(key: "mlp.Wo") var down: Linear
    @ModuleInfo(key: "mlp.output_site") var feedForwardOutput: OutputSite
    private let settings: ModernBERTConfiguration

    init(_ settings: ModernBERTConfiguration, layer: Int) {
        self.settings = settings
        let (size, inner) = (settings.size, settings.feedForwardSize)
        // The embeddings' norm is the first layer's.
        _attentionNorm.wrappedValue = layer > 0 ? settings.norm() : nil
        _attention.wrappedValue = ModernBERTAttention(settings, layer: layer)
        _attentionOutput.wrappedValue = OutputSite(.attention, size: size)
        _feedForwardNorm.wrappedValue = settings.norm()
        _up.wrappedValue = Linear(size, 2 * inner, bias: settings.hasFeedForwardBias)
        _down.wrappedValue = Linear(inner, size, bias: settings.hasFeedForwardBias)
        _feedForwardOutput.wrappedValue = OutputSite(.feedForward, size: size)
    }

    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let normed = attentionNorm?(x) ?? x
        let mixed = attention(normed, context)
        let x = context.selected(x) + attentionOutput(mixed, input: context.selected(normed))
        let input = feedForwardNorm(x)
        let parts = up(input).split(axis: -1, [settings.feedForwardSize, settings.feedForwardSize])
        let hidden = settings.activation.gated(parts[0].contiguous(), parts[1].contiguous())
        return x + feedForwardOutput(down(dropout(hidden, settings.feedForwardDropout)), input: input)
    }
}

final class ModernBERTAttention: Module {
    @ModuleInfo(key: "Wqkv") var qkv: Linear
    @ModuleInfo(key: "Wo") var o: Linear
    @ModuleInfo(key: "prefix_site") var prefix: KeyValueSite
    private let settings: ModernBERTConfiguration
    private let layer: Int

    init(_ settings: ModernBERTConfiguration, layer: Int) {
        (self.settings, self.layer) = (settings, layer)
        _qkv.wrappedValue = Linear(settings.size, 3 * settings.size, bias: settings.hasAttentionBias)
        _o.wrappedValue = Linear(settings.size, settings.size, bias: settings.hasAttentionBias)
        _prefix.wrappedValue = KeyValueSite(
            .attention, role: .encoder, heads: settings.heads, headSize: settings.headSize)
    }

    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let size = settings.size
        let parts = qkv(x).split(axis: -1, [size, size, size]).map {
            $0.contiguous().reshaped(-1, settings.heads, settings.headSize)
        }
        let rotary = settings.windows[layer] == nil ? settings.fullRotary : settings.windowRotary
        let mixed = context.attend(
            context.rotatedQueries(context.selected(parts[0]), rotary), context.rotated(parts[1], rotary), parts[2],
            site: prefix, layer: layer, window: settings.windows[layer],
            scale: 1 / Double(settings.headSize).squareRoot(), dropout: settings.attentionDropout)
        return dropout(o(mixed.reshaped(-1, size)), settings.attentionDropout)
    }
}

struct ModernBERTConfiguration: EncoderConfiguration {
    let family: ModelFamily
    let vocabularySize: Int
    let size: Int
    let feedForwardSize: Int
    let layers: Int
    let heads: Int
    let headSize: Int
    /// The window of each layer in each direction, the token itself included; `nil` for full attention.
    let windows: [Int?]
    /// Positions of layers without and with a window.
    let fullRotary: RotaryPositions
    let windowRotary: RotaryPositions
    let activation: Activation
    let classifierActivation: Activation
    let classifierPooling: Pooling.Mode
    let epsilon: Double
    let hasNormBias: Bool
    let hasAttentionBias: Bool
    let hasFeedForwardBias: Bool
    let hasClassifierBias: Bool
    let embeddingDropout: Double
    let attentionDropout: Double
    let feedForwardDropout: Double
    let classifierDropout: Double
    let json: JSON

    init(_ json: JSON, family: ModelFamily) throws {
        let read = ConfigurationReader(json: json, defaults: ["max_position_embeddings": 8192])
        (self.json, self.family) = (json, family)
        vocabularySize = try read.integer("vocab_size", .vocabulary, default: 50368)
        size = try read.integer("hidden_size", .width, default: 768)
        feedForwardSize = try read.integer("intermediate_size", .width, default: 1152)
        layers = try read.integer("num_hidden_layers", .layers, default: 22)
        heads = try read.integer("num_attention_heads", .heads, default: 12)
        guard size.isMultiple(of: heads), (size / heads).isMultiple(of: 2) else {
            throw PEFTError(
                "config.json: the hidden size \(size) can't be divided into \(heads) heads of an even size",
                remedy: "check 'num_attention_heads'")
        }
        let headSize = size / heads
        self.headSize = headSize
        let interval = try read.integer("global_attn_every_n_layers", .layers, default: 3)
        let window = try read.integer("local_attention", default: 128, in: 0...1_000_000_000) / 2 + 1
        windows = try AttentionWindows.read(read, layers: layers, window: window) { !$0.isMultiple(of: interval) }
        try read.refuse("rope_scaling", unless: [])
        func rotary(_ type: String, _ base: Double, _ key: String) throws -> RotaryPositions {
            try RotaryPositions(read, headSize: headSize, layers: type, base: base, baseKey: key)
        }
        fullRotary = try rotary("full_attention", 160_000, "global_rope_theta")
        windowRotary = try rotary("sliding_attention", 10_000, "local_rope_theta")
        activation = try read.activation("hidden_activation")
        classifierActivation = try read.activation("classifier_activation")
        let pooling = try read.string("classifier_pooling", default: "cls")
        guard let mode = Pooling.Mode(rawValue: pooling), mode == .cls || mode == .mean else {
            throw PEFTError(
                "config.json: 'classifier_pooling' is '\(pooling)', which is not supported", remedy: "use cls or mean"
            )
        }
        classifierPooling = mode
        epsilon = try read.number("norm_eps", default: 1e-5)
        hasNormBias = try read.boolean("norm_bias", default: false)
        hasAttentionBias = try read.boolean("attention_bias", default: false)
        hasFeedForwardBias = try read.boolean("mlp_bias", default: false)
        hasClassifierBias = try read.boolean("classifier_bias", default: false)
        embeddingDropout = try read.probability("embedding_dropout", default: 0)
        attentionDropout = try read.probability("attention_dropout", default: 0)
        feedForwardDropout = try read.probability("mlp_dropout", default: 0)
        classifierDropout = try read.probability("classifier_dropout", default: 0)
    }

    func norm() -> LayerNorm { LayerNorm(size, epsilon: epsilon, hasBias: hasNormBias) }
}

extension ModelFamily {
    static let modernBERT = ModelFamily(
        name: "modernbert",
        constructor: .encoder { ModernBERT(try ModernBERTConfiguration($0, family: $1), head: $2) },
        modules: ModuleNames(
            prefix: "model", embedding: "embeddings.tok_embeddings", output: .none, attention: ["attn"],
            feedForward: ["mlp", "head"], unquantized: []),
        tokenTypes: .none,
        adapterTargets: AdapterTargets(
            lora: .named(["Wqkv"]), adaLoRA: .named(["Wqkv"]), ia3: .named(["Wqkv", "mlp.Wo"]),
            ia3FeedForward: ["mlp.Wo"], norms: ["attn_norm", "mlp_norm", "final_norm"]),
        gguf: .none)
}
