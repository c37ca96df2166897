import PEFTSupport
import Torch
import TorchNN

/// Generation with an encoder-decoder: the encoder's keys and values are computed once, the decoder's grow by one token
/// per decode step.
final class EncoderDecoderState<Model: EncoderDecoder>: DecodingState {
    private let model: Model
    private let beams: Int
    private var caches: [KeyValueCache]
    private var memories: [CrossMemory]
    /// Each layer's bias of distances capacity − 1 … 0, `[1, heads, 1, capacity]`; empty without biases.
    private var biases: [Tensor] = []
    /// 0 for cached tokens and −∞ for the gap of a shorter prefix, `[rows, 1, 1, capacity]`.
    private var gaps: Tensor?
    /// Length of the gap of each row.
    private var missing: [Int]
    private var position = 0
    private let capacity: Int

    /// - Parameter capacity: number of tokens to reserve, besides virtual ones.
    init(_ model: Model, _ prompts: PackedSequences, capacity tokens: Int, beams: Int) {
        (self.model, self.beams) = (model, beams)
        let encoded = model.encode(prompts)
        let states = encoded.states
        let rows = prompts.rows
        missing = Array(repeating: 0, count: rows)
        memories = model.crossKeysAndValues(encoded).map { all in
            func padded(_ x: Tensor) -> Tensor { x.padded(all.offsets).transposed(1, 2).contiguous() }
            return CrossMemory(
                keys: padded(all.keys), values: padded(all.values), mask: Self.mask(all.offsets, like: states))
        }
        let virtual = model.decoder.input.prompts(forRows: rows)
        let prefix = model.decoder.longestPrefix(forRows: rows)
        let promptLength = virtual.map { $0?.dim(0) ?? 0 }.max() ?? 0
        capacity = tokens + prefix + promptLength
        let capacity = capacity
        caches = model.decoder.blocks.map { block in
            KeyValueCache(
                batch: rows * beams, heads: block.attention.heads, capacity: capacity, size: block.attention.headSize,
                dtype: states.dtype, device: states.device)
        }
        biases = model.decoder.stepBiases(capacity: capacity).map { $0.unsqueezed(0) }
        start(rows, prefix: prefix, virtual: virtual, promptLength: promptLength, like: states)
    }

    /// Fills the caches with prefixes and virtual tokens. Rows that have fewer of them than others keep a gap in
    /// front, so that all rows write to the same column.
    private func start(_ rows: Int, prefix: Int, virtual: [Tensor?], promptLength: Int, like: Tensor) {
        var missing = [Int](repeating: 0, count: rows)
        if prefix > 0 {
            for (index, block) in model.decoder.blocks.enumerated() {
                let own = block.attention.prefix.prefixes(forRows: rows)
                func column(
                    _ part: (keys: Tensor, values: Tensor)?, _ pick: KeyPath<(keys: Tensor, values: Tensor), Tensor>
                )
                    -> Tensor
                {
                    let size = [block.attention.heads, block.attention.headSize]
                    guard let part else { return .zeros([1, prefix] + size, dtype: like.dtype, device: like.device) }
                    let x = part[keyPath: pick]
                    guard x.dim(0) < prefix else { return x.unsqueezed(0) }
                    let gap = Tensor.zeros([prefix - x.dim(0)] + size, dtype: like.dtype, device: like.device)
                    return Tensor.concatenated([gap, x]).unsqueezed(0)
                }
                func all(_ pick: KeyPath<(keys: Tensor, values: Tensor), Tensor>) -> Tensor {
                    let parts = own.flatMap { part in (0..<beams).map { _ in column(part, pick) } }
                    return Tensor.concatenated(parts).transposed(1, 2)
                }
                _ = caches[index].append(all(\.keys), all(\.values))
                if index == 0 { missing = own.map { prefix - ($0?.keys.dim(0) ?? 0) } }
            }
            position = prefix
        }
        self.missing = missing
        setGaps(missing, like: like)
        guard promptLength > 0 else { return }
        // A decode step writes one column for all rows, so prompts are fed token by token; rows without a token at a
        // position feed zeros into a column that is masked for them.
        let size = model.settings.modelSize
        let whole = virtual.enumerated().map { missing[$0.offset] + promptLength - ($0.element?.dim(0) ?? 0) }
        for index in 0..<promptLength {
            // A row's own tokens don't attend to its gap, but the tokens in the gap must attend to something to avoid
            // NaN.
            self.missing = whole
            if whole != missing { setGaps(whole.map { $0 <= position ? $0 : 0 }, like: like) }
            let tokens = virtual.enumerated().flatMap { row, prompt -> [Tensor] in
                let own = index - (promptLength - (prompt?.dim(0) ?? 0))
                let x =
                    own >= 0 ? prompt?.narrowed(axis: 0, own..<(own + 1)) : nil
                let token = x ?? .zeros([1, size], dtype: like.dtype, device: like.device)
                return Array(repeating: token, count: beams)
            }
            _ = advance(Tensor.concatenated(tokens).unsqueezed(1))
        }
        if whole != missing { setGaps(whole, like: like) }
    }

    private func setGaps(_ missing: [Int], like: Tensor) {
        gaps = nil
        guard missing.contains(where: { $0 > 0 }) else { return }
        let values = missing.flatMap { gap in
            (0..<beams).flatMap { _ in (0..<capacity).map { $0 < gap ? -Float.infinity : 0 } }
        }
        gaps = Tensor(values, shape: [missing.count * beams, 1, 1, capacity], device: like.device).to(like.dtype)
    }

    /// 0 for real tokens and −∞ for padding, `[rows, 1, 1, longest]`; `nil` if all rows have equal lengths.
    private static func mask(_ offsets: [Int], like: Tensor) -> Tensor? {
        let lengths = zip(offsets.dropFirst(), offsets).map { $0 - $1 }
        let longest = lengths.max() ?? 0
        guard lengths.contains(where: { $0 < longest }) else { return nil }
        let values = lengths.flatMap { length in (0..<longest).map { $0 < length ? Float(0) : -.infinity } }
        return Tensor(values, shape: [lengths.count, 1, 1, longest], device: like.device).to(like.dtype)
    }

    func step(_ tokens: Tensor) -> Tensor {
        let count = tokens.dim(0)
        return RowRouting.within(single: count) {
            let x = advance(model.decoder.embed(tokens, offsets: Array(0...count)).unsqueezed(1))
            return model.scores(model.decoder.leaving(x)).reshaped(count, -1)
        }
    }

    /// Feeds embedded tokens `[rows, 1, modelSize]` through the layers.
    private func advance(_ embedded: Tensor) -> Tensor {
        RowRouting.within(single: embedded.dim(0)) {
            // In a gap there is no position, and nothing reads the outputs.
            let positions = missing.flatMap { Array(repeating: max(0, position - $0), count: beams) }
            var x = model.decoder.entering(embedded, positions: positions)
            let mask = gaps?.narrowed(axis: 3, 0..<(position + 1))
            var last: (bias: Tensor, masked: Tensor)?
            for (index, block) in model.decoder.blocks.enumerated() {
                var bias = mask
                if biases.indices.contains(index) {
                    if last?.bias !== biases[index] {
                        // The last query's biases serve every position, as they depend only on the distance.
                        let own = biases[index].narrowed(axis: 3, (capacity - 1 - position)..<capacity)
                        last = (biases[index], mask.map { own + $0 } ?? own)
                    }
                    bias = last?.masked
                }
                x = block.step(x) {
                    $0.step($1, cache: caches[index], bias: bias)
                } cross: {
                    $0.step($1, memory: memories[index])
                }
            }
            position += 1
            return x
        }
    }

    func reorder(_ sources: Tensor) {
        for cache in caches { cache.select(rows: sources) }
    }

    func keep(rows: [Int]) {
        let device = memories.first?.keys.device ?? .cpu
        let continuations = Tensor(rows.flatMap { row in (0..<beams).map { row * beams + $0 } }, device: device)
        let prompts = Tensor(rows, device: device)
        for cache in caches { cache.select(rows: continuations) }
        gaps = gaps?.selecting(continuations)
        missing = rows.map { missing[$0] }
        memories = memories.map {
            CrossMemory(
                keys: $0.keys.selecting(prompts), values: $0.values.selecting(prompts),
                mask: $0.mask?.selecting(prompts))
        }
        RowRouting.current?.keep(rows: rows)
    }
}
