import CTorch

/// An activation function.
package enum Activation: String, Sendable {
    case relu, gelu
    /// GELU with the tanh approximation, `gelu_new` in Hugging Face's files.
    case geluTanh
    case silu

    var raw: CTActivation {
        switch self {
        case .relu: CT_RELU
        case .gelu: CT_GELU
        case .geluTanh: CT_GELU_TANH
        case .silu: CT_SILU
        }
    }

    /// The activation with a given name in Hugging Face's configurations.
    package init?(huggingFaceName name: String) {
        switch name {
        case "relu": self = .relu
        case "gelu": self = .gelu
        case "gelu_new", "gelu_pytorch_tanh", "gelu_fast": self = .geluTanh
        case "silu", "swish": self = .silu
        default: return nil
        }
    }

    package func callAsFunction(_ x: Tensor) -> Tensor { wrap(ct_activation(raw, x.pointer)) }

    /// f(gate) ⊙ up (Shazeer 2020); only the inputs are saved for the backward pass.
    package func gated(_ gate: Tensor, _ up: Tensor) -> Tensor {
        wrap(ct_gated_activation(raw, gate.pointer, up.pointer))
    }
}

/// Operations with custom gradients.
package enum Functions {
    /// x `[..., in]`, weight `[out, in]`, bias `[out]` -> x weightᵀ + bias `[..., out]`.
    package static func linear(_ x: Tensor, _ weight: Tensor, bias: Tensor? = nil) -> Tensor {
        wrap(ct_linear(x.pointer, weight.pointer, bias?.pointer))
    }

    /// Embedding lookup: `weight` `[entries, size]`, `ids` `[...]` -> `[..., size]`.
    package static func embedding(_ weight: Tensor, _ ids: Tensor) -> Tensor {
        wrap(ct_embedding(weight.pointer, ids.pointer))
    }

    /// x / sqrt(mean(x²) + ε) · (offset + weight) over the last axis (Zhang & Sennrich 2019).
    package static func rmsNorm(_ x: Tensor, weight: Tensor, epsilon: Double, offset: Double = 0) -> Tensor {
        wrap(ct_rms_norm(x.pointer, weight.pointer, epsilon, offset))
    }

    /// RoPE (Su et al. 2021, RoFormer, eq. 34): rotates the first 2p dimensions of each head of x `[tokens, heads,
    /// size]` as pairs (i, i + p), or (2i, 2i + 1) if interleaved, by angles with the given cosines and sines,
    /// `[tokens, p]`; the other dimensions are unchanged.
    package static func rotary(_ x: Tensor, cosines: Tensor, sines: Tensor, interleaved: Bool = false) -> Tensor {
        wrap(ct_rotary(x.pointer, cosines.pointer, sines.pointer, interleaved))
    }

    /// (x − mean(x)) / sqrt(var(x) + ε) · weight + bias over the last axis (Ba et al. 2016).
    package static func layerNorm(_ x: Tensor, weight: Tensor?, bias: Tensor?, epsilon: Double) -> Tensor {
        wrap(ct_layer_norm(x.pointer, weight?.pointer, bias?.pointer, epsilon))
    }

    /// Zeroes elements with `probability` and scales the others by 1 / (1 − probability). The mask depends only on
    /// `seed` and the element's index, so nothing is saved for the backward pass.
    package static func dropout(_ x: Tensor, probability: Double, seed: UInt64) -> Tensor {
        probability > 0 ? wrap(ct_dropout(x.pointer, probability, seed)) : x
    }

    /// Attention within each sequence of a packed batch.
    ///
    /// - Parameters:
    ///   - q: `[query tokens, heads, size]`; `k`, `v`: `[key tokens, key heads, size]`, each key head serving heads /
    ///     key heads query heads.
    ///   - bias: added to the scaled scores, `[heads, longest query length, longest prefix + longest query length]`,
    ///     the same for all sequences. The prefix is the leading keys that a sequence has beyond its queries;
    ///     sequences with shorter prefixes skip the bias's first columns. Or `[heads, longest sequence of keys]`, the
    ///     same for all queries, whose first column is a sequence's first key, and which has no gradient.
    ///   - queryOffsets: where each sequence starts in `q`, and the end; `keyOffsets` in `k`.
    ///   - causal: whether a query attends only to the prefix and to keys up to its own position.
    ///   - window: sliding-window size, including the query's own key: the keys that a query sees up to its own, and, if
    ///     attention isn't causal, as many from its own on; `nil` for no window.
    ///   - softcap: c for scores c · tanh(scale · q kᵀ / c) (Gemma 2).
    ///   - dropout: dropout probability of the attention weights, with its seed.
    ///   - sinks: logits of one more key of each head, whose value is 0 (attention sinks; Xiao et al. 2023), `[heads]`.
    /// - Returns: `[query tokens, heads, size]`.
    package static func packedAttention(
        _ q: Tensor, _ k: Tensor, _ v: Tensor, bias: Tensor?, queryOffsets: [Int], keyOffsets: [Int],
        causal: Bool, window: Int? = nil, scale: Double, softcap: Double? = nil, dropout: Double = 0,
        seed: UInt64 = 0, sinks: Tensor? = nil
    ) -> Tensor {
        let queries = queryOffsets.map(Int64.init)
        let keys = keyOffsets.map(Int64.init)
        let bias = bias ?? Tensor(owning: ct_undefined())
        return wrap(
            ct_packed_attention(
                q.pointer, k.pointer, v.pointer, bias.pointer, queries, keys,
                Int32(queries.count - 1), causal, scale, dropout, seed, Int64(window ?? 0),
                softcap ?? 0, sinks?.pointer))
    }

    /// softmax(cap(scale · q kᵀ) + mask) v with q `[batch, heads, queries, size]`, k, v `[batch, heads, keys, size]`
    /// and a mask that broadcasts to `[batch, heads, queries, keys]`; cap(s) = softcap · tanh(s / softcap) if a
    /// softcap is given. Sinks `[heads]` are as in ``packedAttention``; q is then `[batch, key heads, query heads of each,
    /// size]`.
    package static func attention(
        _ q: Tensor, _ k: Tensor, _ v: Tensor, mask: Tensor?, scale: Double, softcap: Double? = nil,
        sinks: Tensor? = nil
    )
        -> Tensor
    {
        wrap(ct_attention(q.pointer, k.pointer, v.pointer, mask?.pointer, scale, softcap ?? 0, sinks?.pointer))
    }

    /// Writes x `[batch, heads, tokens, size]` into a cache `[batch, heads, capacity, size]`, starting at `column`.
    package static func write(_ x: Tensor, into cache: Tensor, column: Int) {
        check(ct_write_columns(cache.pointer, x.pointer, Int64(column)))
    }

    /// A decode step of sequences with fp32 caches of their own, on the CPU and without gradients: writes one token's keys
    /// and values for each, and the output of its query over the columns up to there.
    ///
    /// - Parameters:
    ///   - q: `[tokens, heads, size]`; `k`, `v`: `[tokens, key heads, size]`.
    ///   - caches: for each sequence the row of its token, its caches `[1, 1, capacity, key heads · size]`, and the column
    ///     to write.
    ///   - bias: added to the scores by the keys' distance from the query: `[heads, distances]` of distances
    ///     distances − 1 … 0.
    ///   - window: number of last columns that are seen; all if `nil`.
    ///   - y: the output `[tokens, heads, size]`, whose other rows are left alone.
    package static func decodeSequences(
        _ q: Tensor, _ k: Tensor, _ v: Tensor,
        caches: [(row: Int, keys: Tensor, values: Tensor, column: Int)], bias: Tensor? = nil, window: Int?,
        scale: Double, into y: Tensor
    ) {
        let (rows, columns) = (caches.map { Int64($0.row) }, caches.map { Int64($0.column) })
        let keys: [OpaquePointer?] = caches.map(\.keys.pointer)
        let values: [OpaquePointer?] = caches.map(\.values.pointer)
        withExtendedLifetime(caches) {
            check(
                ct_decode_sequences(
                    q.pointer, k.pointer, v.pointer, Int32(caches.count), rows, keys, values, columns,
                    bias?.pointer, Int64(window ?? 0), scale, y.pointer))
        }
    }

    /// Attention of one query of each sequence to fp32 keys and values of its own, on the CPU and without gradients.
    /// - Parameters:
    ///   - q: `[sequences, heads, size]`.
    ///   - sequences: keys and values `[tokens, key heads, size]` of each.
    /// - Returns: `[sequences, heads, size]`.
    package static func attendSequences(
        _ q: Tensor, to sequences: [(keys: Tensor, values: Tensor)], scale: Double
    ) -> Tensor {
        let keys: [OpaquePointer?] = sequences.map(\.keys.pointer)
        let values: [OpaquePointer?] = sequences.map(\.values.pointer)
        return withExtendedLifetime(sequences) {
            wrap(ct_attend_sequences(q.pointer, Int32(sequences.count), keys, values, scale))
        }
    }

    /// A multi-layer LSTM (Hochreiter & Schmidhuber 1997) over x `[length, batch, in]`, with zero initial states.
    ///
    /// - Parameter weights: in PyTorch's order: w_ih, w_hh, b_ih, b_hh for each layer and direction.
    /// - Returns: `[length, batch, hidden · directions]`.
    package static func lstm(
        _ x: Tensor, weights: [Tensor], hidden: Int, layers: Int, bidirectional: Bool
    ) -> Tensor {
        let pointers: [OpaquePointer?] = weights.map(\.pointer)
        return withExtendedLifetime(weights) {
            pointers.withUnsafeBufferPointer { list in
                wrap(
                    ct_lstm(
                        x.pointer, list.baseAddress, Int32(list.count), Int64(hidden), Int32(layers), bidirectional))
            }
        }
    }

    /// y + scale · dropout(x) aᵀ bᵀ, in place in `y` `[..., out]`; x `[..., in]`, a `[r, in]`, b `[out, r]`.
    package static func loraBranch(
        _ y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: Double, dropout: Double = 0, seed: UInt64 = 0
    ) -> Tensor {
        wrap(ct_lora_branch(y.pointer, x.pointer, a.pointer, b.pointer, scale, dropout, seed))
    }

    /// How an adapter changes rows of a projection's output: y = gain ⊙ (y + scale · x ΔWᵀ) with ΔW = b a, or, with other factors,
    /// ΔW = (bᵀ a) ∘ (otherBᵀ otherA).
    package struct RowBranch {
        package let rows: Range<Int>
        /// a `[r, in]` and b `[out, r]`; with other factors `[r, out]`.
        package let factors: (a: Tensor, b: Tensor, scale: Double)?
        /// otherA `[r, in]` and otherB `[r, out]` of a Hadamard product.
        package let others: (a: Tensor, b: Tensor)?
        /// As many elements as outputs.
        package let gain: Tensor?
        /// Whether the projection's bias stays outside of the gain.
        package let keepsBias: Bool

        package init(
            rows: Range<Int>, factors: (a: Tensor, b: Tensor, scale: Double)?, others: (a: Tensor, b: Tensor)? = nil,
            gain: Tensor? = nil, keepsBias: Bool = false
        ) {
            (self.rows, self.factors, self.others) = (rows, factors, others)
            (self.gain, self.keepsBias) = (gain, keepsBias)
        }
    }

    /// Applies branches to disjoint rows of y `[tokens, out]` in place, for x `[tokens, in]`: one call for a mixed-adapter
    /// batch (Punica, Chen et al. 2023). Without autograd.
    package static func rowBranches(_ y: Tensor, x: Tensor, bias: Tensor?, _ branches: [RowBranch]) {
        let list = branches.map { branch in
            CTRowBranch(
                first: Int64(branch.rows.lowerBound), end: Int64(branch.rows.upperBound),
                a: branch.factors?.a.pointer, b: branch.factors?.b.pointer, other_a: branch.others?.a.pointer,
                other_b: branch.others?.b.pointer, gain: branch.gain?.pointer,
                scale: branch.factors?.scale ?? 0, keeps_bias: branch.keepsBias)
        }
        withExtendedLifetime((branches, bias)) {
            check(ct_row_branches(y.pointer, x.pointer, bias?.pointer, Int32(list.count), list))
        }
    }

    /// x `[tokens, size]` with other gains `[size]`, or none, for each span of tokens offsets[i] ..< offsets[i + 1]. Without
    /// autograd.
    package static func scaledRows(_ x: Tensor, offsets: [Int], gains: [Tensor?]) -> Tensor {
        let pointers: [OpaquePointer?] = gains.map { $0?.pointer }
        return withExtendedLifetime(gains) {
            wrap(ct_scale_rows(x.pointer, Int32(gains.count), offsets.map(Int64.init), pointers))
        }
    }

    /// y + scale · (f(x downᵀ + downBias) upᵀ + upBias) (Houlsby et al. 2019), as one autograd node.
    ///
    /// - Parameters:
    ///   - x: the network's input, `[..., size]`; `nil` for y itself.
    ///   - down: `[r, size]`; `up`: `[size, r]`.
    ///   - learnedScale: one element that replaces `scale`.
    package static func bottleneck(
        _ y: Tensor, x: Tensor?, down: Tensor, downBias: Tensor, up: Tensor, upBias: Tensor, scale: Double,
        learnedScale: Tensor? = nil, activation: Activation
    ) -> Tensor {
        wrap(
            ct_bottleneck(
                y.pointer, x?.pointer, down.pointer, downBias.pointer, up.pointer, upBias.pointer,
                learnedScale?.pointer, scale, activation.raw))
    }

    /// Sum over rows of −log softmax(cap(scale · (hidden weightᵀ + bias)))[target], without materializing the logits.
    ///
    /// - Parameters:
    ///   - hidden: `[rows, size]`; `weight`: `[vocabulary, size]`; `bias`: `[vocabulary]`; `targets`: `[rows]`, int64.
    ///   - softcap: k for cap(s) = k · tanh(s / k) (Gemma 2).
    ///   - labelSmoothing: fraction of the target probability spread over the vocabulary (Szegedy et al. 2016).
    /// - Returns: a scalar, in nats.
    package static func linearCrossEntropy(
        hidden: Tensor, weight: Tensor, bias: Tensor? = nil, targets: Tensor, scale: Double = 1,
        softcap: Double? = nil, labelSmoothing: Double = 0
    ) -> Tensor {
        wrap(
            ct_linear_cross_entropy(
                hidden.pointer, weight.pointer, bias?.pointer, targets.pointer, scale, labelSmoothing, softcap ?? 0))
    }
}
