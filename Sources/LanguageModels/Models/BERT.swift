import Support
import Torch
import TorchNN

/// BERT (Devlin et al. 2019) as a classifier: an encoder, a pooler over its first position, and a projection onto the
/// classes.
public final class BERT: Module, LanguageModel {
    let settings: BERTConfiguration
    @ModuleInfo(key: "bert.embeddings.word_embeddings") var words: Embedding
    @ModuleInfo(key: "bert.embeddings.position_embeddings") var positions: Embedding
    @ModuleInfo(key: "bert.embeddings.token_type_embeddings") var types: Embedding
    @ModuleInfo(key: "bert.embeddings.LayerNorm") var embeddingNorm: LayerNorm
    @ModuleInfo(key: "bert.input_site") var inputSite: InputSite
    @ModuleInfo(key: "bert.encoder.layer") var layers: [BERTBlock]
    @ModuleInfo(key: "bert.pooler.dense") var pooler: Linear
    @ModuleInfo var classifier: Linear

    init(_ settings: BERTConfiguration) {
        self.settings = settings
        let size = settings.size
        _words.wrappedValue = Embedding(settings.vocabularySize, size)
        _positions.wrappedValue = Embedding(settings.positions, size)
        _types.wrappedValue = Embedding(settings.types, size)
        _embeddingNorm.wrappedValue = LayerNorm(size, epsilon: settings.epsilon)
        _inputSite.wrappedValue = InputSite(.encoder, size: size)
        _layers.wrappedValue = (0..<settings.layers).map { BERTBlock(settings, layer: $0) }
        _pooler.wrappedValue = Linear(size, size)
        _classifier.wrappedValue = Linear(size, settings.classes)
    }

    public var family: String { "bert" }
    public var architecture: Architecture { .encoder }
    public var configuration: JSON { settings.json }
    public var outputLayer: String { "classifier" }
    public var inputEmbedding: String { "bert.embeddings.word_embeddings" }
    public var newModules: [String] { ["classifier"] }
    public var aliases: [String: String] { [:] }
    public var generationDefaults: GenerationDefaults {
        GenerationDefaults(startToken: nil, endTokens: [], padToken: 0)
    }

    /// Files of the encoder alone have no prefix; very old ones name the norms' tensors differently.
    public func canonicalName(_ name: String) -> String {
        let name = name.replacing(".LayerNorm.gamma", with: ".LayerNorm.weight")
            .replacing(".LayerNorm.beta", with: ".LayerNorm.bias")
        return name.hasPrefix("bert.") || name.hasPrefix("classifier.") || name.hasPrefix("cls.")
            ? name : "bert." + name
    }
    public func isIgnorable(_ name: String) -> Bool { name.hasPrefix("cls.") || name.hasSuffix("position_ids") }
    public func initialDeviation(of path: String) -> Double? {
        guard path.hasPrefix("classifier.") || path.hasPrefix("bert.pooler.") else { return nil }
        return path.hasSuffix(".bias") ? 0 : 0.02
    }

    public func batch(_ rows: [(input: [Int], target: [Int])], device: Device) -> TrainingBatch {
        TrainingBatch(
            input: PackedSequences(rows.map(\.input), device: device), decoder: nil,
            targets: Tensor(rows.compactMap(\.target.first), device: device))
    }

    /// Sum over rows of −log p(class).
    public func lossSum(_ batch: TrainingBatch, labelSmoothing: Double) -> Tensor {
        let logs = logits(batch).logSoftmax()
        let wanted = logs.gathering(axis: 1, batch.targets.unsqueezed(1)).sum() * (labelSmoothing - 1)
        return labelSmoothing > 0 ? wanted - logs.mean(axes: [-1]).sum() * labelSmoothing : wanted
    }

    /// Scores of the classes, [rows, classes].
    public func logits(_ batch: TrainingBatch) -> Tensor {
        let input = batch.input
        let embedded = RowRouting.within(input.offsets) { words(input.ids) }
        let rows = inputSite(embedded, offsets: input.offsets)
        let prefixes = (layers.first?.attention.prefix.prefixes(forRows: input.rows) ?? []).map {
            $0?.keys.dim(0) ?? 0
        }
        let context = PackedContext(
            rows, prefixes: prefixes.isEmpty ? rows.prompts.map { _ in 0 } : prefixes, isCausal: false)
        let pooled = RowRouting.within(rows.offsets) {
            let type = types.weight.narrowed(axis: 0, 0..<1)
            var x = rows.states + positions(context.positions) + type
            x = dropout(embeddingNorm(x), settings.dropout)
            for layer in layers { x = layer(x, context) }
            return x
        }
        // The first position of each row, be it [CLS] or, with a soft prompt, the first virtual token.
        let first = pooled.selecting(Tensor(Array(rows.offsets.dropLast()), device: pooled.device))
        return RowRouting.within(single: input.rows) {
            classifier(dropout(pooler(first).tanh(), settings.classifierDropout))
        }
    }

    public func startDecoding(_ prompts: PackedSequences, capacity: Int, beams: Int) -> any DecodingState {
        NoDecoding()
    }
}

/// Stands in where there is nothing to generate with; the generator refuses encoders before it is used.
final class NoDecoding: DecodingState {
    func step(_ tokens: Tensor) -> Tensor { tokens }
    func reorder(_ sources: Tensor) {}
    func keep(rows: [Int]) {}
}

final class BERTBlock: Module {
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
        let attended = dropout(attentionOutput(attention(x, context), input: x), rate)
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
        let mixed = context.attend(
            split(q(x)), split(k(x)), split(v(x)), site: prefix, layer: layer, scale: 1 / Double(size).squareRoot(),
            dropout: settings.attentionDropout)
        return o(mixed.reshaped(-1, settings.size))
    }
}

struct BERTConfiguration: Sendable {
    let vocabularySize: Int
    let size: Int
    let feedForwardSize: Int
    let layers: Int
    let heads: Int
    let positions: Int
    let types: Int
    let classes: Int
    let epsilon: Double
    let dropout: Double
    let attentionDropout: Double
    let classifierDropout: Double
    let activation: Activation
    let json: JSON

    init(_ json: JSON) throws {
        let read = ConfigurationReader(json: json)
        self.json = json
        vocabularySize = try read.integer("vocab_size", default: 30522)
        size = try read.integer("hidden_size", default: 768)
        layers = try read.integer("num_hidden_layers", default: 12)
        heads = try read.integer("num_attention_heads", default: 12)
        feedForwardSize = try read.integer("intermediate_size", default: 3072)
        positions = try read.integer("max_position_embeddings", default: 512)
        types = try read.integer("type_vocab_size", default: 2)
        classes = try json["id2label"]?.object?.count ?? read.integer("num_labels", default: 2)
        epsilon = try read.number("layer_norm_eps", default: 1e-12)
        dropout = try read.number("hidden_dropout_prob", default: 0.1)
        attentionDropout = try read.number("attention_probs_dropout_prob", default: 0.1)
        classifierDropout = try read.number("classifier_dropout", default: dropout)
        let name = try read.string("hidden_act", default: "gelu")
        guard let activation = Activation(huggingFaceName: name) else {
            throw PEFTError(
                "config.json: 'hidden_act' is '\(name)', which is not supported", remedy: "gelu, relu and silu are")
        }
        self.activation = activation
        guard size.isMultiple(of: heads) else {
            throw PEFTError("config.json: \(size) can't be divided among \(heads) heads", remedy: "check the heads")
        }
        let kind = try read.string("position_embedding_type", default: "absolute")
        guard kind == "absolute" else {
            throw PEFTError("config.json: 'position_embedding_type' is '\(kind)'", remedy: "absolute is supported")
        }
    }
}
