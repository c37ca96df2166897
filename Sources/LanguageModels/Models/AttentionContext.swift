import Support
import Torch
import TorchNN

/// How the tokens in a forward pass attend to each other: packed sequences in training and prefill, or one token per
/// sequence in decoding. A model's layers are written once in terms of it.
class AttentionContext {
    /// The position of each token, int64 [tokens].
    let positions: Tensor
    /// Length of the longest sequence: its last position + 1.
    let longest: Int
    /// Cosines and sines of RoPE, computed by the first layer that needs each kind.
    private var rotations: [ObjectIdentifier: (cosines: Tensor, sines: Tensor)] = [:]

    init(positions: Tensor, longest: Int) { (self.positions, self.longest) = (positions, longest) }

    /// The context of a stack's last layer, which may compute the outputs of some tokens only.
    var last: AttentionContext { self }

    /// Selects from x `[tokens, …]` the tokens whose outputs are needed; only they have queries and a feed-forward
    /// pass.
    func selected(_ x: Tensor) -> Tensor { x }

    /// Queries of the selected tokens, keys and values of all, from x `[tokens, size]`.
    func projected(_ x: Tensor, _ q: Linear, _ k: Linear, _ v: Linear) -> (q: Tensor, k: Tensor, v: Tensor) {
        let own = selected(x)
        guard own === x else {
            let others = Linear.project(x, [k, v])
            return (q(own), others[0], others[1])
        }
        let all = Linear.project(x, [q, k, v])
        return (all[0], all[1], all[2])
    }

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

    /// Applies RoPE to queries `[selected tokens, heads, size]`.
    func rotatedQueries(_ q: Tensor, _ rotary: RotaryPositions) -> Tensor { rotated(q, rotary) }

    /// Applies RoPE to x `[tokens, heads, size]`.
    func rotated(_ x: Tensor, _ rotary: RotaryPositions) -> Tensor {
        let key = ObjectIdentifier(rotary)
        let rotation = rotations[key] ?? rotary.rotation(at: positions, longest: longest, dtype: x.dtype)
        rotations[key] = rotation
        return Functions.rotary(x, cosines: rotation.cosines, sines: rotation.sines)
    }
}

/// Sequences packed end to end.
final class PackedContext: AttentionContext {
    private let offsets: [Int]
    private let isCausal: Bool
    private let selected: SelectedTokens?
    /// Keys and values of each layer with their offsets, if decoding continues from them.
    private(set) var kept: [Int: (keys: Tensor, values: Tensor, offsets: [Int])] = [:]
    private let keeps: Bool

    /// - Parameters:
    ///   - rows: the sequences' tokens, including virtual ones.
    ///   - prefixes: lengths of the prefixes before each sequence.
    ///   - longest: minimum of ``longest``, if more tokens follow.
    ///   - selected: the tokens whose last-layer outputs are read; in a causal stack the trailing ones of each
    ///     sequence.
    ///   - limit: number of positions of the model, if limited.
    init(
        _ rows: PromptedRows, prefixes: [Int], isCausal: Bool, keeps: Bool = false, longest: Int = 0,
        selected: SelectedTokens? = nil, limit: Int? = nil
    ) {
        (offsets, self.isCausal, self.keeps, self.selected) = (rows.offsets, isCausal, keeps, selected)
        let all = rows.prompts.indices.flatMap { row in
            (0..<(rows.offsets[row + 1] - rows.offsets[row])).map { prefixes[row] + $0 }
        }
        // On the meta device nothing is looked up.
        let positions = rows.states.device == .meta ? all : checkedPositions(all, limit: limit)
        super.init(
            positions: Tensor(positions, device: rows.states.device),
            longest: max(longest, (positions.max() ?? -1) + 1))
    }

    /// Whether the last layer computes the outputs of some tokens only.
    var leavesOut: Bool { selected != nil }
    override var last: AttentionContext { selected.map { LastLayerContext(self, $0) } ?? self }

    override func attend(
        _ q: Tensor, _ k: Tensor, _ v: Tensor, site: KeyValueSite, layer: Int, window: Int?, scale: Double,
        softcap: Double?, dropout: Double
    ) -> Tensor {
        attend(
            q, offsets: offsets, k, v, site: site, layer: layer, window: window, scale: scale, softcap: softcap,
            dropout: dropout)
    }

    /// - Parameter queryOffsets: where each sequence starts in `q`.
    fileprivate func attend(
        _ q: Tensor, offsets queryOffsets: [Int], _ k: Tensor, _ v: Tensor, site: KeyValueSite, layer: Int,
        window: Int?, scale: Double, softcap: Double?, dropout: Double
    ) -> Tensor {
        let all = site(k, v, offsets: offsets)
        if keeps { kept[layer] = (all.keys, all.values, all.offsets) }
        let (probability, seed) = DropoutScope.draw(dropout)
        return Functions.packedAttention(
            q, all.keys, all.values, bias: nil, queryOffsets: queryOffsets, keyOffsets: all.offsets, causal: isCausal,
            window: window, scale: scale, softcap: softcap, dropout: probability, seed: seed)
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
    override func rotatedQueries(_ q: Tensor, _ rotary: RotaryPositions) -> Tensor { super.rotated(q, rotary) }

    override func attend(
        _ q: Tensor, _ k: Tensor, _ v: Tensor, site: KeyValueSite, layer: Int, window: Int?, scale: Double,
        softcap: Double?, dropout: Double
    ) -> Tensor {
        all.attend(
            q, offsets: tokens.offsets, k, v, site: site, layer: layer, window: window, scale: scale,
            softcap: softcap, dropout: dropout)
    }
}

/// A decode step: one token per continuation, over KV caches.
final class StepContext: AttentionContext {
    private let caches: [KeyValueCache]
    private let mask: Tensor?

    init(positions: Tensor, longest: Int, caches: [KeyValueCache], mask: Tensor?) {
        (self.caches, self.mask) = (caches, mask)
        super.init(positions: positions, longest: longest)
    }

    override func attend(
        _ q: Tensor, _ k: Tensor, _ v: Tensor, site: KeyValueSite, layer: Int, window: Int?, scale: Double,
        softcap: Double?, dropout: Double
    ) -> Tensor {
        var (keys, values) = caches[layer].append(k.unsqueezed(2), v.unsqueezed(2))
        var mask = mask
        let columns = keys.dim(2)
        if let window, window < columns {
            // Sequences are right-aligned, so one window fits all.
            let seen = (columns - window)..<columns
            (keys, values) = (keys.narrowed(axis: 2, seen), values.narrowed(axis: 2, seen))
            mask = mask?.narrowed(axis: 3, seen)
        }
        // Query heads that share a key head become its queries.
        return Functions.attention(
            q.reshaped(q.dim(0), keys.dim(1), -1, q.dim(2)), keys, values, mask: mask, scale: scale, softcap: softcap
        ).reshaped(q.shape)
    }
}

/// A decoder-only model, as generation and training use it.
protocol CausalModel: LanguageModel {
    var inputSite: InputSite { get }
    /// The prefix site of each layer.
    var prefixSites: [KeyValueSite] { get }
    /// Token embeddings, before positions: `[tokens]` -> `[tokens, size]`.
    func embed(_ ids: Tensor) -> Tensor
    /// The layers and the final norm: embedded tokens `[tokens, size]` -> hidden states `[tokens, size]`.
    func decode(_ x: Tensor, _ context: AttentionContext) -> Tensor
    /// Hidden states `[tokens, size]` -> logits `[tokens, vocabulary]`.
    func scores(_ hidden: Tensor) -> Tensor
    /// The output layer's weight, if nothing but the softcap acts on the logits.
    var outputWeight: (any LinearWeight)? { get }
    /// c of the logit softcap: s becomes c · tanh(s / c).
    var outputSoftcap: Double? { get }
    /// The sequence length from which RoPE frequencies differ, so that the KV cache is recomputed.
    var rereadLength: Int? { get }
}

extension CausalModel {
    var outputSoftcap: Double? { nil }
    var rereadLength: Int? { nil }

    /// The model's path of a file's tensor: files of a headless model lack the prefix `model.`.
    func decoderName(_ name: String, aliases: [String: String]) -> String {
        if let alias = aliases[name] { return alias }
        return name.hasPrefix("model.") || name.hasPrefix("lm_head.") ? name : "model." + name
    }

    func causalBatch(_ rows: [(input: [Int], target: [Int])], device: Device) -> TrainingBatch {
        let input = PackedSequences(rows.map { $0.input + $0.target.dropLast() }, device: device)
        // The last token of the prompt predicts the first of the target, and so on.
        let spans = zip(rows, input.offsets.dropFirst()).map { row, end in (end - row.target.count)..<end }
        return TrainingBatch(
            input: input, decoder: nil, targets: Tensor(rows.flatMap(\.target), device: device),
            positions: Tensor(spans.flatMap { Array($0) }, device: device), outputs: OutputSpans(spans))
    }

    func causalLoss(_ batch: TrainingBatch, labelSmoothing: Double) -> Tensor {
        let hidden = hidden(batch)
        if let weight = outputWeight {
            return weight.crossEntropy(
                hidden: hidden, targets: batch.targets, scale: 1, softcap: outputSoftcap,
                labelSmoothing: labelSmoothing)
        }
        let logs = scores(hidden).logSoftmax()
        let targetLoss = logs.gathering(axis: 1, batch.targets.unsqueezed(1)).sum() * (labelSmoothing - 1)
        return labelSmoothing > 0 ? targetLoss - logs.mean(axes: [-1]).sum() * labelSmoothing : targetLoss
    }

    public func virtualTokens(forRows rows: Int) -> [Int] {
        LanguageModels.virtualTokens(inputSite, prefixSites.first, forRows: rows)
    }

    func causalLogits(_ batch: TrainingBatch) -> Tensor { scores(hidden(batch)) }

    /// Hidden states of the positions that contribute to the loss, `[targets, size]`.
    private func hidden(_ batch: TrainingBatch) -> Tensor {
        let (states, rows, context) = read(batch.input, keeps: false, outputs: batch.outputs?.spans)
        if let outputs = batch.outputs, context.leavesOut {
            return outputs.kept.map { states.selecting($0) } ?? states
        }
        let own = rows.withoutPrompts(states)
        return batch.positions.map { own.selecting($0) } ?? own
    }

    /// Runs packed sequences through the layers: `[tokens, size]`, including virtual tokens; or only the tokens of
    /// `outputs`, which are trailing in each sequence, if ``UnreadOutputs`` may be skipped.
    func read(_ input: PackedSequences, keeps: Bool, longest: Int = 0, outputs: [Range<Int>]? = nil) -> (
        states: Tensor, rows: PromptedRows, context: PackedContext
    ) {
        let input = checked(input)
        let embedded = RowRouting.within(input.offsets) { embed(input.ids) }
        let rows = inputSite(embedded, offsets: input.offsets)
        let prefixes = (prefixSites.first?.prefixes(forRows: input.rows) ?? []).map { $0?.keys.dim(0) ?? 0 }
        let context = PackedContext(
            rows, prefixes: prefixes.isEmpty ? rows.prompts.map { _ in 0 } : prefixes, isCausal: true, keeps: keeps,
            longest: longest, selected: outputs.flatMap { SelectedTokens(rows, of: input.offsets, spans: $0) },
            limit: positionLimit)
        let states = RowRouting.within(rows.offsets) { decode(rows.states, context) }
        return (states, rows, context)
    }
}
