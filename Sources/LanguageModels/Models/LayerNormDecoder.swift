import PEFTSupport
import Torch
import TorchNN

/// Decoder-only models with layer norms, from GPT-J and OPT to StarCoder2. Families differ in the names of their modules,
/// in positions, in how a block's sublayers are connected, and in projections.
final class LayerNormDecoder: Module, CausalModel {
    let settings: LayerNormDecoderConfiguration
    var folderSettings = FolderSettings()
    @ModuleInfo var embedding: Embedding
    /// A table of learned positions.
    @ModuleInfo var positions: Embedding?
    @ModuleInfo var inputSite: InputSite
    @ModuleInfo var embeddingNorm: LayerNorm?
    /// Between embeddings and hidden states of different sizes.
    @ModuleInfo var inputProjection: Linear?
    @ModuleInfo var hiddenProjection: Linear?
    @ModuleInfo var layers: [LayerNormBlock]
    @ModuleInfo var norm: LayerNorm?
    /// `nil` if the output layer is tied to the embedding.
    @ModuleInfo var outputProjection: Linear?

    init(_ settings: LayerNormDecoderConfiguration) {
        self.settings = settings
        let (names, size, embedded) = (settings.names, settings.hiddenSize, settings.embeddingSize)
        func key(_ name: String) -> String { "\(names.stack).\(name)" }
        _embedding = ModuleInfo(
            wrappedValue: Embedding(settings.vocabularySize, embedded), key: settings.family.modules.inputEmbedding)
        _positions = ModuleInfo(
            wrappedValue: settings.positions.map { Embedding($0.count + $0.offset, size) },
            key: key("embed_positions"))
        _inputSite = ModuleInfo(wrappedValue: InputSite(.decoder, size: embedded), key: key("input_site"))
        _embeddingNorm = ModuleInfo(
            wrappedValue: names.embeddingNorm == nil ? nil : settings.norm(), key: key(names.embeddingNorm ?? ""))
        let isProjected = embedded != size
        _inputProjection = ModuleInfo(
            wrappedValue: isProjected ? Linear(embedded, size, bias: false) : nil, key: key("project_in"))
        _hiddenProjection = ModuleInfo(
            wrappedValue: isProjected ? Linear(size, embedded, bias: false) : nil, key: key("project_out"))
        _layers = ModuleInfo(
            wrappedValue: (0..<settings.layers).map { LayerNormBlock(settings, layer: $0) }, key: key(names.layers))
        _norm = ModuleInfo(wrappedValue: settings.hasFinalNorm ? settings.norm() : nil, key: key(names.finalNorm))
        _outputProjection = ModuleInfo(
            wrappedValue: settings.isTied
                ? nil : Linear(embedded, settings.vocabularySize, bias: settings.hasOutputBias),
            key: settings.family.modules.output.path)
    }

    var positionLimit: Int? { settings.positionLimit }
    var linearBiases: LinearBiases? { settings.linearBiases }
    var untiedOutputHasBias: Bool { settings.hasOutputBias }
    func isIgnorable(_ name: String) -> Bool { settings.names.buffers.contains { name.hasSuffix($0) } }
    func canonicalName(_ name: String) -> String {
        let name = modelFamily.modules.canonical(settings.names.current(name))
        return aliases[name] ?? name
    }
    func fusedParts(of path: String) -> [FusedPart]? {
        let attention = settings.attention
        // Several key heads interleave queries, keys and values.
        guard case .fused(let name) = attention.projections, path.hasSuffix(".\(name)"), attention.keyHeads == 1
        else {
            return nil
        }
        let size = attention.headSize
        return [
            FusedPart(name: "q", size: attention.heads * size), FusedPart(name: "k", size: size),
            FusedPart(name: "v", size: size),
        ]
    }

    var prefixSites: [KeyValueSite] { layers.map(\.attention.prefix) }
    func decode(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        var x = inputProjection?(x) ?? x
        if let positions, let offset = settings.positions?.offset {
            x = x + positions(context.positions + Tensor([offset], device: x.device))
        }
        x = through(layers, dropout(embeddingNorm?(x) ?? x, settings.embeddingDropout), context)
        x = norm?(x) ?? x
        return hiddenProjection?(x) ?? x
    }
}

/// An attention and a feed-forward sublayer.
final class LayerNormBlock: Module, StackLayer {
    @ModuleInfo var attentionNorm: LayerNorm
    @ModuleInfo var attention: DecoderAttention
    @ModuleInfo(key: "attention_output_site") var attentionOutput: OutputSite
    @ModuleInfo var feedForwardNorm: LayerNorm?
    @ModuleInfo var feedForward: BlockFeedForward
    @ModuleInfo(key: "feed_forward_output_site") var feedForwardOutput: OutputSite
    private let residual: LayerNormDecoderConfiguration.Residual
    private let dropouts: LayerNormDecoderConfiguration.Dropouts

    init(_ settings: LayerNormDecoderConfiguration, layer: Int) {
        let names = settings.names
        _attentionNorm = ModuleInfo(wrappedValue: settings.norm(), key: names.attentionNorm)
        _attention = ModuleInfo(
            wrappedValue: DecoderAttention(settings.attention, layer: layer), key: names.attention)
        _attentionOutput.wrappedValue = OutputSite(.attention, size: settings.hiddenSize)
        _feedForwardNorm = ModuleInfo(
            wrappedValue: settings.residual == .parallelWithSharedNorm ? nil : settings.norm(),
            key: names.feedForwardNorm)
        _feedForward = ModuleInfo(wrappedValue: BlockFeedForward(settings), key: names.feedForward)
        _feedForwardOutput.wrappedValue = OutputSite(.feedForward, size: settings.hiddenSize)
        (residual, dropouts) = (settings.residual, settings.dropouts)
    }

    /// `[tokens, hiddenSize]` -> `[selected tokens, hiddenSize]`.
    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let normed = residual == .afterNorms ? x : attentionNorm(x)
        let attended = attention(normed, context)
        let (own, input) = (context.selected(normed), context.selected(x))
        let mixed = attentionOutput(attended, input: own)
        switch residual {
        case .sequential:
            return fed(input + dropout(mixed, dropouts.attention))
        case .sequentialFromNorms:
            return fed(own + dropout(mixed, dropouts.attention))
        case .afterNorms:
            let x = attentionNorm(input + dropout(mixed, dropouts.attention))
            let fed = x + dropout(feedForwardOutput(feedForward(x), input: x), dropouts.feedForward)
            return feedForwardNorm?(fed) ?? fed
        case .parallel, .parallelWithSharedNorm:
            let y = feedForwardNorm?(input) ?? own
            let fed = feedForwardOutput(feedForward(y), input: y)
            guard !dropouts.areOfTheSum else { return input + dropout(mixed + fed, dropouts.feedForward) }
            return input + dropout(mixed, dropouts.attention) + dropout(fed, dropouts.feedForward)
        }
    }

    /// The feed-forward sublayer with its norm.
    private func fed(_ x: Tensor) -> Tensor {
        let normed = feedForwardNorm?(x) ?? x
        return (residual == .sequentialFromNorms ? normed : x)
            + dropout(feedForwardOutput(feedForward(normed), input: normed), dropouts.feedForward)
    }
}

/// The feed-forward network of a block: down(f(up(x))), or down(f(gate(x)) ⊙ up(x)).
final class BlockFeedForward: Module {
    @ModuleInfo var gate: Linear?
    @ModuleInfo var up: Linear
    @ModuleInfo var down: Linear
    private let activation: Activation

    init(_ settings: LayerNormDecoderConfiguration) {
        let (names, size, hidden) = (settings.names, settings.hiddenSize, settings.feedForwardSize)
        func linear(_ inputs: Int, _ outputs: Int) -> Linear {
            Linear(inputs, outputs, bias: settings.hasFeedForwardBias)
        }
        _gate = ModuleInfo(wrappedValue: names.gate == nil ? nil : linear(size, hidden), key: names.gate)
        _up = ModuleInfo(wrappedValue: linear(size, hidden), key: names.up)
        _down = ModuleInfo(wrappedValue: linear(hidden, size), key: names.down)
        activation = settings.activation
    }

    /// `[tokens, size]` -> `[tokens, size]`.
    func callAsFunction(_ x: Tensor) -> Tensor {
        guard let gate else { return down(activation(up(x))) }
        let parts = Linear.project(x, [gate, up])
        return down(activation.gated(parts[0], parts[1]))
    }
}
