import PEFTSupport
import Torch
import TorchNN

/// BERT (Devlin et al. 2019): an encoder with a pooler and classifier over the first position, a classifier of each
/// token, or no head.
package final class BERT: Module, PretrainedEncoder {
    package let head: ModelHead
    let settings: BERTConfiguration
    let names: EncoderNames
    package var folderSettings = FolderSettings()
    @ModuleInfo var encoder: BERTEncoder
    @ModuleInfo var classifier: Linear?

    init(_ settings: BERTConfiguration, head: ModelHead) {
        (self.settings, self.head) = (settings, head)
        names = EncoderNames(settings.family.modules, heads: ["classifier", "cls", "qa_outputs"], for: head.task)
        // As in transformers, token classification has no pooler.
        _encoder = ModuleInfo(
            wrappedValue: BERTEncoder(settings, hasPooler: head.task != .tokenClassification), key: names.key)
        _classifier.wrappedValue = head.task == .embeddings ? nil : Linear(settings.size, head.outputs)
    }

    package var outputLayer: String { head.task == .embeddings ? "" : "classifier" }
    package var positionLimit: Int? { settings.positions }
    package var newModules: [String] { head.task == .embeddings ? [] : ["classifier"] }

    /// Very old files use other names for the norms' tensors.
    package func canonicalName(_ name: String) -> String {
        names.canonical(
            name.replacing(".LayerNorm.gamma", with: ".LayerNorm.weight")
                .replacing(".LayerNorm.beta", with: ".LayerNorm.bias"))
    }
    package func isIgnorable(_ name: String) -> Bool {
        names.isHead(name) || name.hasSuffix("position_ids") || name.contains("pooler.")
    }
    package func initialDeviation(of path: String) -> Double? {
        guard path.hasPrefix("classifier.") || path.contains("pooler.") else { return nil }
        return path.hasSuffix(".bias") ? 0 : 0.02
    }

    func encode(_ x: Tensor, types: Tensor?, _ context: AttentionContext) -> Tensor {
        encoder(x, types: types, context)
    }
    func rowScores(_ states: Tensor) -> Tensor {
        let pooled = encoder.pooler?(states).tanh() ?? states
        return tokenScores(pooled)
    }
    func tokenScores(_ states: Tensor) -> Tensor {
        classifier?(dropout(states, settings.classifierDropout)) ?? states
    }
}

/// BERT without a head; RoBERTa differs only in its positions.
final class BERTEncoder: Module, EncoderLayers {
    @ModuleInfo(key: "embeddings.word_embeddings") var words: Embedding
    @ModuleInfo(key: "embeddings.position_embeddings") var positions: Embedding
    @ModuleInfo(key: "embeddings.token_type_embeddings") var types: Embedding
    @ModuleInfo(key: "embeddings.LayerNorm") var embeddingNorm: LayerNorm
    @ModuleInfo(key: "input_site") var inputSite: InputSite
    @ModuleInfo(key: "encoder.layer") var layers: [BERTBlock]
    @ModuleInfo(key: "pooler.dense") var pooler: Linear?
    private let settings: BERTConfiguration

    init(_ settings: BERTConfiguration, hasPooler: Bool) {
        self.settings = settings
        let size = settings.size
        _words.wrappedValue = Embedding(settings.vocabularySize, size)
        _positions.wrappedValue = Embedding(settings.positions, size)
        _types.wrappedValue = Embedding(settings.types, size)
        _embeddingNorm.wrappedValue = LayerNorm(size, epsilon: settings.epsilon)
        _inputSite.wrappedValue = InputSite(.encoder, size: size)
        _layers.wrappedValue = (0..<settings.layers).map { BERTBlock(settings, layer: $0) }
        _pooler.wrappedValue = hasPooler ? Linear(size, size) : nil
    }

    var prefixSites: [KeyValueSite] { layers.map(\.attention.prefix) }

    /// Embedded tokens `[tokens, size]` -> hidden states `[tokens, size]`.
    func callAsFunction(_ x: Tensor, types: Tensor?, _ context: AttentionContext) -> Tensor {
        let type = types.map { self.types($0) } ?? self.types.weight.rows(Tensor([0], device: x.device), as: x.dtype)
        let places =
            settings.firstPosition > 0
            ? (context.positions + Double(settings.firstPosition)).to(.int64) : context.positions
        let x = dropout(embeddingNorm(x + positions(places) + type), settings.dropout)
        return through(layers, x, context)
    }
}

final class BERTBlock: Module, StackLayer {
    @ModuleInfo(key: "attention") var attention: BERTAttention
    @ModuleInfo(key: "attention.output_site") var attentionOutput: OutputSite
    @ModuleInfo(key: "attention.output.LayerNorm") var attentionNorm: LayerNorm
    @ModuleInfo(key: "intermediate.dense") var up: Linear
    @ModuleInfo(key: "output.dense") var down: Linear
    @ModuleInfo(key: "output_site") var feedForwardOutput: OutputSite
    @ModuleInfo(key: "output.LayerNorm") var feedForwardNorm: LayerNorm
    private let rate: Double
    private let activation: Activation

    init(_ settings: BERTConfiguration, layer: Int) {
        _attention.wrappedValue = BERTAttention(settings, layer: layer)
        _attentionOutput.wrappedValue = OutputSite(.attention, size: settings.size)
        _attentionNorm.wrappedValue = LayerNorm(settings.size, epsilon: settings.epsilon)
        _up.wrappedValue = Linear(settings.size, settings.feedForwardSize)
        _down.wrappedValue = Linear(settings.feedForwardSize, settings.size)
        _feedForwardOutput.wrappedValue = OutputSite(.feedForward, size: settings.size)
        _feedForwardNorm.wrappedValue = LayerNorm(settings.size, epsilon: settings.epsilon)
        (rate, activation) = (settings.dropout, settings.activation)
    }

    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let mixed = attention(x, context)
        let x = context.selected(x)
        let attended = dropout(attentionOutput(mixed, input: x), rate)
        let middle = attentionNorm(x + attended)
        return feedForwardNorm(middle + dropout(feedForwardOutput(down(activation(up(middle))), input: middle), rate))
    }
}

final class BERTAttention: Module {
    @ModuleInfo(key: "self.query") var q: Linear
    @ModuleInfo(key: "self.key") var k: Linear
    @ModuleInfo(key: "self.value") var v: Linear
    @ModuleInfo(key: "output.dense") var o: Linear
    @ModuleInfo(key: "prefix_site") var prefix: KeyValueSite
    private let settings: BERTConfiguration
    private let layer: Int

    init(_ settings: BERTConfiguration, layer: Int) {
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

struct BERTConfiguration: EncoderConfiguration {
    let family: ModelFamily
    let vocabularySize: Int
    let size: Int
    let feedForwardSize: Int
    let layers: Int
    let heads: Int
    let positions: Int
    /// The position of the first token: RoBERTa counts from the padding id + 1.
    let firstPosition: Int
    let types: Int
    let epsilon: Double
    let dropout: Double
    let attentionDropout: Double
    let classifierDropout: Double
    let activation: Activation
    let json: JSON

    /// - Parameter isRoBERTa: whether positions and defaults are RoBERTa's.
    init(_ json: JSON, isRoBERTa: Bool, family: ModelFamily) throws {
        let read = ConfigurationReader(json: json)
        (self.json, self.family) = (json, family)
        vocabularySize = try read.integer("vocab_size", .vocabulary, default: isRoBERTa ? 50265 : 30522)
        size = try read.integer("hidden_size", .width, default: 768)
        layers = try read.integer("num_hidden_layers", .layers, default: 12)
        heads = try read.integer("num_attention_heads", .heads, default: 12)
        feedForwardSize = try read.integer("intermediate_size", .width, default: 3072)
        positions = try read.integer("max_position_embeddings", .length, default: 512)
        firstPosition = isRoBERTa ? try read.integer("pad_token_id", default: 1, in: 0...1_000_000_000) + 1 : 0
        types = try read.integer("type_vocab_size", .width, default: 2)
        epsilon = try read.number("layer_norm_eps", default: 1e-12)
        dropout = try read.number("hidden_dropout_prob", default: 0.1)
        attentionDropout = try read.number("attention_probs_dropout_prob", default: 0.1)
        classifierDropout = try read.number("classifier_dropout", default: dropout)
        activation = try read.activation("hidden_act")
        guard size.isMultiple(of: heads) else {
            throw PEFTError(
                "config.json: the hidden size \(size) isn't divisible by \(heads) heads",
                remedy: "check 'num_attention_heads'")
        }
        let kind = try read.string("position_embedding_type", default: "absolute")
        guard kind == "absolute" else {
            throw PEFTError(
                "config.json: 'position_embedding_type' is '\(kind)', which is not supported",
                remedy: "use a model with absolute positions")
        }
    }
}

extension ConfigurationReader {
    /// An activation by Hugging Face's name; GELU by default.
    func activation(_ key: String) throws -> Activation {
        let name = try string(key, default: "gelu")
        guard let activation = Activation(huggingFaceName: name) else {
            throw PEFTError(
                "config.json: '\(key)' is '\(name)', which is not supported", remedy: "use gelu, relu or silu")
        }
        return activation
    }
}

extension ModelFamily {
    static let bert = ModelFamily(
        name: "bert",
        constructor: .encoder { BERT(try BERTConfiguration($0, isRoBERTa: false, family: $1), head: $2) },
        modules: .bert(prefix: "bert"), tokenTypes: .embedded(key: "type_vocab_size", default: 2),
        adapterTargets: AdapterTargets(
            lora: .named(["query", "value"]), adaLoRA: .named(["query", "value"]),
            ia3: .named(["key", "value", "output.dense"]), ia3FeedForward: ["output.dense"], norms: ["LayerNorm"]),
        gguf: .none)
}

extension ModuleNames {
    static func bert(prefix: String) -> ModuleNames {
        ModuleNames(
            prefix: prefix, embedding: "embeddings.word_embeddings", output: .none, attention: ["attention"],
            feedForward: ["intermediate", "output", "pooler"], unquantized: [])
    }
}
