import PEFTSupport
import Torch
import TorchNN

/// An encoder-decoder, as training and generation use it.
///
/// A family gives its stacks; loss, logits and generation follow from them and from `config.json`.
protocol EncoderDecoder: TiedOutputModel {
    associatedtype Settings: EncoderDecoderConfiguration
    associatedtype Stack: EncoderDecoderStack
    var settings: Settings { get }
    var embedding: Embedding { get }
    var encoder: Stack { get }
    var decoder: Stack { get }
    /// Factor of the hidden states before the output layer.
    var outputScale: Double { get }
    /// Added to the logits, `[vocabulary]`.
    var logitsBias: Tensor? { get }
}

/// What all encoder-decoders read from `config.json`.
protocol EncoderDecoderConfiguration: Sendable {
    var family: ModelFamily { get }
    /// Size of the hidden states.
    var modelSize: Int { get }
    /// Whether the output layer is tied to the embedding.
    var isTied: Bool { get }
    var padToken: Int { get }
    var endTokens: [Int] { get }
    var startToken: Int { get }
    /// See ``GenerationDefaults/forcedEndTokens``.
    var forcedEndTokens: [Int] { get }
    /// Whether the decoder's input in training begins with the last target token, which names the language.
    var startsWithLastToken: Bool { get }
    var json: JSON { get }
}

extension EncoderDecoder {
    package var modelFamily: ModelFamily { settings.family }
    package var configuration: JSON { settings.json }
    package var architecture: Architecture { .encoderDecoder }
    package var outputLayer: String { modelFamily.modules.output.path ?? "" }
    package var inputEmbedding: String { modelFamily.modules.inputEmbedding }
    package var vocabularySize: Int { embedding.entries }
    package var generationDefaults: GenerationDefaults {
        var defaults = GenerationDefaults(
            startToken: settings.startToken, endTokens: Set(settings.endTokens), padToken: settings.padToken,
            forcedEndTokens: settings.forcedEndTokens)
        defaults.startsWithLastToken = settings.startsWithLastToken
        return defaults
    }
    package func virtualTokens(forRows rows: Int) -> [Int] {
        let read = encoder.input.prompts(forRows: rows).map { $0?.dim(0) ?? 0 }
        let prefix = decoder.blocks.first?.attention.prefix
        return zip(read, LanguageModels.virtualTokens(decoder.input, prefix, forRows: rows)).map { max($0, $1) }
    }

    var outputScale: Double { 1 }
    var logitsBias: Tensor? { nil }

    package func batch(_ rows: [(input: [Int], target: [Int])], device: Device) -> TrainingBatch {
        let decoder = rows.map { row -> [Int] in
            let last = settings.startsWithLastToken ? row.target.last : nil
            return [last ?? settings.startToken] + row.target.dropLast()
        }
        return TrainingBatch(
            input: PackedSequences(rows.map(\.input), device: device),
            decoder: PackedSequences(decoder, device: device),
            targets: Tensor(rows.flatMap(\.target), device: device))
    }

    package func lossSum(_ batch: TrainingBatch, labelSmoothing: Double) -> Tensor {
        let hidden = hidden(batch)
        if let outputProjection, outputProjection.isAdapted {
            // Adapters over the output layer act on the logits themselves.
            return crossEntropySum(scores(hidden), batch.targets, labelSmoothing: labelSmoothing)
        }
        // The gradient w.r.t. the hidden states is computed with the loss.
        return outputMatrix(embedding).gathered(inBackward: false) {
            (outputProjection?.weight ?? embedding.outputWeight).crossEntropy(
                hidden: hidden, bias: logitsBias, targets: batch.targets, scale: outputScale, softcap: nil,
                labelSmoothing: labelSmoothing)
        }
    }

    package func logits(_ batch: TrainingBatch) -> Tensor { scores(hidden(batch)) }

    /// The decoder's final hidden states, packed `[decoder tokens, modelSize]`.
    func hidden(_ batch: TrainingBatch) -> Tensor {
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

    /// The encoder's keys and values of each decoder layer, with prefixes: packed `[tokens, heads, headSize]`, and where each
    /// sequence starts.
    func crossKeysAndValues(_ encoded: PromptedRows) -> [(keys: Tensor, values: Tensor, offsets: [Int])] {
        decoder.blocks.compactMap { block in
            guard let cross = block.crossAttention else { return nil }
            func heads(_ x: Tensor) -> Tensor { x.reshaped(-1, cross.heads, cross.headSize) }
            let (keys, values) = RowRouting.within(encoded.offsets) {
                (heads(cross.k(encoded.states)), heads(cross.v(encoded.states)))
            }
            return cross.prefix(keys, values, offsets: encoded.offsets)
        }
    }

    /// Hidden states `[..., modelSize]` -> logits `[..., vocabulary]`.
    func scores(_ hidden: Tensor) -> Tensor {
        let hidden = outputScale == 1 ? hidden : hidden * outputScale
        let scores = outputMatrix(embedding).gathered {
            outputProjection?(hidden) ?? embedding.outputWeight.project(hidden, bias: nil)
        }
        return logitsBias.map { scores + $0.to(scores.dtype) } ?? scores
    }

    package func startDecoding(_ prompts: PackedSequences, capacity: Int, beams: Int) -> any DecodingState {
        EncoderDecoderState(self, prompts, capacity: capacity, beams: beams)
    }
}

/// The encoder's or the decoder's layers.
protocol EncoderDecoderStack: Module {
    associatedtype Block: EncoderDecoderBlock
    var input: InputSite { get }
    var blocks: [Block] { get }
    /// Embedded tokens before positions: ids `[tokens]` -> `[tokens, modelSize]`.
    func embed(_ ids: Tensor, offsets: [Int]) -> Tensor
    /// Packed `[tokens, modelSize]` -> `[tokens, modelSize]`. `memory` is the encoder's output with its offsets.
    func callAsFunction(_ x: Tensor, rows: [Int], memory: (states: Tensor, rows: [Int])?) -> Tensor
    /// The first layer's input in a decode step, from embedded tokens `[rows, 1, modelSize]` at these positions.
    func entering(_ x: Tensor, positions: [Int]) -> Tensor
    /// The output of the last layer -> the hidden states of the output layer.
    func leaving(_ x: Tensor) -> Tensor
    /// The position bias of the last of `capacity` tokens in each layer, `[heads, 1, capacity]`; empty without them.
    func stepBiases(capacity: Int) -> [Tensor]
}

extension EncoderDecoderStack {
    /// Length of the longest prefix of the self-attention.
    func longestPrefix(forRows rows: Int) -> Int {
        blocks.map { $0.attention.prefix.longestPrefix(forRows: rows) }.max() ?? 0
    }
}

/// A layer of a stack; `crossAttention` is `nil` in the encoder.
protocol EncoderDecoderBlock: StackedLayer {
    associatedtype Attention: EncoderDecoderAttention
    var attention: Attention { get }
    var crossAttention: Attention? { get }
    /// Decode step: one token per sequence, x `[rows, modelSize]` or `[rows, 1, modelSize]`.
    /// - Parameters:
    ///   - attend: the self-attention of the tokens to what is cached.
    ///   - cross: the cross-attention of the tokens to what the encoder has read.
    func step(_ x: Tensor, attend: (Attention, Tensor) -> Tensor, cross: (Attention, Tensor) -> Tensor) -> Tensor
}

/// Self-attention or cross-attention of an encoder-decoder.
protocol EncoderDecoderAttention: Module {
    var q: Linear { get }
    var k: Linear { get }
    var v: Linear { get }
    var o: Linear { get }
    var prefix: KeyValueSite { get }
    var heads: Int { get }
    var headSize: Int { get }
    /// Factor of the scores.
    var scale: Double { get }
    /// Dropout probability of the attention's weights.
    var rate: Double { get }
}

extension EncoderDecoderAttention {
    /// Self-attention over packed sequences, `[tokens, modelSize]` -> `[tokens, modelSize]`.
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
            causal: causal, scale: scale, dropout: probability, seed: seed)
        return o(mixed.reshaped(-1, heads * headSize))
    }

    /// `[rows, length, inner]` -> `[rows, heads, length, headSize]`.
    private func splitHeads(_ x: Tensor) -> Tensor {
        x.reshaped(x.dim(0), -1, heads, headSize).transposed(1, 2)
    }

    private func joinHeads(_ x: Tensor) -> Tensor {
        x.transposed(1, 2).reshaped(x.dim(0), x.dim(2), heads * headSize)
    }

    func step(_ x: Tensor, cache: KeyValueCache, bias: Tensor?) -> Tensor {
        let all = Linear.project(x, [q, k, v]).map(splitHeads)
        let (keys, values) = cache.append(all[1], all[2])
        return o(joinHeads(Functions.attention(all[0], keys, values, mask: bias, scale: scale)))
    }

    /// Beams of one prompt are queries of one row, so that the encoder's keys are stored once per prompt.
    func step(_ x: Tensor, memory: CrossMemory) -> Tensor {
        let queries = q(x).reshaped(memory.keys.dim(0), -1, heads * headSize)
        let mixed = Functions.attention(
            splitHeads(queries), memory.keys, memory.values, mask: memory.mask, scale: scale)
        return o(joinHeads(mixed).reshaped(x.dim(0), 1, -1))
    }
}

/// The encoder's keys and values of one decoder layer, padded: `[rows, heads, longest, headSize]`.
struct CrossMemory {
    var keys: Tensor
    var values: Tensor
    /// 0 for real tokens and −∞ for padding, `[rows, 1, 1, longest]`.
    var mask: Tensor?
}
