import CTorch

/// A recurrence along sequences whose memory is a matrix per head, over inputs `[tokens, width]` that have queries, keys and values
/// beside each other. Each key head serves as many consecutive heads.
package struct Recurrence: Sendable {
    package enum Kind: Sendable {
        /// S ← exp(g) (I − β k kᵀ) S + β k vᵀ and o = Sᵀ q / √d with q and k of unit length (Yang et al. 2024, Gated Delta
        /// Networks, eq. 10).
        case gatedDelta
        /// S ← exp(g) S + β k vᵀ and o = Sᵀ q (Dao & Gu 2024, Mamba-2).
        case stateSpace
    }

    package let kind: Kind
    package let keyHeads, heads, keySize, valueSize: Int

    package init(_ kind: Kind, keyHeads: Int, heads: Int, keySize: Int, valueSize: Int) {
        (self.kind, self.keyHeads, self.heads) = (kind, keyHeads, heads)
        (self.keySize, self.valueSize) = (keySize, valueSize)
    }

    package var keyWidth: Int { keyHeads * keySize }
    package var valueWidth: Int { heads * valueSize }
    package var width: Int { 2 * keyWidth + valueWidth }

    /// The columns of queries, keys and values: a state space has values, keys and queries in this order.
    package var columns: (queries: Range<Int>, keys: Range<Int>, values: Range<Int>) {
        switch kind {
        case .gatedDelta: (0..<keyWidth, keyWidth..<2 * keyWidth, 2 * keyWidth..<width)
        case .stateSpace: (width - keyWidth..<width, valueWidth..<width - keyWidth, 0..<valueWidth)
        }
    }

    /// Whether the kernels apply to such inputs: in fp32 on the CPU.
    package static func hasKernel(_ x: Tensor) -> Bool {
        x.dtype == .float32 && (x.device == .cpu || x.device == .meta)
    }

    fileprivate var raw: CTRecurrence {
        let columns = columns
        return CTRecurrence(
            kind: kind == .gatedDelta ? CT_GATED_DELTA : CT_STATE_SPACE, key_heads: Int64(keyHeads),
            heads: Int64(heads), key_size: Int64(keySize), value_size: Int64(valueSize), width: Int64(width),
            queries: Int64(columns.queries.lowerBound), keys: Int64(columns.keys.lowerBound),
            values: Int64(columns.values.lowerBound))
    }

    /// All tokens of packed sequences, as one autograd node.
    ///
    /// - Parameters:
    ///   - x: `[tokens, width]`, for which ``hasKernel(_:)`` is true.
    ///   - rates: β, `[tokens, heads]`; `decays`: g ≤ 0, of the same shape.
    ///   - skip: factors of values that are added to the outputs, `[heads]`.
    ///   - offsets: where each sequence starts, and the end.
    ///   - memories: before the first tokens, in tensors of consecutive sequences, `[rows, heads, key size, value size]`, or of
    ///     a state space `[rows, key heads, key size, heads of a key head, value size]`; empty for zeros.
    ///   - keeping: which memories after the last tokens are returned.
    /// - Returns: outputs `[tokens, heads, value size]`.
    package func callAsFunction(
        _ x: Tensor, rates: Tensor, decays: Tensor, skip: Tensor? = nil, offsets: [Int], memories: [Tensor],
        keeping: Memories
    ) -> (outputs: Tensor, memories: [Tensor]) {
        let rows = offsets.count - 1
        let count = keeping == .none ? 0 : keeping == .together ? 1 : rows
        var results = [OpaquePointer?](repeating: nil, count: 1 + count)
        let parts: [OpaquePointer?] = memories.map(\.pointer)
        var settings = raw
        withExtendedLifetime(memories) {
            check(
                ct_recurrence(
                    x.pointer, rates.pointer, decays.pointer, skip?.pointer, parts, Int32(parts.count), &settings,
                    offsets.map(Int64.init), Int32(rows), keeping.raw, &results))
        }
        let all = results.map { Tensor(owning: $0 ?? ct_undefined()) }
        return (all[0], Array(all.dropFirst()))
    }

    /// Rates β = sigmoid(rates) and decays g = −exp(factors) softplus(decays + shifts), as one autograd node; or the step sizes of a
    /// state space, β = softplus(decays + shifts) within bounds, and g = −exp(factors) β.
    ///
    /// - Parameters:
    ///   - rates: `[tokens, heads]`; `nil` for a state space. `decays`: of the same shape.
    ///   - factors: `[heads]`, as `shifts`.
    ///   - bounds: of step sizes.
    package static func gates(
        rates: Tensor?, decays: Tensor, factors: Tensor, shifts: Tensor, bounds: ClosedRange<Double>
    ) -> (rates: Tensor, decays: Tensor) {
        var results = [OpaquePointer?](repeating: nil, count: 2)
        check(
            ct_recurrence_gates(
                rates?.pointer, decays.pointer, factors.pointer, shifts.pointer, bounds.lowerBound, bounds.upperBound,
                &results))
        let all = results.map { Tensor(owning: $0 ?? ct_undefined()) }
        return (all[0], all[1])
    }

    /// Memories that a recurrence returns: of all sequences in one tensor, or in one for each.
    package enum Memories: Sendable {
        case none, together, apart

        fileprivate var raw: CTMemories {
            switch self {
            case .none: CT_NO_MEMORIES
            case .together: CT_MEMORIES_TOGETHER
            case .apart: CT_MEMORIES_APART
            }
        }
    }
}

extension Functions {
    /// Whether the kernels below apply to such a tensor: in fp32 or bf16 on the CPU.
    package static func hasRowKernel(_ x: Tensor) -> Bool {
        [.float32, .bfloat16].contains(x.dtype) && (x.device == .cpu || x.device == .meta)
    }

    /// A causal convolution of each channel of packed sequences, for which ``hasRowKernel(_:)`` is true.
    ///
    /// - Parameters:
    ///   - x: `[tokens, channels]`; `weight`: `[channels, 1, width]`; `bias`: `[channels]`.
    ///   - before: the inputs before the sequences, `[rows, width − 1, channels]`, without a gradient; `nil` for zeros.
    ///   - offsets: where each sequence starts, and the end.
    ///   - hasSilu: whether SiLU of the outputs is returned.
    package static func shortConvolution(
        _ x: Tensor, weight: Tensor, bias: Tensor?, before: Tensor?, offsets: [Int], hasSilu: Bool
    ) -> Tensor {
        wrap(
            ct_short_convolution(
                x.pointer, weight.pointer, bias?.pointer, before?.pointer, offsets.map(Int64.init),
                Int32(offsets.count - 1), hasSilu))
    }

    /// The inputs of such a convolution before the tokens that follow, `[rows, width − 1, channels]`, without a gradient.
    package static func lastInputs(_ x: Tensor, width: Int, before: Tensor?, offsets: [Int]) -> Tensor {
        wrap(
            ct_last_inputs(
                x.pointer, Int64(width), before?.pointer, offsets.map(Int64.init), Int32(offsets.count - 1)))
    }

    /// Root-mean-square normalization of each group of values, with a gate, for tensors for which ``hasRowKernel(_:)`` is
    /// true.
    ///
    /// - Parameters:
    ///   - x: `[tokens, groups · size]`, as the gate; `weight`: `[size]` or `[groups · size]`.
    ///   - hasGateFirst: whether x ⊙ silu(gate) is normalized, rather than x.
    package static func gatedNorm(
        _ x: Tensor, gate: Tensor, weight: Tensor, groups: Int, epsilon: Double, hasGateFirst: Bool
    ) -> Tensor {
        wrap(ct_gated_norm(x.pointer, gate.pointer, weight.pointer, Int64(groups), epsilon, hasGateFirst))
    }
}
