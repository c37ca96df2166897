import Torch
import TorchNN

/// Decode steps of sequences with caches of their own, which join and leave a ``SequenceBatch`` between steps: each attends to its
/// own tokens and to what the encoder has read for it. ``EncoderDecoderState`` decodes sequences that start together.
extension EncoderDecoder {
    /// Reads a sequence's prompt: caches the encoder's keys and values, the prefix, and those of the decoder's virtual tokens.
    func start(_ sequence: CachedSequence, device: Device) {
        let encoded = encode(PackedSequences([sequence.source], device: device))
        sequence.memories = crossKeysAndValues(encoded).map { ($0.keys.contiguous(), $0.values.contiguous()) }
        sequence.columns = decoder.longestPrefix(forRows: 1)
        if sequence.columns > 0 {
            for (index, block) in decoder.blocks.enumerated() {
                let shape = [sequence.columns, block.attention.heads, block.attention.headSize]
                let own = block.attention.prefix.prefixes(forRows: 1).first ?? nil
                // Layers without a prefix, beside layers with one, have zeros, as in ``EncoderDecoderState``.
                func columns(_ x: Tensor?) -> Tensor {
                    (x ?? .zeros(shape, device: device)).to(encoded.states.dtype)
                }
                _ = sequence.write(columns(own?.keys), columns(own?.values), layer: index, column: 0)
            }
        }
        guard let prompt = decoder.input.prompts(forRows: 1).first ?? nil else { return }
        // One after another, as without a batch.
        for token in 0..<prompt.dim(0) {
            _ = advance(prompt.narrowed(axis: 0, token..<(token + 1)), [sequence])
        }
    }

    /// Feeds one token to each sequence.
    /// - Returns: logits `[sequences, vocabulary]`.
    func step(_ inputs: [(sequence: CachedSequence, token: Int)], device: Device) -> Tensor {
        let count = inputs.count
        return RowRouting.within(single: count) {
            let ids = Tensor(inputs.map(\.token), device: device)
            let x = advance(decoder.embed(ids, offsets: Array(0...count)), inputs.map(\.sequence))
            for (sequence, _) in inputs { sequence.length += 1 }
            return scores(decoder.leaving(x))
        }
    }

    /// Feeds embedded tokens `[sequences, modelSize]` through the layers.
    private func advance(_ embedded: Tensor, _ sequences: [CachedSequence]) -> Tensor {
        RowRouting.within(single: sequences.count) {
            let positions = sequences.map(\.columns)
            var x = decoder.entering(embedded, positions: positions)
            let biases = decoder.stepBiases(capacity: (positions.max() ?? 0) + 1)
            for (index, block) in decoder.blocks.enumerated() {
                let bias = biases.indices.contains(index) ? biases[index] : nil
                x = block.step(x) {
                    $0.step($1, sequences, layer: index, bias: bias)
                } cross: {
                    $0.step($1, memories: sequences.map { $0.memories[index] })
                }
            }
            for sequence in sequences { sequence.columns += 1 }
            return x
        }
    }
}

extension EncoderDecoderAttention {
    /// Self-attention of one token per sequence, x `[sequences, modelSize]`, to its cache, which it is written to.
    /// - Parameter bias: by distance from the query, `[heads, 1, distances]` of distances distances − 1 … 0.
    fileprivate func step(_ x: Tensor, _ sequences: [CachedSequence], layer: Int, bias: Tensor?) -> Tensor {
        let own = Linear.project(x, [q, k, v]).map { $0.reshaped(-1, heads, headSize) }
        let mixed: Tensor
        if Self.isPlain(own + (bias.map { [$0] } ?? [])) {
            mixed = Tensor.empty(own[0].shape)
            let caches = sequences.enumerated().map { row, sequence in
                let column = sequence.columns
                let cache = sequence.reserve(layer, from: column, to: column + 1, own[1], own[2])
                return (row: row, keys: cache.keys, values: cache.values, column: column)
            }
            Functions.decodeSequences(
                own[0], own[1], own[2], caches: caches, bias: bias?.reshaped(heads, -1), window: nil, scale: scale,
                into: mixed)
        } else {
            mixed = attended(
                own[0],
                sequences.enumerated().map { row, sequence in
                    func token(_ x: Tensor) -> Tensor { x.narrowed(axis: 0, row..<(row + 1)) }
                    let columns = sequence.columns + 1
                    let cached = sequence.write(token(own[1]), token(own[2]), layer: layer, column: columns - 1)
                    let seen = bias.map { $0.narrowed(axis: 2, ($0.dim(2) - columns)..<$0.dim(2)) }
                    return (cached.keys, cached.values, seen)
                })
        }
        return o(mixed.reshaped(sequences.count, -1))
    }

    /// Cross-attention of one token per sequence, x `[sequences, modelSize]`, to the encoder's keys and values.
    fileprivate func step(_ x: Tensor, memories: [(keys: Tensor, values: Tensor)]) -> Tensor {
        let queries = q(x).reshaped(-1, heads, headSize)
        let mixed =
            Self.isPlain([queries] + memories.flatMap { [$0.keys, $0.values] })
            ? Functions.attendSequences(queries, to: memories, scale: scale)
            : attended(queries, memories.map { ($0.keys, $0.values, nil) })
        return o(mixed.reshaped(memories.count, -1))
    }

    /// Attention of each sequence's query `[sequences, heads, size]` to keys and values `[tokens, heads, size]` with a bias
    /// `[heads, 1, tokens]`, for all types and devices.
    private func attended(_ queries: Tensor, _ sequences: [(keys: Tensor, values: Tensor, bias: Tensor?)]) -> Tensor {
        func byHead(_ x: Tensor) -> Tensor { x.transposed(0, 1).unsqueezed(0) }
        let outputs = sequences.enumerated().map { row, own in
            Functions.attention(
                byHead(queries.narrowed(axis: 0, row..<(row + 1))), byHead(own.keys), byHead(own.values),
                mask: own.bias?.unsqueezed(0), scale: scale
            ).reshaped(1, heads, headSize)
        }
        return Tensor.concatenated(outputs)
    }

    private static func isPlain(_ tensors: [Tensor]) -> Bool {
        tensors.allSatisfy { $0.dtype == .float32 && $0.device == .cpu }
    }
}
