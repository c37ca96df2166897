import Foundation
import PEFTSupport
import Torch
import TorchNN

/// T5 (Raffel et al. 2020), mT5 (Xue et al. 2021) and UMT5 (Chung et al. 2023): encoder-decoders with a relative
/// position bias.
package final class T5: Module, EncoderDecoder {
    package let settings: T5Configuration
    package var folderSettings = FolderSettings()
    @ModuleInfo(key: "shared") var embedding: Embedding
    @ModuleInfo var encoder: T5Stack
    @ModuleInfo var decoder: T5Stack
    /// `nil` if the output layer is tied to the embedding.
    @ModuleInfo(key: "lm_head") var outputProjection: Linear?

    init(_ settings: T5Configuration) {
        self.settings = settings
        let embedding = Embedding(settings.vocabularySize, settings.modelSize)
        _embedding.wrappedValue = embedding
        _encoder.wrappedValue = T5Stack(settings, isDecoder: false, embedding: embedding)
        _decoder.wrappedValue = T5Stack(settings, isDecoder: true, embedding: embedding)
        _outputProjection.wrappedValue =
            settings.isTied ? nil : Linear(settings.modelSize, settings.vocabularySize, bias: false)
    }

    package var aliases: [String: String] {
        var aliases = [
            "encoder.embed_tokens.weight": "shared.weight", "decoder.embed_tokens.weight": "shared.weight",
        ]
        if settings.isTied { aliases["lm_head.weight"] = "shared.weight" }
        return aliases
    }
    /// A tied T5 scales its output layer's input, and continues to when untied.
    var untyingKeys: [String: JSON] {
        modelFamily.modules.output.scaleKey.map { [$0: .bool(settings.scalesOutput)] } ?? [:]
    }
    var outputScale: Double { settings.scalesOutput ? 1 / Double(settings.modelSize).squareRoot() : 1 }
}

/// The encoder's or the decoder's layers.
final class T5Stack: Module, EncoderDecoderStack {
    /// A view of the shared embedding for this stack.
    @ModuleInfo(key: "embed_tokens") var embedding: Embedding
    @ModuleInfo(key: "block") var blocks: [T5Block]
    @ModuleInfo(key: "final_layer_norm") var norm: RMSNorm
    @ModuleInfo(key: "input_site") var input: InputSite
    let settings: T5Configuration
    let isDecoder: Bool

    init(_ settings: T5Configuration, isDecoder: Bool, embedding: Embedding) {
        self.settings = settings
        self.isDecoder = isDecoder
        _embedding.wrappedValue = Embedding(over: embedding)
        let layers = isDecoder ? settings.decoderLayers : settings.encoderLayers
        _blocks.wrappedValue = (0..<layers).map { layer in
            T5Block(settings, isDecoder: isDecoder, hasBias: layer == 0 || settings.hasBiasInEachLayer)
        }
        _norm.wrappedValue = RMSNorm(settings.modelSize, epsilon: settings.epsilon)
        _input.wrappedValue = InputSite(isDecoder ? .decoder : .encoder, size: settings.modelSize)
    }

    func embed(_ ids: Tensor, offsets: [Int]) -> Tensor {
        EmbeddingNoise.added(to: RowRouting.within(offsets) { embedding(ids) }, offsets: offsets)
    }

    /// Packed `[tokens, modelSize]` -> `[tokens, modelSize]`. `memory` is the encoder's output with its offsets.
    func callAsFunction(_ x: Tensor, rows: [Int], memory: (states: Tensor, rows: [Int])?) -> Tensor {
        RowRouting.within(rows) {
            let longest = zip(rows.dropFirst(), rows).map { $0 - $1 }.max() ?? 0
            let prefix = longestPrefix(forRows: rows.count - 1)
            // A prefix occupies the positions before the sequence.
            let biases = positionBiases(queries: prefix..<(prefix + longest), keys: prefix + longest)
            var x = dropout(x, settings.dropout)
            for (layer, bias) in zip(blocks, biases) {
                x = checkpointed(x, layer) { $0($1, rows: rows, bias: bias, memory: memory) }
            }
            return dropout(norm(x), settings.dropout)
        }
    }

    func entering(_ x: Tensor, positions: [Int]) -> Tensor { x }
    func leaving(_ x: Tensor) -> Tensor { norm(x) }
    func stepBiases(capacity: Int) -> [Tensor] {
        positionBiases(queries: (capacity - 1)..<capacity, keys: capacity)
    }

    /// Each layer's relative position bias, `[heads, queries, keys]`; all layers share the first one's if they have none.
    func positionBiases(queries: Range<Int>, keys: Int) -> [Tensor] {
        var biases: [Tensor] = []
        for block in blocks {
            guard
                let bias = block.attention.relativeBias.map({ positionBias($0, queries: queries, keys: keys) })
                    ?? biases.last
            else { return [] }
            biases.append(bias)
        }
        return biases
    }

    private func positionBias(_ table: Embedding, queries: Range<Int>, keys: Int) -> Tensor {
        guard hasRoom(queries: queries.count, keys: keys) else { return .zeros([0]) }
        return RelativeBuckets(settings, isBidirectional: !isDecoder).bias(table, queries: queries, keys: keys)
    }

    /// Whether the bias, two copies of heads · queries · keys floats, fits in memory; reports a failure if it
    /// doesn't.
    private func hasRoom(queries: Int, keys: Int) -> Bool {
        let bytes = 2 * Double(settings.heads) * Double(queries) * Double(keys) * 4
        guard bytes > Double(ProcessInfo.processInfo.physicalMemory), embedding.weight.device != .meta
        else { return true }
        reportFailure(
            PEFTError(
                "a sequence of \(keys) tokens needs \(Int(bytes / 1e9)) GB for T5's relative position bias",
                remedy: "use shorter sequences, a smaller --max-input or another model family"))
        return false
    }
}

extension RelativeBuckets {
    init(_ settings: T5Configuration, isBidirectional: Bool) {
        self.init(
            count: settings.relativeBuckets, maximumDistance: settings.relativeMaximumDistance,
            isBidirectional: isBidirectional)
    }
}

final class T5Block: Module, EncoderDecoderBlock {
    @ModuleInfo(key: "layer.0.SelfAttention") var attention: T5Attention
    @ModuleInfo(key: "layer.0.layer_norm") var attentionNorm: RMSNorm
    @ModuleInfo(key: "layer.1.EncDecAttention") var crossAttention: T5Attention?
    @ModuleInfo(key: "layer.1.layer_norm") var crossNorm: RMSNorm?
    @ModuleInfo var feedForward: T5FeedForward
    @ModuleInfo var feedForwardNorm: RMSNorm
    @ModuleInfo(key: "layer.0.output_site") var attentionOutput: OutputSite
    @ModuleInfo(key: "layer.1.output_site") var crossOutput: OutputSite?
    @ModuleInfo var feedForwardOutput: OutputSite
    let rate: Double

    init(_ settings: T5Configuration, isDecoder: Bool, hasBias: Bool) {
        func norm() -> RMSNorm { RMSNorm(settings.modelSize, epsilon: settings.epsilon) }
        let role: StackRole = isDecoder ? .decoder : .encoder
        _attention.wrappedValue = T5Attention(settings, .attention, role, hasBias: hasBias)
        _attentionNorm.wrappedValue = norm()
        _crossAttention.wrappedValue = isDecoder ? T5Attention(settings, .crossAttention, role, hasBias: false) : nil
        _crossNorm.wrappedValue = isDecoder ? norm() : nil
        let last = isDecoder ? 2 : 1
        _feedForward = ModuleInfo(wrappedValue: T5FeedForward(settings), key: "layer.\(last).DenseReluDense")
        _feedForwardNorm = ModuleInfo(wrappedValue: norm(), key: "layer.\(last).layer_norm")
        _attentionOutput.wrappedValue = OutputSite(.attention, size: settings.modelSize, knowsStream: true)
        _crossOutput.wrappedValue =
            isDecoder ? OutputSite(.crossAttention, size: settings.modelSize, knowsStream: true) : nil
        _feedForwardOutput = ModuleInfo(
            wrappedValue: OutputSite(.feedForward, size: settings.modelSize, knowsStream: true),
            key: "layer.\(last).output_site")
        rate = settings.dropout
    }

    func callAsFunction(_ x: Tensor, rows: [Int], bias: Tensor?, memory: (states: Tensor, rows: [Int])?) -> Tensor {
        var x = x
        var normed = attentionNorm(x)
        let attended = attention(normed, rows: rows, bias: bias, causal: memory != nil)
        x = x + dropout(attentionOutput(attended, input: normed, stream: ResidualStream(x)), rate)
        if let memory, let crossAttention, let crossNorm, let crossOutput {
            normed = crossNorm(x)
            let mixed = crossAttention(normed, rows: rows, memory: memory)
            x = x + dropout(crossOutput(mixed, input: normed, stream: ResidualStream(x)), rate)
        }
        normed = feedForwardNorm(x)
        return x + dropout(feedForwardOutput(feedForward(normed), input: normed, stream: ResidualStream(x)), rate)
    }

    /// Decode step: one token per sequence, x `[rows, 1, modelSize]`.
    func step(
        _ x: Tensor, attend: (T5Attention, Tensor) -> Tensor, cross: (T5Attention, Tensor) -> Tensor
    ) -> Tensor {
        var x = x
        var normed = attentionNorm(x)
        let attended = attend(attention, normed)
        x = x + attentionOutput(attended, input: normed, stream: ResidualStream(x))
        if let crossAttention, let crossNorm, let crossOutput {
            normed = crossNorm(x)
            let mixed = cross(crossAttention, normed)
            x = x + crossOutput(mixed, input: normed, stream: ResidualStream(x))
        }
        normed = feedForwardNorm(x)
        return x + feedForwardOutput(feedForward(normed), input: normed, stream: ResidualStream(x))
    }
}

/// T5 doesn't scale the scores.
final class T5Attention: Module, EncoderDecoderAttention {
    @ModuleInfo var q: Linear
    @ModuleInfo var k: Linear
    @ModuleInfo var v: Linear
    @ModuleInfo var o: Linear
    /// `[buckets, heads]`, in the first layer only.
    @ModuleInfo(key: "relative_attention_bias") var relativeBias: Embedding?
    @ModuleInfo(key: "prefix_site") var prefix: KeyValueSite
    let heads: Int
    let headSize: Int
    let scale = 1.0
    let rate: Double

    init(_ settings: T5Configuration, _ kind: SublayerKind, _ role: StackRole, hasBias: Bool) {
        (heads, headSize, rate) = (settings.heads, settings.headSize, settings.dropout)
        let inner = heads * headSize
        func input() -> Linear { Linear(settings.modelSize, inner, bias: false) }
        _q.wrappedValue = input()
        _k.wrappedValue = input()
        _v.wrappedValue = input()
        _o.wrappedValue = Linear(inner, settings.modelSize, bias: false)
        _relativeBias.wrappedValue = hasBias ? Embedding(settings.relativeBuckets, heads) : nil
        _prefix.wrappedValue = KeyValueSite(kind, role: role, heads: heads, headSize: headSize)
    }
}

final class T5FeedForward: Module {
    /// The input projection, or the two of the gated form.
    @ModuleInfo(key: "wi") var plain: Linear?
    @ModuleInfo(key: "wi_0") var gate: Linear?
    @ModuleInfo(key: "wi_1") var up: Linear?
    @ModuleInfo(key: "wo") var output: Linear
    let activation: Activation
    let rate: Double

    init(_ settings: T5Configuration) {
        func linear() -> Linear { Linear(settings.modelSize, settings.feedForwardSize, bias: false) }
        _plain.wrappedValue = settings.isGated ? nil : linear()
        _gate.wrappedValue = settings.isGated ? linear() : nil
        _up.wrappedValue = settings.isGated ? linear() : nil
        _output.wrappedValue = Linear(settings.feedForwardSize, settings.modelSize, bias: false)
        (activation, rate) = (settings.activation, settings.dropout)
    }

    func callAsFunction(_ x: Tensor) -> Tensor {
        let hidden: Tensor
        if let gate, let up {
            let parts = Linear.project(x, [gate, up])
            hidden = activation.gated(parts[0], parts[1])
        } else {
            hidden = plain.map { activation($0(x)) } ?? x
        }
        return output(dropout(hidden, rate))
    }
}
