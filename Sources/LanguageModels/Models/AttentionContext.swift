import PEFTSupport
import Torch
import TorchNN

/// How the tokens in a forward pass attend to each other: packed sequences in training and prefill, or one token per
/// sequence in decoding. A model's layers are written once in terms of it.
class AttentionContext {
    /// The position of each token, int64 [tokens].
    let positions: Tensor
    /// Length of the longest sequence: its last position + 1.
    let longest: Int
    /// Collects the routers' logits for their loss; `nil` if there is none.
    var routerRecord: RouterRecord?
    /// The ids of the tokens, int64 `[tokens]`, for layers that look them up again; `nil` with virtual tokens.
    var ids: Tensor?
    /// Layers to whose keys and values later layers attend, too.
    var sharedLayers: Set<Int> = []
    /// Cosines and sines of RoPE, computed by the first layer that needs each kind.
    private var rotations: [ObjectIdentifier: (cosines: Tensor, sines: Tensor)] = [:]
    /// A relative position bias of all layers, by ``places``, of packed sequences whose outputs are all computed.
    var sharedBias: Tensor?
    /// Vectors of relative positions, `[2 · span, size]`, for ``DisentangledAttention``.
    var relativePositions: Tensor?
    /// Positions of the longest sequence's tokens, after the longest prefix.
    var places: Range<Int> { 0..<longest }

    init(positions: Tensor, longest: Int) { (self.positions, self.longest) = (positions, longest) }

    /// The context of a stack's last layer, which may compute the outputs of some tokens only.
    var last: AttentionContext { self }

    /// Selects from x `[tokens, …]` the tokens whose outputs are needed; only they have queries and a feed-forward
    /// pass.
    func selected(_ x: Tensor) -> Tensor { x }

    /// Queries of the selected tokens, keys and values of all, from x `[tokens, size]`.
    func projected(_ x: Tensor, _ q: Linear, _ k: Linear, _ v: Linear) -> (q: Tensor, k: Tensor, v: Tensor) {
        let (queries, others) = projected(x, q, others: [k, v])
        return (queries, others[0], others[1])
    }

    /// Queries of the selected tokens, and other projections of all, from x `[tokens, size]`.
    func projected(_ x: Tensor, _ q: Linear, others: [Linear]) -> (q: Tensor, others: [Tensor]) {
        let own = selected(x)
        guard own === x else { return (q(own), Linear.project(x, others)) }
        let all = Linear.project(x, [q] + others)
        return (all[0], Array(all.dropFirst()))
    }

    /// Where each sequence starts among all tokens, and the end.
    var sequenceOffsets: [Int] { [0, positions.dim(0)] }
    private var scan: SequenceScan?

    /// The sequences, for layers that compute along them.
    func sequenceScan() -> SequenceScan {
        let own = scan ?? SequenceScan(sequenceOffsets, device: positions.device)
        scan = own
        return own
    }

    /// What a layer remembers of the sequences before these tokens; `nil` for nothing.
    func recurrentState(ofLayer layer: Int) -> RecurrentState? { nil }

    /// Whether decoding continues from the layers' states.
    var keepsRecurrentStates: Bool { false }
    /// Whether sequences go on without each other, so that each has a memory of its own.
    var keepsStatesApart: Bool { false }
    func keep(_ state: RecurrentState, ofLayer layer: Int) {}

    /// Runs layers for adapters that act on a part of the tokens.
    func invoked(_ layers: () -> Tensor) -> Tensor { layers() }

    /// softmax(cap(scale · q kᵀ)) v.
    ///
    /// - Parameters:
    ///   - q: `[tokens, heads, size]`; `k`, `v`: `[tokens, key heads, size]` with grouped-query attention.
    ///   - site: where prefixes are attached.
    ///   - layer: the layer's index.
    ///   - window: sliding-window size, including the token itself; `nil` for full causal attention.
    ///   - softcap: c for scores c · tanh(scale · q kᵀ / c).
    /// - Returns: `[tokens, heads, size]`.
    func attend(
        _ q: Tensor, _ k: Tensor, _ v: Tensor, site: KeyValueSite, layer: Int, window: Int? = nil, scale: Double,
        softcap: Double? = nil, dropout: Double
    ) -> Tensor { q }

    /// The same with the keys and values of an earlier layer, one of ``sharedLayers``.
    func attend(_ q: Tensor, toLayer layer: Int, window: Int?, scale: Double, dropout: Double) -> Tensor { q }

    /// Applies RoPE to queries `[selected tokens, heads, size]`.
    func rotatedQueries(_ q: Tensor, _ rotary: RotaryPositions) -> Tensor { rotated(q, rotary) }

    /// Applies RoPE to x `[tokens, heads, size]`.
    func rotated(_ x: Tensor, _ rotary: RotaryPositions) -> Tensor {
        let key = ObjectIdentifier(rotary)
        let rotation = rotations[key] ?? rotary.rotation(at: positions, longest: longest, dtype: x.dtype)
        rotations[key] = rotation
        return rotary.rotate(x, rotation)
    }
}

/// Sequences packed end to end.
final class PackedContext: AttentionContext {
    let offsets: [Int]
    private let longestPrefix: Int
    private let isCausal: Bool
    private let selected: SelectedTokens?
    /// Keys and values of each layer with their offsets, if decoding continues from them.
    private(set) var kept: [Int: (keys: Tensor, values: Tensor, offsets: [Int])] = [:]
    private let keeps: Bool
    /// Those of ``sharedLayers``.
    private var shared: [Int: (keys: Tensor, values: Tensor, offsets: [Int])] = [:]
    /// States of the layers, if decoding continues from them.
    private(set) var keptStates: [Int: RecurrentState] = [:]
    /// Consecutive sequences with the same linear biases by head and key, `[heads, longest]`; one part without biases.
    private let parts: [(rows: Range<Int>, bias: Tensor?)]
    /// The texts, with the position of each sequence's first token in its text, for adapters with an invocation.
    private let texts: (scope: InvocationScope, starts: [Int])?

    /// - Parameters:
    ///   - rows: the sequences' tokens, including virtual ones.
    ///   - texts: the input, in which adapters look for their invocation outside generation.
    ///   - prefixes: lengths of the prefixes before each sequence.
    ///   - longest: minimum of ``longest``, if more tokens follow.
    ///   - selected: the tokens whose last-layer outputs are read; in a causal stack the trailing ones of each
    ///     sequence.
    ///   - limit: number of positions of the model, if limited.
    ///   - biases: the model's linear biases, if it has them.
    init(
        _ rows: PromptedRows, texts: PackedSequences? = nil, prefixes: [Int], isCausal: Bool, keeps: Bool = false,
        longest: Int = 0,
        selected: SelectedTokens? = nil, limit: Int? = nil, biases: LinearBiases? = nil
    ) {
        (offsets, self.isCausal, self.keeps, self.selected) = (rows.offsets, isCausal, keeps, selected)
        self.texts = texts.map { (InvocationScope.current ?? InvocationScope($0), rows.prompts.map { -$0 }) }
        let all = rows.prompts.indices.flatMap { row in
            (0..<(rows.offsets[row + 1] - rows.offsets[row])).map { prefixes[row] + $0 }
        }
        // On the meta device nothing is looked up.
        let positions = rows.states.device == .meta ? all : checkedPositions(all, limit: limit)
        let last = (positions.max() ?? -1) + 1
        longestPrefix = prefixes.max() ?? 0
        parts = Self.parts(
            biases, hasVirtualTokens: rows.prompts.indices.map { rows.prompts[$0] > 0 || prefixes[$0] > 0 },
            positions: last, device: rows.states.device)
        super.init(positions: Tensor(positions, device: rows.states.device), longest: max(longest, last))
    }

    private static func parts(
        _ biases: LinearBiases?, hasVirtualTokens: [Bool], positions: Int, device: Device
    ) -> [(rows: Range<Int>, bias: Tensor?)] {
        guard let biases, biases.areRounded, let first = hasVirtualTokens.first else {
            return [(0..<hasVirtualTokens.count, biases.map { $0(positions: positions, device: device) })]
        }
        var spans = [(rows: 0..<0, isVirtual: first)]
        for (row, isVirtual) in hasVirtualTokens.enumerated() {
            if spans[spans.count - 1].isVirtual != isVirtual { spans.append((row..<row, isVirtual)) }
            spans[spans.count - 1].rows = spans[spans.count - 1].rows.lowerBound..<(row + 1)
        }
        return spans.map {
            ($0.rows, biases(positions: positions, hasVirtualTokens: $0.isVirtual, device: device))
        }
    }

    override var sequenceOffsets: [Int] { offsets }
    override var keepsRecurrentStates: Bool { keeps }
    override func keep(_ state: RecurrentState, ofLayer layer: Int) { keptStates[layer] = state }

    override var places: Range<Int> {
        let own = zip(offsets.dropFirst(), offsets).map { $0 - $1 }.max() ?? 0
        return longestPrefix..<(longestPrefix + own)
    }

    /// Whether the last layer computes the outputs of some tokens only.
    var leavesOut: Bool { selected != nil }
    override var last: AttentionContext { selected.map { LastLayerContext(self, $0) } ?? self }

    override func invoked(_ layers: () -> Tensor) -> Tensor {
        guard let texts else { return layers() }
        return texts.scope.within(
            offsets, starts: texts.starts, selected: selected?.indices, device: positions.device, layers)
    }

    override func attend(
        _ q: Tensor, _ k: Tensor, _ v: Tensor, site: KeyValueSite, layer: Int, window: Int?, scale: Double,
        softcap: Double?, dropout: Double
    ) -> Tensor {
        attend(
            q, offsets: offsets, k, v, site: site, layer: layer, window: window, scale: scale, softcap: softcap,
            dropout: dropout)
    }

    override func attend(_ q: Tensor, toLayer layer: Int, window: Int?, scale: Double, dropout: Double) -> Tensor {
        attend(q, offsets: offsets, toLayer: layer, window: window, scale: scale, dropout: dropout)
    }

    fileprivate func attend(
        _ q: Tensor, offsets: [Int], toLayer layer: Int, window: Int?, scale: Double, dropout: Double
    ) -> Tensor {
        guard let all = shared[layer] else { return q }
        return attend(
            q, offsets: offsets, to: all, window: window, scale: scale, softcap: nil, dropout: dropout, sinks: nil)
    }

    /// - Parameter queryOffsets: where each sequence starts in `q`.
    fileprivate func attend(
        _ q: Tensor, offsets queryOffsets: [Int], _ k: Tensor, _ v: Tensor, site: KeyValueSite, layer: Int,
        window: Int?, scale: Double, softcap: Double?, dropout: Double
    ) -> Tensor {
        let all = site(k, v, offsets: offsets)
        if keeps { kept[site.position ?? layer] = (all.keys, all.values, all.offsets) }
        if sharedLayers.contains(layer) { shared[layer] = all }
        let output = attend(
            q, offsets: queryOffsets, to: all, window: window, scale: scale, softcap: softcap, dropout: dropout,
            sinks: site.sinks?.tensor)
        return site.attended(output, queries: q, offsets: queryOffsets, scale: scale)
    }

    private func attend(
        _ q: Tensor, offsets queryOffsets: [Int], to all: (keys: Tensor, values: Tensor, offsets: [Int]),
        window: Int?, scale: Double, softcap: Double?, dropout: Double, sinks: Tensor?
    ) -> Tensor {
        let (probability, seed) = DropoutScope.draw(dropout)
        let outputs = parts.map { part -> Tensor in
            /// The tokens of the part's sequences, and where each starts among them.
            func own(_ x: Tensor, _ offsets: [Int]) -> (Tensor, [Int]) {
                guard parts.count > 1 else { return (x, offsets) }
                let (start, end) = (offsets[part.rows.lowerBound], offsets[part.rows.upperBound])
                return (
                    x.narrowed(axis: 0, start..<end),
                    offsets[part.rows.lowerBound...part.rows.upperBound].map { $0 - start }
                )
            }
            let (queries, queryOffsets) = own(q, queryOffsets)
            let (keys, keyOffsets) = own(all.keys, all.offsets)
            return Functions.packedAttention(
                queries, keys, own(all.values, all.offsets).0, bias: part.bias ?? sharedBias,
                queryOffsets: queryOffsets,
                keyOffsets: keyOffsets, causal: isCausal, window: window, scale: scale, softcap: softcap,
                dropout: probability, seed: seed, sinks: sinks)
        }
        return outputs.count == 1 ? outputs[0] : Tensor.concatenated(outputs)
    }
}

/// The last layer over packed sequences: keys and values of all tokens, everything else only for those that are read.
private final class LastLayerContext: AttentionContext {
    private let all: PackedContext
    private let tokens: SelectedTokens

    init(_ all: PackedContext, _ tokens: SelectedTokens) {
        (self.all, self.tokens) = (all, tokens)
        super.init(positions: all.positions.selecting(tokens.indices), longest: all.longest)
    }

    override func selected(_ x: Tensor) -> Tensor { x.selecting(tokens.indices) }
    override func rotated(_ x: Tensor, _ rotary: RotaryPositions) -> Tensor { all.rotated(x, rotary) }
    override func sequenceScan() -> SequenceScan { all.sequenceScan() }
    override var keepsRecurrentStates: Bool { all.keepsRecurrentStates }
    override var keepsStatesApart: Bool { all.keepsStatesApart }
    override func keep(_ state: RecurrentState, ofLayer layer: Int) { all.keep(state, ofLayer: layer) }
    override func rotatedQueries(_ q: Tensor, _ rotary: RotaryPositions) -> Tensor { super.rotated(q, rotary) }

    override func attend(
        _ q: Tensor, _ k: Tensor, _ v: Tensor, site: KeyValueSite, layer: Int, window: Int?, scale: Double,
        softcap: Double?, dropout: Double
    ) -> Tensor {
        all.attend(
            q, offsets: tokens.offsets, k, v, site: site, layer: layer, window: window, scale: scale,
            softcap: softcap, dropout: dropout)
    }

    override func attend(_ q: Tensor, toLayer layer: Int, window: Int?, scale: Double, dropout: Double) -> Tensor {
        all.attend(q, offsets: tokens.offsets, toLayer: layer, window: window, scale: scale, dropout: dropout)
    }
}

/// A decode step: one token per continuation, over KV caches and the states of layers without them.
final class StepContext: AttentionContext {
    /// By layer.
    private let caches: [Int: KeyValueCache]
    private let recurrent: RecurrentCache
    private let mask: Tensor?

    init(
        positions: Tensor, longest: Int, caches: [Int: KeyValueCache], recurrent: RecurrentCache = RecurrentCache(),
        mask: Tensor?
    ) {
        (self.caches, self.recurrent, self.mask) = (caches, recurrent, mask)
        super.init(positions: positions, longest: longest)
    }

    override var sequenceOffsets: [Int] { Array(0...positions.dim(0)) }
    override var keepsRecurrentStates: Bool { true }
    override func recurrentState(ofLayer layer: Int) -> RecurrentState? { recurrent.layers[layer] }
    override func keep(_ state: RecurrentState, ofLayer layer: Int) { recurrent.layers[layer] = state }

    override func attend(
        _ q: Tensor, _ k: Tensor, _ v: Tensor, site: KeyValueSite, layer: Int, window: Int?, scale: Double,
        softcap: Double?, dropout: Double
    ) -> Tensor {
        // The prefill made a cache for each layer.
        guard let cache = caches[site.position ?? layer] else { return q }
        let cached = cache.append(k.unsqueezed(2), v.unsqueezed(2))
        let output = attend(
            q, to: cached, window: window, scale: scale, softcap: softcap, sinks: site.sinks?.tensor)
        return site.attended(output, queries: q, offsets: Array(0...q.dim(0)), scale: scale)
    }

    override func attend(_ q: Tensor, toLayer layer: Int, window: Int?, scale: Double, dropout: Double) -> Tensor {
        guard let cache = caches[layer] else { return q }
        return attend(q, to: cache.filled, window: window, scale: scale, softcap: nil, sinks: nil)
    }

    private func attend(
        _ q: Tensor, to cached: (keys: Tensor, values: Tensor), window: Int?, scale: Double, softcap: Double?,
        sinks: Tensor?
    ) -> Tensor {
        var (keys, values) = cached
        var mask = mask
        let columns = keys.dim(2)
        if let window, window < columns {
            // Sequences are right-aligned, so one window fits all.
            let seen = (columns - window)..<columns
            (keys, values) = (keys.narrowed(axis: 2, seen), values.narrowed(axis: 2, seen))
            mask = mask?.narrowed(axis: 3, seen)
        }
        // Query heads that share a key head become its queries, and the biases of heads those of its queries.
        if let biases = mask, biases.dim(1) > 1 {
            mask = biases.reshaped(biases.dim(0), keys.dim(1), -1, keys.dim(2))
        }
        return Functions.attention(
            q.reshaped(q.dim(0), keys.dim(1), -1, q.dim(2)), keys, values, mask: mask, scale: scale, softcap: softcap,
            sinks: sinks
        ).reshaped(q.shape)
    }
}
