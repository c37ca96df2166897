import Foundation
import PEFTSupport
import Torch
import TorchNN

/// T5 (Raffel et al. 2020) and mT5 (Xue et al. 2021): encoder-decoders with a relative position bias.
package final class T5: Module, TiedOutputModel {
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

    package var modelFamily: ModelFamily { settings.family }
    package var configuration: JSON { settings.json }
    package var architecture: Architecture { .encoderDecoder }
    package var outputLayer: String { modelFamily.modules.output.path ?? "" }
    package var inputEmbedding: String { modelFamily.modules.inputEmbedding }
    package var vocabularySize: Int { embedding.entries }
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
    package var generationDefaults: GenerationDefaults {
        GenerationDefaults(
            startToken: settings.startToken, endTokens: Set(settings.endTokens), padToken: settings.padToken)
    }

    package func batch(_ rows: [(input: [Int], target: [Int])], device: Device) -> TrainingBatch {
        TrainingBatch(
            input: PackedSequences(rows.map(\.input), device: device),
            decoder: PackedSequences(rows.map { [settings.startToken] + $0.target.dropLast() }, device: device),
            targets: Tensor(rows.flatMap(\.target), device: device))
    }

    package func lossSum(_ batch: TrainingBatch, labelSmoothing: Double) -> Tensor {
        if let outputProjection, outputProjection.isAdapted {
            // Adapters over the output layer act on the logits themselves.
            let logs = scores(hidden(batch)).logSoftmax()
            let targetLoss = logs.gathering(axis: 1, batch.targets.unsqueezed(1)).sum() * (labelSmoothing - 1)
            return labelSmoothing > 0 ? targetLoss - logs.mean(axes: [-1]).sum() * labelSmoothing : targetLoss
        }
        return (outputProjection?.weight ?? embedding.outputWeight).crossEntropy(
            hidden: hidden(batch), bias: nil, targets: batch.targets, scale: outputScale, softcap: nil,
            labelSmoothing: labelSmoothing)
    }

    package func logits(_ batch: TrainingBatch) -> Tensor { scores(hidden(batch)) }

    /// The decoder's final hidden states, packed `[decoder tokens, modelSize]`.
    private func hidden(_ batch: TrainingBatch) -> Tensor {
        let memory = encode(batch.input)
        guard let rows = batch.decoder.map(checked) else { return memory.states }
        let prompted = decoder.input(decoder.embed(rows.ids, offsets: rows.offsets), offsets: rows.offsets)
        let states = decoder(prompted.states, rows: prompted.offsets, memory: (memory.states, memory.offsets))
        return prompted.withoutPrompts(states)
    }

    /// The encoder's final hidden states, packed `[tokens, modelSize]`, including virtual tokens.
    func encode(_ input: PackedSequences) -> PromptedRows {
        let input = checked(input)
        let prompted = encoder.input(encoder.embed(input.ids, offsets: input.offsets), offsets: input.offsets)
        let states = encoder(prompted.states, rows: prompted.offsets, memory: nil)
        return PromptedRows(states: states, offsets: prompted.offsets, prompts: prompted.prompts)
    }

    private var outputScale: Double { settings.scalesOutput ? 1 / Double(settings.modelSize).squareRoot() : 1 }

    /// Hidden states `[..., modelSize]` -> logits `[..., vocabulary]`.
    func scores(_ hidden: Tensor) -> Tensor {
        let hidden = settings.scalesOutput ? hidden * outputScale : hidden
        return outputProjection?(hidden) ?? embedding.outputWeight.project(hidden, bias: nil)
    }

    package func startDecoding(_ prompts: PackedSequences, capacity: Int, beams: Int) -> any DecodingState {
        T5DecodingState(self, prompts, capacity: capacity, beams: beams)
    }
}

/// The encoder's or the decoder's layers.
final class T5Stack: Module {
    /// A view of the shared embedding for this stack.
    @ModuleInfo(key: "embed_tokens") var embedding: Embedding
    @ModuleInfo var block: [T5Block]
    @ModuleInfo(key: "final_layer_norm") var norm: RMSNorm
    @ModuleInfo(key: "input_site") var input: InputSite
    let settings: T5Configuration
    let isDecoder: Bool

    init(_ settings: T5Configuration, isDecoder: Bool, embedding: Embedding) {
        self.settings = settings
        self.isDecoder = isDecoder
        _embedding.wrappedValue = Embedding(over: embedding)
        let layers = isDecoder ? settings.decoderLayers : settings.encoderLayers
        _block.wrappedValue = (0..<layers).map { T5Block(settings, isDecoder: isDecoder, hasBias: $0 == 0) }
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
            let bias = positionBias(queries: prefix..<(prefix + longest), keys: prefix + longest)
            var x = dropout(x, settings.dropout)
            for layer in block { x = checkpointed(x) { layer($0, rows: rows, bias: bias, memory: memory) } }
            return dropout(norm(x), settings.dropout)
        }
    }

    /// Length of the longest prefix of the self-attention.
    func longestPrefix(forRows rows: Int) -> Int {
        block.map { $0.attention.prefix.longestPrefix(forRows: rows) }.max() ?? 0
    }

    /// The first layer's relative position bias, shared by all layers: `[heads, queries, keys]`.
    func positionBias(queries: Range<Int>, keys: Int) -> Tensor? {
        guard let table = block.first?.attention.relativeBias else { return nil }
        guard hasRoom(queries: queries.count, keys: keys) else { return .zeros([0]) }
        // By distance key − query, starting at the last query's first key.
        let distances = queries.isEmpty || keys == 0 ? 0..<0 : (1 - queries.upperBound)..<(keys - queries.lowerBound)
        let known = distances.map { relativePositionBucket($0, settings: settings, bidirectional: !isDecoder) }
        var buckets: [Int] = []
        buckets.reserveCapacity(queries.count * keys)
        for query in queries { buckets.append(contentsOf: known[(queries.upperBound - 1 - query)...].prefix(keys)) }
        let ids = Tensor(buckets, shape: [queries.count, keys], device: table.weight.device)
        return table(ids).permuted(2, 0, 1).contiguous()
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

/// The bucket of a key's position relative to the query's (Raffel et al. 2020, section 2.1): exact for short
/// distances, logarithmic for longer ones; half of the buckets are for keys after the query, if bidirectional.
func relativePositionBucket(_ relative: Int, settings: T5Configuration, bidirectional: Bool) -> Int {
    var buckets = settings.relativeBuckets
    var result = 0
    var distance = max(0, -relative)
    if bidirectional {
        buckets /= 2
        if relative > 0 { result = buckets }
        distance = abs(relative)
    }
    let exact = buckets / 2
    if distance < exact { return result + distance }
    // In fp32 and in this order, as in PyTorch: bucket boundaries depend on the rounding.
    let ratio = Foundation.log(Float(distance) / Float(exact))
    let span = Float(Foundation.log(Double(settings.relativeMaximumDistance) / Double(exact)))
    let wide = exact + Int(ratio / span * Float(buckets - exact))
    return result + min(wide, buckets - 1)
}

final class T5Block: Module {
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
        _attentionOutput.wrappedValue = OutputSite(.attention, size: settings.modelSize)
        _crossOutput.wrappedValue = isDecoder ? OutputSite(.crossAttention, size: settings.modelSize) : nil
        _feedForwardOutput = ModuleInfo(
            wrappedValue: OutputSite(.feedForward, size: settings.modelSize), key: "layer.\(last).output_site")
        rate = settings.dropout
    }

    func callAsFunction(_ x: Tensor, rows: [Int], bias: Tensor?, memory: (states: Tensor, rows: [Int])?) -> Tensor {
        var x = x
        var normed = attentionNorm(x)
        let attended = attention(normed, rows: rows, bias: bias, causal: memory != nil)
        x = x + dropout(attentionOutput(attended, input: normed), rate)
        if let memory, let crossAttention, let crossNorm, let crossOutput {
            normed = crossNorm(x)
            x = x + dropout(crossOutput(crossAttention(normed, rows: rows, memory: memory), input: normed), rate)
        }
        normed = feedForwardNorm(x)
        return x + dropout(feedForwardOutput(feedForward(normed), input: normed), rate)
    }

    /// Decode step: one token per sequence, x `[rows, 1, modelSize]`.
    func step(_ x: Tensor, cache: KeyValueCache, bias: Tensor?, memory: T5CrossMemory) -> Tensor {
        var x = x
        var normed = attentionNorm(x)
        x = x + attentionOutput(attention.step(normed, cache: cache, bias: bias), input: normed)
        if let crossAttention, let crossNorm, let crossOutput {
            normed = crossNorm(x)
            x = x + crossOutput(crossAttention.step(normed, memory: memory), input: normed)
        }
        normed = feedForwardNorm(x)
        return x + feedForwardOutput(feedForward(normed), input: normed)
    }
}

final class T5Attention: Module {
    @ModuleInfo var q: Linear
    @ModuleInfo var k: Linear
    @ModuleInfo var v: Linear
    @ModuleInfo var o: Linear
    /// `[buckets, heads]`, in the first layer only.
    @ModuleInfo(key: "relative_attention_bias") var relativeBias: Embedding?
    @ModuleInfo(key: "prefix_site") var prefix: KeyValueSite
    let heads: Int
    let headSize: Int
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

    /// Self-attention over packed sequences, `[tokens, modelSize]` -> `[tokens, modelSize]`. T5 doesn't scale the
    /// scores.
    func callAsFunction(_ x: Tensor, rows: [Int], bias: Tensor?, causal: Bool) -> Tensor {
        attend(x, keys: x, queryRows: rows, keyRows: rows, bias: bias, causal: causal)
    }

    /// Cross-attention from packed sequences to the encoder's packed sequences.
    func callAsFunction(_ x: Tensor, rows: [Int], memory: (states: Tensor, rows: [Int])) -> Tensor {
        attend(x, keys: memory.states, queryRows: rows, keyRows: memory.rows, bias: nil, causal: false)
    }

    private func attend(
        _ x: Tensor, keys: Tensor, queryRows: [Int], keyRows: [Int], bias: Tensor?, causal: Bool
    ) -> Tensor {
        func split(_ x: Tensor) -> Tensor { x.reshaped(-1, heads, headSize) }
        let own: [Tensor]
        if keys === x {
            own = Linear.project(x, [q, k, v]).map(split)
        } else {
            own = [split(q(x))] + RowRouting.within(keyRows) { Linear.project(keys, [k, v]).map(split) }
        }
        let all = prefix(own[1], own[2], offsets: keyRows)
        let (probability, seed) = DropoutScope.draw(rate)
        let mixed = Functions.packedAttention(
            own[0], all.keys, all.values, bias: bias, queryOffsets: queryRows, keyOffsets: all.offsets,
            causal: causal, scale: 1, dropout: probability, seed: seed)
        return o(mixed.reshaped(-1, heads * headSize))
    }

    /// `[rows, length, inner]` -> `[rows, heads, length, headSize]`.
    func splitHeads(_ x: Tensor) -> Tensor { x.reshaped(x.dim(0), -1, heads, headSize).transposed(1, 2) }

    private func joinHeads(_ x: Tensor) -> Tensor {
        x.transposed(1, 2).reshaped(x.dim(0), x.dim(2), heads * headSize)
    }

    func step(_ x: Tensor, cache: KeyValueCache, bias: Tensor?) -> Tensor {
        let all = Linear.project(x, [q, k, v]).map(splitHeads)
        let (keys, values) = cache.append(all[1], all[2])
        return o(joinHeads(Functions.attention(all[0], keys, values, mask: bias, scale: 1)))
    }

    /// Beams of one prompt are queries of one row, so that the encoder's keys are stored once per prompt.
    func step(_ x: Tensor, memory: T5CrossMemory) -> Tensor {
        let queries = q(x).reshaped(memory.keys.dim(0), -1, heads * headSize)
        let mixed = Functions.attention(
            splitHeads(queries), memory.keys, memory.values, mask: memory.mask, scale: 1)
        return o(joinHeads(mixed).reshaped(x.dim(0), 1, -1))
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

/// The encoder's keys and values of one decoder layer, padded: `[rows, heads, longest, headSize]`.
struct T5CrossMemory {
    var keys: Tensor
    var values: Tensor
    /// 0 for real tokens and −∞ for padding, `[rows, 1, 1, longest]`.
    var mask: Tensor?
}
