import PEFTSupport
import Torch
import TorchNN

/// Generation with a decoder-only model. Sequences are right-aligned in the KV caches, so that all write to the same
/// column; the gaps before shorter ones are masked.
final class CausalDecodingState: DecodingState {
    private let model: any CausalModel
    private let beams: Int
    /// KV caches by layer.
    private var caches: [Int: KeyValueCache] = [:]
    /// States of the layers without keys and values.
    private var recurrent = RecurrentCache()
    /// −∞ for gaps, and 0 or the linear biases for cached tokens, `[rows · beams or 1, heads or 1, 1, columns]`; `nil`
    /// without both.
    private var mask: Tensor?
    /// Number of tokens before the next one, per continuation.
    private var lengths: [Int] = []
    private var columns = 0
    /// Length of the initially longest sequence, which keeps counting after it is finished.
    private var width = 0
    /// Final number of cache columns, without virtual tokens.
    private let capacity: Int
    /// The tokens of each continuation, if they may have to be recomputed.
    private var texts: [[Int]]?
    /// The prompts, for adapters that act from an invocation on.
    private let invocations: InvocationScope

    /// - Parameters:
    ///   - prompts: tokens before the one that the first decode step feeds; may be empty.
    ///   - capacity: maximum number of tokens that follow.
    init(_ model: any CausalModel, _ prompts: PackedSequences, capacity: Int, beams: Int) {
        (self.model, self.beams) = (model, beams)
        self.capacity = prompts.longest + capacity
        invocations = InvocationScope.current ?? InvocationScope(prompts)
        if model.rereadLength != nil {
            let ids: [Int] = prompts.ids.array()
            texts = (0..<prompts.rows).flatMap { row in
                let text = Array(ids[prompts.offsets[row]..<prompts.offsets[row + 1]])
                return Array(repeating: text, count: beams)
            }
        }
        fill(prompts, copies: beams)
        width = columns
    }

    /// Prefills packed sequences into new caches, each repeated for its continuations.
    private func fill(_ prompts: PackedSequences, copies: Int) {
        // The next token follows immediately, as if it were part of the prefill. No logits are needed yet, so the
        // last layer computes only keys and values.
        let context = invocations.run {
            model.read(
                prompts, keeps: true, longest: max(width, prompts.longest) + 1,
                outputs: prompts.offsets.dropFirst().map { $0..<$0 }
            ).context
        }
        let first = context.kept.min { $0.key < $1.key }?.value
        let offsets = first?.offsets ?? context.offsets
        let rowLengths = zip(offsets.dropFirst(), offsets).map { $0 - $1 }
        columns = rowLengths.max() ?? 0
        lengths = rowLengths.flatMap { Array(repeating: $0, count: copies) }
        let columns = columns
        let virtual = zip(rowLengths, prompts.lengths).map { $0 - $1 }
        let total = capacity + (virtual.max() ?? 0)
        caches = [:]
        for (layer, kept) in context.kept {
            let cache = KeyValueCache(
                batch: rowLengths.count * copies, heads: kept.keys.dim(1), capacity: total, size: kept.keys.dim(2),
                dtype: kept.keys.dtype, device: kept.keys.device)
            func aligned(_ x: Tensor) -> Tensor {
                let rest = Array(x.shape.dropFirst())
                let rows = rowLengths.indices.flatMap { row -> [Tensor] in
                    let own = x.narrowed(axis: 0, kept.offsets[row]..<kept.offsets[row + 1])
                    let gap = columns - rowLengths[row]
                    let whole =
                        gap > 0
                        ? Tensor.concatenated([.zeros([gap] + rest, dtype: x.dtype, device: x.device), own]) : own
                    return Array(repeating: whole.unsqueezed(0), count: copies)
                }
                return Tensor.concatenated(rows).transposed(1, 2)
            }
            if columns > 0 { _ = cache.append(aligned(kept.keys), aligned(kept.values)) }
            caches[layer] = cache
        }
        recurrent = RecurrentCache(context.keptStates)
        if copies > 1, !recurrent.layers.isEmpty {
            let sources = rowLengths.indices.flatMap { Array(repeating: $0, count: copies) }
            recurrent.select(rows: Tensor(sources, device: context.positions.device))
        }
        let hasVirtualTokens = virtual.flatMap { Array(repeating: $0 > 0, count: copies) }
        mask = first.flatMap { makeMask(total, hasVirtualTokens: hasVirtualTokens, like: $0.keys) }
    }

    /// The mask of so many columns.
    /// - Parameter hasVirtualTokens: whether each continuation has a prompt or a prefix.
    private func makeMask(_ total: Int, hasVirtualTokens: [Bool], like: Tensor) -> Tensor? {
        let gaps = lengths.map { columns - $0 }
        func biases(_ isVirtual: Bool) -> Tensor? {
            model.linearBiases?(positions: total, hasVirtualTokens: isVirtual, device: like.device)
        }
        let isMixed = Set(hasVirtualTokens).count > 1 && model.linearBiases?.areRounded == true
        guard isMixed || gaps.contains(where: { $0 > 0 }) else {
            return biases(hasVirtualTokens.first == true)?.unsqueezed(1).unsqueezed(0).to(like.dtype)
        }
        let values = gaps.flatMap { gap in (0..<total).map { $0 < gap ? -Float.infinity : 0 } }
        let mask = Tensor(values, shape: [gaps.count, 1, 1, total], device: like.device)
        guard let plain = biases(!isMixed && hasVirtualTokens.first == true) else { return mask.to(like.dtype) }
        // Below them those of sequences with virtual tokens, if both kinds are there.
        let table = Tensor.concatenated([plain] + (isMixed ? [biases(true)] : []).compactMap { $0 }, axis: 1)
        // A sequence's first position is in the column after its gap.
        let positions = gaps.enumerated().flatMap { row, gap in
            let start = isMixed && hasVirtualTokens[row] ? total : 0
            return (0..<total).map { start + max(0, $0 - gap) }
        }
        let own = table.transposed(0, 1).selecting(Tensor(positions, device: like.device))
        return (own.reshaped(gaps.count, total, -1).permuted(0, 2, 1).unsqueezed(2) + mask).to(like.dtype)
    }

    func step(_ tokens: Tensor) -> Tensor {
        let count = tokens.dim(0)
        if let limit = model.rereadLength, width == limit, let texts {
            // The cached keys were rotated with the frequencies for shorter sequences.
            fill(PackedSequences(texts, device: tokens.device), copies: 1)
        }
        if texts != nil {
            let ids: [Int] = tokens.array()
            for (row, id) in ids.enumerated() { texts?[row].append(id) }
        }
        return RowRouting.within(single: count) {
            let mask = mask?.narrowed(axis: 3, 0..<(columns + 1))
            let context = StepContext(
                positions: Tensor(lengths, device: tokens.device), longest: width + 1, caches: caches,
                recurrent: recurrent, mask: mask)
            context.ids = tokens
            let states = invocations.within(Array(0...count), starts: nil, device: tokens.device) {
                model.decode(model.embed(tokens), context)
            }
            columns += 1
            width += 1
            lengths = lengths.map { $0 + 1 }
            return model.scores(states)
        }
    }

    func reorder(_ sources: Tensor) {
        // Continuations of one prompt have equal lengths, so lengths and gaps are unchanged.
        for cache in caches.values { cache.select(rows: sources) }
        recurrent.select(rows: sources)
        guard let before = texts else { return }
        let sources: [Int] = sources.array()
        texts = sources.map { before[$0] }
    }

    func keep(rows: [Int]) {
        let continuations = rows.flatMap { row in (0..<beams).map { row * beams + $0 } }
        let indices = Tensor(continuations, device: mask?.device ?? model.device)
        for cache in caches.values { cache.select(rows: indices) }
        recurrent.select(rows: indices)
        if let all = mask, all.dim(0) > 1 { mask = all.selecting(indices) }
        lengths = continuations.map { lengths[$0] }
        if let before = texts { texts = continuations.map { before[$0] } }
        invocations.keep(rows: rows)
        RowRouting.current?.keep(rows: rows)
    }
}
