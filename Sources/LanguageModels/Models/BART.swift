import PEFTSupport
import Torch
import TorchNN

/// BART (Lewis et al. 2020) and the encoder-decoders with its layers: mBART (Liu et al. 2020), PEGASUS (Zhang et al.
/// 2020), Marian (Junczys-Dowmunt et al. 2018), and M2M-100 (Fan et al. 2021) with NLLB (Costa-jussà et al. 2022). They differ in
/// their positions, in where their norms are and in the bias of their logits.
package final class BART: Module, EncoderDecoder {
    let settings: BARTConfiguration
    package var folderSettings = FolderSettings()
    @ModuleInfo(key: "model.shared") var embedding: Embedding
    @ModuleInfo(key: "model.encoder") var encoder: BARTStack
    @ModuleInfo(key: "model.decoder") var decoder: BARTStack
    /// `nil` if the output layer is tied to the embedding.
    @ModuleInfo(key: "lm_head") var outputProjection: Linear?
    /// `[1, vocabulary]`: part of the files, and never trained.
    private let _bias: ParameterInfo?

    private static let biasName = "final_logits_bias"

    convenience init(_ settings: BARTConfiguration) {
        self.init(settings, hasLogitsBias: settings.variant.hasLogitsBias)
    }

    init(_ settings: BARTConfiguration, hasLogitsBias: Bool) {
        self.settings = settings
        let embedding = Embedding(settings.vocabularySize, settings.modelSize)
        _bias =
            hasLogitsBias
            ? ParameterInfo(
                wrappedValue: .empty([1, settings.vocabularySize], device: .meta), key: Self.biasName) : nil
        _embedding.wrappedValue = embedding
        _encoder.wrappedValue = BARTStack(settings, isDecoder: false, embedding: embedding)
        _decoder.wrappedValue = BARTStack(settings, isDecoder: true, embedding: embedding)
        _outputProjection.wrappedValue =
            settings.isTied ? nil : Linear(settings.modelSize, settings.vocabularySize, bias: false)
    }

    package var positionLimit: Int? { settings.positionLimit }
    package var embeddingScale: Double { settings.embeddingScale }
    package var buffers: Set<String> { _bias == nil ? [] : [Self.biasName] }
    package var aliases: [String: String] {
        let table = inputEmbedding + ".weight"
        var aliases = [
            "model.encoder.embed_tokens.weight": table, "model.decoder.embed_tokens.weight": table,
        ]
        if settings.isTied { aliases[outputLayer + ".weight"] = table }
        return aliases
    }
    /// transformers unties the stacks' embeddings, too, if the configuration says so; the file alone unties the output
    /// layer.
    var untyingKeys: [String: JSON] { ["tie_word_embeddings": true] }
    package func canonicalName(_ name: String) -> String {
        guard name != Self.biasName else { return name }
        let name = modelFamily.modules.canonical(name)
        return aliases[name] ?? name
    }
    /// Sinusoidal positions are computed.
    package func isIgnorable(_ name: String) -> Bool {
        name == Self.biasName || settings.variant.positions != .learned && name.contains(".embed_positions.")
    }
    package var aliasesMayDiffer: Bool { true }
    package func initialDeviation(of path: String) -> Double? { path == Self.biasName ? 0 : nil }

    var logitsBias: Tensor? {
        guard let bias = _bias?.wrappedValue.detached().reshaped(-1) else { return nil }
        let entries = outputProjection?.outputs ?? embedding.entries
        let count = bias.dim(0)
        guard count != entries else { return bias }
        // A resized vocabulary's new tokens have no bias.
        guard count < entries else { return bias.narrowed(axis: 0, 0..<entries) }
        return Tensor.concatenated([bias, .zeros([entries - count], dtype: bias.dtype, device: bias.device)])
    }
}

/// The encoder's or the decoder's layers.
final class BARTStack: Module, EncoderDecoderStack {
    /// A view of the shared embedding for this stack.
    @ModuleInfo(key: "embed_tokens") var embedding: Embedding
    @ModuleInfo(key: "embed_positions") var positions: Embedding?
    @ModuleInfo(key: "layernorm_embedding") var embeddingNorm: LayerNorm?
    @ModuleInfo(key: "layers") var blocks: [BARTBlock]
    @ModuleInfo(key: "layer_norm") var norm: LayerNorm?
    @ModuleInfo(key: "input_site") var input: InputSite
    private let settings: BARTConfiguration
    private let isDecoder: Bool
    private let waves: SinusoidalPositions?

    /// Row of the first position in the table of learned positions.
    static let firstPosition = 2

    init(_ settings: BARTConfiguration, isDecoder: Bool, embedding: Embedding) {
        (self.settings, self.isDecoder) = (settings, isDecoder)
        let (variant, size) = (settings.variant, settings.modelSize)
        func norm(_ exists: Bool) -> LayerNorm? { exists ? LayerNorm(size, epsilon: BARTConfiguration.epsilon) : nil }
        let layers = (isDecoder ? settings.decoder : settings.encoder).layers
        _embedding.wrappedValue = Embedding(over: embedding)
        _positions.wrappedValue =
            variant.positions == .learned ? Embedding(settings.positions + Self.firstPosition, size) : nil
        _embeddingNorm.wrappedValue = norm(variant.hasEmbeddingNorm)
        _blocks.wrappedValue = (0..<layers).map { _ in BARTBlock(settings, isDecoder: isDecoder) }
        _norm.wrappedValue = norm(variant.normsFirst)
        _input.wrappedValue = InputSite(isDecoder ? .decoder : .encoder, size: size)
        waves = SinusoidalPositions(variant.positions, size: size, padToken: settings.padToken)
    }

    func embed(_ ids: Tensor, offsets: [Int]) -> Tensor {
        let vectors = RowRouting.within(offsets) { embedding(ids) }
        let scaled = settings.embeddingScale == 1 ? vectors : vectors * settings.embeddingScale
        guard isDecoder, settings.startToken == settings.padToken, scaled.requiresGrad else { return scaled }
        // transformers computes no gradient of the padding token's vector, with which these decoders start.
        let isPadding = ids.equal(to: Tensor([settings.padToken], device: ids.device)).unsqueezed(1)
        return scaled.detached().selecting(where: isPadding, else: scaled)
    }

    /// Packed `[tokens, modelSize]` -> `[tokens, modelSize]`. `memory` is the encoder's output with its offsets.
    func callAsFunction(_ x: Tensor, rows: [Int], memory: (states: Tensor, rows: [Int])?) -> Tensor {
        RowRouting.within(rows) {
            let prefixes = blocks.first?.attention.prefix.prefixes(forRows: rows.count - 1) ?? []
            let places = (1..<rows.count).flatMap { row -> [Int] in
                // A prefix occupies the positions before the sequence.
                let start = prefixes.isEmpty ? 0 : prefixes[row - 1]?.keys.dim(0) ?? 0
                return (0..<(rows[row] - rows[row - 1])).map { start + $0 }
            }
            var x = dropout(placed(x, places), settings.dropout)
            for layer in blocks where !isDropped() {
                x = checkpointed(x, layer) { $0($1, rows: rows, memory: memory) }
            }
            return leaving(x)
        }
    }

    func entering(_ x: Tensor, positions: [Int]) -> Tensor {
        placed(x.reshaped(-1, settings.modelSize), positions).reshaped(x.shape)
    }
    func leaving(_ x: Tensor) -> Tensor { norm?(x) ?? x }
    func stepBiases(capacity: Int) -> [Tensor] { [] }

    /// Adds positions to embedded tokens `[tokens, modelSize]`.
    private func placed(_ x: Tensor, _ places: [Int]) -> Tensor {
        // On the meta device nothing is looked up.
        let limit = x.device == .meta ? nil : settings.positionLimit
        let places = checkedPositions(places, limit: limit)
        var x = x
        if let positions {
            x = x + positions(Tensor(places.map { $0 + Self.firstPosition }, device: x.device))
        } else if let waves {
            x = x + waves(places, like: x)
        }
        return embeddingNorm?(x) ?? x
    }

    /// LayerDrop (Fan et al. 2020): whether a layer is left out of this training step.
    private func isDropped() -> Bool {
        let (probability, seed) = DropoutScope.draw((isDecoder ? settings.decoder : settings.encoder).layerDrop)
        guard probability > 0 else { return false }
        var random = SeededRandom(seed: seed)
        return Double(random.below(1 << 24)) < probability * Double(1 << 24)
    }
}

final class BARTBlock: Module, EncoderDecoderBlock {
    @ModuleInfo(key: "self_attn") var attention: BARTAttention
    @ModuleInfo(key: "self_attn_layer_norm") var attentionNorm: LayerNorm
    @ModuleInfo(key: "self_attn.output_site") var attentionOutput: OutputSite
    @ModuleInfo(key: "encoder_attn") var crossAttention: BARTAttention?
    @ModuleInfo(key: "encoder_attn_layer_norm") var crossNorm: LayerNorm?
    @ModuleInfo(key: "encoder_attn.output_site") var crossOutput: OutputSite?
    @ModuleInfo(key: "fc1") var up: Linear
    @ModuleInfo(key: "fc2") var down: Linear
    @ModuleInfo(key: "final_layer_norm") var feedForwardNorm: LayerNorm
    @ModuleInfo(key: "output_site") var feedForwardOutput: OutputSite
    private let settings: BARTConfiguration

    init(_ settings: BARTConfiguration, isDecoder: Bool) {
        self.settings = settings
        let size = settings.modelSize
        let role: StackRole = isDecoder ? .decoder : .encoder
        let stack = isDecoder ? settings.decoder : settings.encoder
        func norm() -> LayerNorm { LayerNorm(size, epsilon: BARTConfiguration.epsilon) }
        _attention.wrappedValue = BARTAttention(settings, .attention, role)
        _attentionNorm.wrappedValue = norm()
        _attentionOutput.wrappedValue = OutputSite(.attention, size: size, knowsStream: !settings.variant.normsFirst)
        _crossAttention.wrappedValue = isDecoder ? BARTAttention(settings, .crossAttention, role) : nil
        _crossNorm.wrappedValue = isDecoder ? norm() : nil
        _crossOutput.wrappedValue =
            isDecoder ? OutputSite(.crossAttention, size: size, knowsStream: !settings.variant.normsFirst) : nil
        _up.wrappedValue = Linear(size, stack.feedForwardSize)
        _down.wrappedValue = Linear(stack.feedForwardSize, size)
        _feedForwardNorm.wrappedValue = norm()
        _feedForwardOutput.wrappedValue = OutputSite(
            .feedForward, size: size, knowsStream: !settings.variant.normsFirst)
    }

    func callAsFunction(_ x: Tensor, rows: [Int], memory: (states: Tensor, rows: [Int])?) -> Tensor {
        let attended = sublayer(x, attentionNorm, attentionOutput) {
            attention($0, rows: rows, bias: nil, causal: memory != nil)
        }
        return fed(
            memory.map { memory in crossed(attended) { $0($1, rows: rows, memory: memory) } } ?? attended)
    }

    func step(
        _ x: Tensor, attend: (BARTAttention, Tensor) -> Tensor, cross: (BARTAttention, Tensor) -> Tensor
    ) -> Tensor {
        let attended = sublayer(x, attentionNorm, attentionOutput) { attend(attention, $0) }
        return fed(crossed(attended, cross))
    }

    private func crossed(_ x: Tensor, _ attend: (BARTAttention, Tensor) -> Tensor) -> Tensor {
        guard let crossAttention, let crossNorm, let crossOutput else { return x }
        return sublayer(x, crossNorm, crossOutput) { attend(crossAttention, $0) }
    }

    private func fed(_ x: Tensor) -> Tensor {
        sublayer(x, feedForwardNorm, feedForwardOutput) {
            down(dropout(settings.activation(up($0)), settings.activationDropout))
        }
    }

    /// x + f(norm(x)), or norm(x + f(x)).
    private func sublayer(_ x: Tensor, _ norm: LayerNorm, _ site: OutputSite, _ compute: (Tensor) -> Tensor) -> Tensor
    {
        let isFirst = settings.variant.normsFirst
        let input = isFirst ? norm(x) : x
        let output = site(compute(input), input: input, stream: isFirst ? nil : ResidualStream(x, norm: norm))
        let sum = x + dropout(output, settings.dropout)
        return isFirst ? sum : norm(sum)
    }
}

final class BARTAttention: Module, EncoderDecoderAttention {
    @ModuleInfo(key: "q_proj") var q: Linear
    @ModuleInfo(key: "k_proj") var k: Linear
    @ModuleInfo(key: "v_proj") var v: Linear
    @ModuleInfo(key: "out_proj") var o: Linear
    @ModuleInfo(key: "prefix_site") var prefix: KeyValueSite
    let heads: Int
    let headSize: Int
    let rate: Double
    var scale: Double { 1 / Double(headSize).squareRoot() }

    init(_ settings: BARTConfiguration, _ kind: SublayerKind, _ role: StackRole) {
        let size = settings.modelSize
        heads = (role == .decoder ? settings.decoder : settings.encoder).heads
        (headSize, rate) = (size / heads, settings.attentionDropout)
        _q.wrappedValue = Linear(size, size)
        _k.wrappedValue = Linear(size, size)
        _v.wrappedValue = Linear(size, size)
        _o.wrappedValue = Linear(size, size)
        _prefix.wrappedValue = KeyValueSite(kind, role: role, heads: heads, headSize: headSize)
    }
}
