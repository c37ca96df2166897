import PEFTSupport
import Torch
import TorchNN

/// DistilBERT (Sanh et al. 2019): BERT's blocks under other names, without token types and pooler, and with an
/// additional layer in the sequence classification head.
package final class DistilBERT: Module, PretrainedEncoder {
    package let head: ModelHead
    let settings: DistilBERTConfiguration
    let names: EncoderNames
    package var folderSettings = FolderSettings()
    @ModuleInfo var encoder: DistilBERTEncoder
    @ModuleInfo(key: "pre_classifier") var preClassifier: Linear?
    @ModuleInfo var classifier: Linear?

    init(_ settings: DistilBERTConfiguration, head: ModelHead) {
        (self.settings, self.head) = (settings, head)
        names = EncoderNames(
            settings.family.modules,
            heads: [
                "pre_classifier", "classifier", "vocab_transform", "vocab_layer_norm", "vocab_projector",
                "qa_outputs",
            ], for: head.task)
        _encoder = ModuleInfo(wrappedValue: DistilBERTEncoder(settings), key: names.key)
        _preClassifier.wrappedValue = head.task.scoresRows ? Linear(settings.size, settings.size) : nil
        _classifier.wrappedValue = head.task == .embeddings ? nil : Linear(settings.size, head.outputs)
    }

    package var outputLayer: String { head.task == .embeddings ? "" : "classifier" }
    package var positionLimit: Int? { settings.positions }
    /// Hugging Face PEFT compares name suffixes, and so trains `pre_classifier` with `classifier`.
    package var newModules: [String] {
        head.task == .embeddings ? [] : head.task.scoresRows ? ["pre_classifier", "classifier"] : ["classifier"]
    }
    package func isIgnorable(_ name: String) -> Bool { names.isHead(name) || name.hasSuffix("position_ids") }
    package func initialDeviation(of path: String) -> Double? {
        guard names.isHead(path) else { return nil }
        return path.hasSuffix(".bias") ? 0 : 0.02
    }

    func encode(_ x: Tensor, types: Tensor?, _ context: AttentionContext) -> Tensor { encoder(x, context) }
    func rowScores(_ states: Tensor) -> Tensor {
        let pooled = Activation.relu(preClassifier?(states) ?? states)
        return classifier?(dropout(pooled, settings.classifierDropout)) ?? pooled
    }
    func tokenScores(_ states: Tensor) -> Tensor { classifier?(dropout(states, settings.dropout)) ?? states }
}

final class DistilBERTEncoder: Module, EncoderLayers {
    @ModuleInfo(key: "embeddings.word_embeddings") var words: Embedding
    @ModuleInfo(key: "embeddings.position_embeddings") var positions: Embedding
    @ModuleInfo(key: "embeddings.LayerNorm") var embeddingNorm: LayerNorm
    @ModuleInfo(key: "input_site") var inputSite: InputSite
    @ModuleInfo(key: "transformer.layer") var layers: [DistilBERTBlock]
    private let rate: Double

    init(_ settings: DistilBERTConfiguration) {
        rate = settings.dropout
        _words.wrappedValue = Embedding(settings.vocabularySize, settings.size)
        _positions.wrappedValue = Embedding(settings.positions, settings.size)
        _embeddingNorm.wrappedValue = LayerNorm(settings.size, epsilon: DistilBERTConfiguration.epsilon)
        _inputSite.wrappedValue = InputSite(.encoder, size: settings.size)
        _layers.wrappedValue = (0..<settings.layers).map { DistilBERTBlock(settings, layer: $0) }
    }

    var prefixSites: [KeyValueSite] { layers.map(\.attention.prefix) }

    /// Embedded tokens `[tokens, size]` -> hidden states `[tokens, size]`.
    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let x = dropout(embeddingNorm(x + positions(context.positions)), rate)
        return through(layers, x, context)
    }
}

final class DistilBERTBlock: Module, StackLayer {
    @ModuleInfo(key: "attention") var attention: DistilBERTAttention
    @ModuleInfo(key: "attention_output_site") var attentionOutput: OutputSite
    @ModuleInfo(key: "sa_layer_norm") var attentionNorm: LayerNorm
    @ModuleInfo(key: "ffn.lin1") var up: Linear
    @ModuleInfo(key: "ffn.lin2") var down: Linear
    @ModuleInfo(key: "ffn_output_site") var feedForwardOutput: OutputSite
    @ModuleInfo(key: "output_layer_norm") var feedForwardNorm: LayerNorm
    private let rate: Double
    private let activation: Activation

    init(_ settings: DistilBERTConfiguration, layer: Int) {
        _attention.wrappedValue = DistilBERTAttention(settings, layer: layer)
        _attentionOutput.wrappedValue = OutputSite(.attention, size: settings.size, knowsStream: true)
        _attentionNorm.wrappedValue = LayerNorm(settings.size, epsilon: DistilBERTConfiguration.epsilon)
        _up.wrappedValue = Linear(settings.size, settings.feedForwardSize)
        _down.wrappedValue = Linear(settings.feedForwardSize, settings.size)
        _feedForwardOutput.wrappedValue = OutputSite(.feedForward, size: settings.size, knowsStream: true)
        _feedForwardNorm.wrappedValue = LayerNorm(settings.size, epsilon: DistilBERTConfiguration.epsilon)
        (rate, activation) = (settings.dropout, settings.activation)
    }

    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        // Unlike in BERT, there is no dropout on the attention's output.
        let mixed = attention(x, context)
        let x = context.selected(x)
        let attended = attentionOutput(mixed, input: x, stream: ResidualStream(x, norm: attentionNorm))
        let middle = attentionNorm(x + attended)
        let fed = feedForwardOutput(
            dropout(down(activation(up(middle))), rate), input: middle,
            stream: ResidualStream(middle, norm: feedForwardNorm))
        return feedForwardNorm(middle + fed)
    }
}

final class DistilBERTAttention: Module {
    @ModuleInfo(key: "q_lin") var q: Linear
    @ModuleInfo(key: "k_lin") var k: Linear
    @ModuleInfo(key: "v_lin") var v: Linear
    @ModuleInfo(key: "out_lin") var o: Linear
    @ModuleInfo(key: "prefix_site") var prefix: KeyValueSite
    private let settings: DistilBERTConfiguration
    private let layer: Int

    init(_ settings: DistilBERTConfiguration, layer: Int) {
        (self.settings, self.layer) = (settings, layer)
        _q.wrappedValue = Linear(settings.size, settings.size)
        _k.wrappedValue = Linear(settings.size, settings.size)
        _v.wrappedValue = Linear(settings.size, settings.size)
        _o.wrappedValue = Linear(settings.size, settings.size)
        _prefix.wrappedValue = KeyValueSite(
            .attention, role: .encoder, heads: settings.heads, headSize: settings.size / settings.heads)
    }

    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let size = settings.size / settings.heads
        func split(_ x: Tensor) -> Tensor { x.reshaped(-1, settings.heads, size) }
        let all = context.projected(x, q, k, v)
        let mixed = context.attend(
            split(all.q), split(all.k), split(all.v), site: prefix, layer: layer,
            scale: 1 / Double(size).squareRoot(),
            dropout: settings.attentionDropout)
        return o(mixed.reshaped(-1, settings.size))
    }
}

struct DistilBERTConfiguration: EncoderConfiguration {
    static let epsilon = 1e-12
    let family: ModelFamily
    let vocabularySize: Int
    let size: Int
    let feedForwardSize: Int
    let layers: Int
    let heads: Int
    let positions: Int
    let dropout: Double
    let attentionDropout: Double
    let classifierDropout: Double
    let activation: Activation
    let json: JSON

    init(_ json: JSON, family: ModelFamily) throws {
        let read = ConfigurationReader(json: json)
        (self.json, self.family) = (json, family)
        vocabularySize = try read.integer("vocab_size", .vocabulary, default: 30522)
        size = try read.integer("dim", .width, default: 768)
        layers = try read.integer("n_layers", .layers, default: 6)
        heads = try read.integer("n_heads", .heads, default: 12)
        feedForwardSize = try read.integer("hidden_dim", .width, default: 3072)
        positions = try read.integer("max_position_embeddings", .length, default: 512)
        dropout = try read.number("dropout", default: 0.1)
        attentionDropout = try read.number("attention_dropout", default: 0.1)
        classifierDropout = try read.number("seq_classif_dropout", default: 0.2)
        activation = try read.activation("activation")
        guard size.isMultiple(of: heads) else {
            throw PEFTError(
                "config.json: the hidden size \(size) isn't divisible by \(heads) heads", remedy: "check 'n_heads'")
        }
    }
}

extension ModelFamily {
    static let distilbert = ModelFamily(
        name: "distilbert",
        constructor: .encoder { DistilBERT(try DistilBERTConfiguration($0, family: $1), head: $2) },
        modules: ModuleNames(
            prefix: "distilbert", embedding: "embeddings.word_embeddings", output: .none, attention: ["attention"],
            feedForward: ["ffn"], unquantized: []),
        tokenTypes: .none,
        adapterTargets: AdapterTargets(
            lora: .named(["q_lin", "v_lin"]), adaLoRA: .named(["q_lin", "v_lin"]),
            ia3: .named(["k_lin", "v_lin", "lin2"]), ia3FeedForward: ["lin2"],
            norms: ["LayerNorm", "sa_layer_norm", "output_layer_norm"]),
        gguf: .none)
}
