import PEFTSupport
import Torch
import TorchNN

/// An encoder with BERT's blocks, without a head; a ``BERTVariant`` says what differs.
final class BERTEncoder: Module, EncoderLayers {
    @ModuleInfo(key: "embeddings.word_embeddings") var words: Embedding
    @ModuleInfo(key: "embeddings.position_embeddings") var positions: Embedding?
    @ModuleInfo(key: "embeddings.token_type_embeddings") var types: Embedding?
    @ModuleInfo(key: "embeddings.LayerNorm") var embeddingNorm: LayerNorm?
    @ModuleInfo(key: "input_site") var inputSite: InputSite
    /// From embeddings of another size.
    @ModuleInfo var projection: Linear?
    @ModuleInfo var layers: [BERTBlock]
    @ModuleInfo(key: "encoder.albert_layer_groups") var groups: [BERTGroup]
    @ModuleInfo(key: "encoder.LayerNorm") var norm: LayerNorm?
    @ModuleInfo(key: "encoder.relative_attention_bias") var relativeBias: Embedding?
    /// Vectors of relative positions for disentangled attention, and their norm.
    @ModuleInfo(key: "encoder.rel_embeddings") var relativePositions: Embedding?
    @ModuleInfo(key: "encoder.LayerNorm") var relativeNorm: LayerNorm?
    @ModuleInfo(key: "encoder.conv") var convolution: TokenConvolution?
    @ModuleInfo var pooler: Linear?
    private let settings: BERTConfiguration
    /// The layers in the order in which they run; shared ones several times.
    private let order: [BERTBlock]

    init(_ settings: BERTConfiguration, hasPooler: Bool) {
        self.settings = settings
        let (variant, size, embedded) = (settings.variant, settings.size, settings.embeddingSize)
        func norm(_ exists: Bool, _ size: Int) -> LayerNorm? {
            exists ? LayerNorm(size, epsilon: settings.epsilon) : nil
        }
        _words.wrappedValue = Embedding(settings.vocabularySize, embedded)
        _positions.wrappedValue = settings.hasPositionTable ? Embedding(settings.positions, embedded) : nil
        _types.wrappedValue = settings.types > 0 ? Embedding(settings.types, embedded) : nil
        _embeddingNorm.wrappedValue = norm(!variant.normsFirst, variant.isDisentangled ? size : embedded)
        _inputSite.wrappedValue = InputSite(.encoder, size: embedded)
        let isProjected = embedded != size || variant.alwaysProjects
        _projection = ModuleInfo(
            wrappedValue: isProjected ? Linear(embedded, size, bias: !variant.isDisentangled) : nil,
            key: variant.names.projection)
        let own = settings.groups.map { groups in
            (0..<groups.count).map { _ in BERTGroup(settings, layers: groups.layers) }
        }
        let layers =
            own == nil ? (0..<settings.layers).map { BERTBlock(settings, layer: $0) } : []
        _layers = ModuleInfo(wrappedValue: layers, key: variant.names.layers)
        _groups.wrappedValue = own ?? []
        // As in transformers: layer i belongs to group i / (layers / groups).
        order =
            own.map { own in
                (0..<settings.layers).flatMap { own[$0 * own.count / settings.layers].layers }
            } ?? layers
        _norm.wrappedValue = norm(variant.normsFirst, size)
        _relativeBias.wrappedValue = settings.relativeBuckets.map { Embedding($0, settings.heads) }
        let relative = settings.disentangled?.positions
        _relativePositions.wrappedValue = relative.map { Embedding(2 * $0.span, size) }
        _relativeNorm.wrappedValue = norm(relative?.areNormalized == true, size)
        _convolution.wrappedValue = settings.disentangled?.convolution.map { TokenConvolution($0, settings) }
        _pooler = ModuleInfo(wrappedValue: hasPooler ? Linear(size, size) : nil, key: variant.names.pooler)
    }

    var prefixSites: [KeyValueSite] { (layers + groups.flatMap(\.layers)).map(\.attention.prefix) }

    /// Embedded tokens `[tokens, embeddingSize]` -> hidden states `[tokens, size]`.
    func callAsFunction(_ x: Tensor, types ids: Tensor?, _ context: AttentionContext) -> Tensor {
        var x = x
        if let positions {
            let places =
                settings.firstPosition > 0
                ? (context.positions + Double(settings.firstPosition)).to(.int64) : context.positions
            x = x + positions(places)
        }
        if let types {
            x = x + (ids.map { types($0) } ?? types.weight.rows(Tensor([0], device: x.device), as: x.dtype))
        }
        if settings.variant.isDisentangled {
            x = projection?(x) ?? x
            x = dropout(embeddingNorm?(x) ?? x, settings.dropout)
        } else {
            x = dropout(embeddingNorm?(x) ?? x, settings.dropout)
            x = projection?(x) ?? x
        }
        if settings.variant.isDisentangled {
            x = disentangled(x, context)
        } else if let relativeBias {
            // Biases are by place, so the last layer has the queries of all tokens.
            let places = context.places
            context.sharedBias = RelativeBuckets.mpnet.bias(relativeBias, queries: places, keys: places.upperBound)
            x = throughAll(order, x, context)
        } else {
            x = through(order, x, context)
        }
        return norm?(x) ?? x
    }

    private func disentangled(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        context.relativePositions = relativePositions.map { table in
            let all = table(Tensor(Array(0..<table.entries), device: x.device))
            return relativeNorm?(all) ?? all
        }
        guard let convolution, let first = order.first, let packed = context as? PackedContext else {
            return throughAll(order, x, context)
        }
        let output = checkpointed(x, first) { $0($1, context) }
        return throughAll(
            Array(order.dropFirst()), convolution(x, residual: output, offsets: packed.offsets), context)
    }
}

/// Layers that ALBERT runs several times.
final class BERTGroup: Module {
    @ModuleInfo(key: "albert_layers") var layers: [BERTBlock]

    init(_ settings: BERTConfiguration, layers count: Int) {
        _layers.wrappedValue = (0..<count).map { BERTBlock(settings, layer: $0) }
    }
}

final class BERTBlock: Module, StackLayer {
    @ModuleInfo(key: "") var attention: any BERTBlockAttention
    @ModuleInfo var attentionOutput: OutputSite
    @ModuleInfo var attentionNorm: LayerNorm
    @ModuleInfo var gate: Linear?
    @ModuleInfo var up: Linear
    @ModuleInfo var down: Linear
    @ModuleInfo(key: "output_site") var feedForwardOutput: OutputSite
    @ModuleInfo var feedForwardNorm: LayerNorm
    private let settings: BERTConfiguration

    init(_ settings: BERTConfiguration, layer: Int) {
        self.settings = settings
        let (names, size, inner) = (settings.variant.names, settings.size, settings.feedForwardSize)
        func linear(_ inputs: Int, _ outputs: Int, _ name: String) -> ModuleInfo<Linear> {
            ModuleInfo(wrappedValue: Linear(inputs, outputs, bias: settings.variant.hasBiases), key: name)
        }
        func norm(_ name: String) -> ModuleInfo<LayerNorm> {
            ModuleInfo(wrappedValue: LayerNorm(size, epsilon: settings.epsilon), key: name)
        }
        if let disentangled = settings.disentangled {
            _attention.wrappedValue = DisentangledAttention(disentangled, settings)
        } else {
            _attention.wrappedValue = BERTAttention(settings, layer: layer)
        }
        _attentionOutput = ModuleInfo(
            wrappedValue: OutputSite(.attention, size: size, knowsStream: !settings.variant.normsFirst),
            key: "\(names.attention).output_site")
        _attentionNorm = norm(names.attentionNorm)
        _gate = ModuleInfo(
            wrappedValue: names.gate == nil ? nil : Linear(size, inner, bias: settings.variant.hasBiases),
            key: names.gate)
        _up = linear(size, inner, names.up)
        _down = linear(inner, size, names.down)
        _feedForwardOutput.wrappedValue = OutputSite(
            .feedForward, size: size, knowsStream: !settings.variant.normsFirst)
        _feedForwardNorm = norm(names.feedForwardNorm)
    }

    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let isFirst = settings.variant.normsFirst
        let normed = isFirst ? attentionNorm(x) : x
        let mixed = attention(normed, context)
        let before = context.selected(x)
        func stream(_ x: Tensor, _ norm: LayerNorm) -> ResidualStream? {
            isFirst ? nil : ResidualStream(x, norm: norm)
        }
        let attended = attentionOutput(
            mixed, input: context.selected(normed), stream: stream(before, attentionNorm))
        let sum = before + dropout(attended, settings.dropout)
        let middle = isFirst ? sum : attentionNorm(sum)
        let input = isFirst ? feedForwardNorm(middle) : middle
        let rate = settings.variant.dropsFeedForward ? settings.dropout : 0
        let fed = feedForwardOutput(feedForward(input), input: input, stream: stream(middle, feedForwardNorm))
        let output = middle + dropout(fed, rate)
        return isFirst ? output : feedForwardNorm(output)
    }

    private func feedForward(_ x: Tensor) -> Tensor {
        guard let gate else { return down(settings.activation(up(x))) }
        let parts = Linear.project(x, [gate, up])
        return down(settings.activation.gated(parts[0], parts[1]))
    }
}

/// Self-attention with its projections.
protocol BERTBlockAttention: Module {
    var prefix: KeyValueSite { get }
    /// `[tokens, size]` -> `[selected tokens, size]`.
    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor
}

final class BERTAttention: Module, BERTBlockAttention {
    @ModuleInfo var q: Linear
    @ModuleInfo var k: Linear
    @ModuleInfo var v: Linear
    @ModuleInfo var o: Linear
    @ModuleInfo var prefix: KeyValueSite
    private let settings: BERTConfiguration
    private let layer: Int

    init(_ settings: BERTConfiguration, layer: Int) {
        (self.settings, self.layer) = (settings, layer)
        let (names, size, inner) = (settings.variant.names, settings.size, settings.heads * settings.headSize)
        func linear(_ inputs: Int, _ outputs: Int, _ name: String) -> ModuleInfo<Linear> {
            ModuleInfo(wrappedValue: Linear(inputs, outputs, bias: settings.variant.hasBiases), key: name)
        }
        _q = linear(size, inner, names.q)
        _k = linear(size, inner, names.k)
        _v = linear(size, inner, names.v)
        _o = linear(inner, size, names.o)
        _prefix = ModuleInfo(
            wrappedValue: KeyValueSite(
                .attention, role: .encoder, heads: settings.heads, headSize: settings.headSize),
            key: "\(names.attention).prefix_site")
    }

    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let size = settings.headSize
        func split(_ x: Tensor) -> Tensor { x.reshaped(-1, settings.heads, size) }
        let all = context.projected(x, q, k, v)
        var (queries, keys) = (split(all.q), split(all.k))
        if let rotary = settings.rotary {
            (queries, keys) = (context.rotatedQueries(queries, rotary), context.rotated(keys, rotary))
        }
        let mixed = context.attend(
            queries, keys, split(all.v), site: prefix, layer: layer, scale: 1 / Double(size).squareRoot(),
            dropout: settings.attentionDropout)
        return o(mixed.reshaped(-1, settings.heads * size))
    }
}
