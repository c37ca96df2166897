import Support
import Torch
import TorchNN

/// How the tokens that a stack of layers computes on attend to each other: packed rows while training and reading
/// prompts, one token a row while generating. A model's layers are written once over it.
class AttentionContext {
    /// The position of each token, int64 [tokens].
    let positions: Tensor
    /// Cosines and sines of rotary positions, made by the first layer that asks.
    private var rotation: (cos: Tensor, sin: Tensor)?

    init(positions: Tensor) { self.positions = positions }

    /// softmax(scale · q kᵀ) v.
    ///
    /// - Parameters:
    ///   - q: [tokens, heads, size]; `k`, `v`: [tokens, key heads, size], each key head serving several queries' heads.
    ///   - site: where prefixes are attached.
    ///   - layer: the layer's number.
    /// - Returns: [tokens, heads, size].
    func attend(_ q: Tensor, _ k: Tensor, _ v: Tensor, site: KeyValueSite, layer: Int, scale: Double, dropout: Double)
        -> Tensor
    { q }

    /// x [tokens, heads, size] rotated by its tokens' positions (Su et al. 2021, RoFormer, eq. 34), with the two halves
    /// of a head as the pairs, as in Llama.
    func rotated(_ x: Tensor, frequencies: [Double]) -> Tensor {
        if rotation == nil {
            let angles =
                positions.to(.float32).unsqueezed(1)
                * Tensor(frequencies.map(Float.init), shape: [1, frequencies.count], device: x.device)
            let both = Tensor.concatenated([angles, angles], axis: 1).unsqueezed(1)
            rotation = (both.cos().to(x.dtype), both.sin().to(x.dtype))
        }
        guard let rotation else { return x }
        let half = x.dim(2) / 2
        let turned = Tensor.concatenated(
            [-x.narrowed(axis: 2, half..<(2 * half)), x.narrowed(axis: 2, 0..<half)], axis: 2)
        return x * rotation.cos + turned * rotation.sin
    }

    /// Key heads repeated for the queries' heads they serve, [tokens, heads, size].
    static func repeated(_ x: Tensor, heads: Int, axis: Int = 1) -> Tensor {
        let own = x.dim(axis)
        guard own < heads, own > 0 else { return x }
        var shape = x.shape
        let times = heads / own
        let wide = x.unsqueezed(axis + 1)
        var expanded = wide.shape
        expanded[axis + 1] = times
        shape[axis] = heads
        return wide.expanded(expanded).reshaped(shape)
    }
}

/// Rows packed end to end.
final class PackedContext: AttentionContext {
    private let offsets: [Int]
    private let isCausal: Bool
    /// Keys and values of each layer with their rows, where generation goes on from them.
    private(set) var kept: [Int: (keys: Tensor, values: Tensor, offsets: [Int])] = [:]
    private let keeps: Bool

    /// - Parameters:
    ///   - rows: the rows' tokens, virtual ones included.
    ///   - prefixes: tokens that prefixes put before each row.
    init(_ rows: PromptedRows, prefixes: [Int], isCausal: Bool, keeps: Bool = false) {
        (offsets, self.isCausal, self.keeps) = (rows.offsets, isCausal, keeps)
        let positions = rows.prompts.indices.flatMap { row in
            (0..<(rows.offsets[row + 1] - rows.offsets[row])).map { prefixes[row] + $0 }
        }
        super.init(positions: Tensor(positions, device: rows.states.device))
    }

    override func attend(
        _ q: Tensor, _ k: Tensor, _ v: Tensor, site: KeyValueSite, layer: Int, scale: Double, dropout: Double
    ) -> Tensor {
        let all = site(k, v, offsets: offsets)
        if keeps { kept[layer] = (all.keys, all.values, all.offsets) }
        let heads = q.dim(1)
        let (probability, seed) = DropoutScope.draw(dropout)
        return Functions.packedAttention(
            q, Self.repeated(all.keys, heads: heads), Self.repeated(all.values, heads: heads), bias: nil,
            queryOffsets: offsets, keyOffsets: all.offsets, causal: isCausal, scale: scale, dropout: probability,
            seed: seed)
    }
}

/// One token per continuation, over caches.
final class StepContext: AttentionContext {
    private let caches: [KeyValueCache]
    private let mask: Tensor?

    init(positions: Tensor, caches: [KeyValueCache], mask: Tensor?) {
        (self.caches, self.mask) = (caches, mask)
        super.init(positions: positions)
    }

    override func attend(
        _ q: Tensor, _ k: Tensor, _ v: Tensor, site: KeyValueSite, layer: Int, scale: Double, dropout: Double
    ) -> Tensor {
        let (keys, values) = caches[layer].append(k.unsqueezed(2), v.unsqueezed(2))
        let heads = q.dim(1)
        return Functions.attention(
            q.unsqueezed(2), Self.repeated(keys, heads: heads), Self.repeated(values, heads: heads), mask: mask,
            scale: scale
        ).reshaped(q.shape)
    }
}

/// A decoder-only model, as generation and training see it.
protocol CausalModel: LanguageModel {
    var inputSite: InputSite { get }
    /// The prefix site of each layer.
    var prefixSites: [KeyValueSite] { get }
    /// Vectors of token ids, before positions: [tokens, size].
    func embed(_ ids: Tensor) -> Tensor
    /// The layers and the last norm over embedded tokens [tokens, size].
    func decode(_ x: Tensor, _ context: AttentionContext) -> Tensor
    /// Hidden states [tokens, size] → scores [tokens, vocabulary].
    func scores(_ hidden: Tensor) -> Tensor
    /// The output layer's matrix where nothing acts on the scores themselves.
    var outputWeight: Tensor? { get }
}

extension CausalModel {
    func causalBatch(_ rows: [(input: [Int], target: [Int])], device: Device) -> TrainingBatch {
        var positions: [Int] = []
        var start = 0
        for row in rows {
            // The last token of the prompt predicts the first of the target, and so on.
            positions += (0..<row.target.count).map { start + row.input.count - 1 + $0 }
            start += row.input.count + row.target.count - 1
        }
        return TrainingBatch(
            input: PackedSequences(rows.map { $0.input + $0.target.dropLast() }, device: device), decoder: nil,
            targets: Tensor(rows.flatMap(\.target), device: device), positions: Tensor(positions, device: device))
    }

    func causalLoss(_ batch: TrainingBatch, labelSmoothing: Double) -> Tensor {
        let hidden = hidden(batch)
        if let weight = outputWeight {
            return Functions.linearCrossEntropy(
                hidden: hidden, weight: weight, targets: batch.targets, labelSmoothing: labelSmoothing)
        }
        let logs = scores(hidden).logSoftmax()
        let wanted = logs.gathering(axis: 1, batch.targets.unsqueezed(1)).sum() * (labelSmoothing - 1)
        return labelSmoothing > 0 ? wanted - logs.mean(axes: [-1]).sum() * labelSmoothing : wanted
    }

    func causalLogits(_ batch: TrainingBatch) -> Tensor { scores(hidden(batch)) }

    /// Hidden states of the positions that bear loss, [targets, size].
    private func hidden(_ batch: TrainingBatch) -> Tensor {
        let (states, rows, _) = read(batch.input, keeps: false)
        let own = rows.withoutPrompts(states)
        return batch.positions.map { own.selecting($0) } ?? own
    }

    /// Runs packed rows through the layers: [tokens, size], virtual tokens included.
    func read(_ input: PackedSequences, keeps: Bool) -> (states: Tensor, rows: PromptedRows, context: PackedContext) {
        let embedded = RowRouting.within(input.offsets) { embed(input.ids) }
        let rows = inputSite(embedded, offsets: input.offsets)
        let prefixes = (prefixSites.first?.prefixes(forRows: input.rows) ?? []).map { $0?.keys.dim(0) ?? 0 }
        let context = PackedContext(
            rows, prefixes: prefixes.isEmpty ? rows.prompts.map { _ in 0 } : prefixes, isCausal: true, keeps: keeps)
        let states = RowRouting.within(rows.offsets) { decode(rows.states, context) }
        return (states, rows, context)
    }
}

/// Generation with a decoder-only model. Rows are right-aligned in the caches, so that all write to the same column;
/// what a shorter row leaves free in front is masked.
final class CausalDecodingState: DecodingState {
    private let model: any CausalModel
    private let beams: Int
    private var caches: [KeyValueCache] = []
    /// 0 where a row's cache holds something, −∞ in front of it, [rows · beams, 1, 1, columns]; `nil` without gaps.
    private var gaps: Tensor?
    /// Tokens in front of the next one, per continuation.
    private var lengths: [Int] = []
    private var columns: Int

    /// - Parameter prompts: tokens before the one that the first step feeds; rows may be empty.
    init(_ model: any CausalModel, _ prompts: PackedSequences, capacity: Int, beams: Int) {
        (self.model, self.beams) = (model, beams)
        let (_, _, context) = model.read(prompts, keeps: true)
        let rowLengths =
            context.kept[0].map { kept in zip(kept.offsets.dropFirst(), kept.offsets).map { $0 - $1 } } ?? []
        columns = rowLengths.max() ?? 0
        lengths = rowLengths.flatMap { Array(repeating: $0, count: beams) }
        let columns = columns
        for layer in context.kept.keys.sorted() {
            guard let kept = context.kept[layer] else { continue }
            let cache = KeyValueCache(
                batch: rowLengths.count * beams, heads: kept.keys.dim(1), capacity: columns + capacity,
                size: kept.keys.dim(2), dtype: kept.keys.dtype, device: kept.keys.device)
            func aligned(_ x: Tensor) -> Tensor {
                let rest = Array(x.shape.dropFirst())
                let rows = rowLengths.indices.flatMap { row -> [Tensor] in
                    let own = x.narrowed(axis: 0, kept.offsets[row]..<kept.offsets[row + 1])
                    let gap = columns - rowLengths[row]
                    let whole =
                        gap > 0
                        ? Tensor.concatenated([.zeros([gap] + rest, dtype: x.dtype, device: x.device), own]) : own
                    return Array(repeating: whole.unsqueezed(0), count: beams)
                }
                return Tensor.concatenated(rows).transposed(1, 2)
            }
            if columns > 0 { _ = cache.append(aligned(kept.keys), aligned(kept.values)) }
            caches.append(cache)
        }
        if rowLengths.contains(where: { $0 < columns }), let like = context.kept[0]?.keys {
            let total = columns + capacity
            let values = lengths.flatMap { length in
                (0..<total).map { $0 < columns - length ? -Float.infinity : 0 }
            }
            gaps = Tensor(values, shape: [lengths.count, 1, 1, total], device: like.device).to(like.dtype)
        }
    }

    func step(_ tokens: Tensor) -> Tensor {
        let count = tokens.dim(0)
        return RowRouting.within(single: count) {
            let mask = gaps?.narrowed(axis: 3, 0..<(columns + 1))
            let context = StepContext(
                positions: Tensor(lengths, device: tokens.device), caches: caches, mask: mask)
            let states = model.decode(model.embed(tokens), context)
            columns += 1
            lengths = lengths.map { $0 + 1 }
            return model.scores(states)
        }
    }

    func reorder(_ sources: Tensor) {
        // Continuations of one prompt are equally long, so lengths and gaps stay.
        for cache in caches { cache.select(rows: sources) }
    }

    func keep(rows: [Int]) {
        let continuations = rows.flatMap { row in (0..<beams).map { row * beams + $0 } }
        let indices = Tensor(continuations, device: gaps?.device ?? model.device)
        for cache in caches { cache.select(rows: indices) }
        gaps = gaps?.selecting(indices)
        lengths = continuations.map { lengths[$0] }
        RowRouting.current?.keep(rows: rows)
    }
}
