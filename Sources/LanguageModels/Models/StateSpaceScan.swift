import Torch

/// Structured state space duality (Dao & Gu 2024, Mamba-2, section 6): a linear recurrence whose memory is a matrix per head,
/// hₜ = exp(Δₜ a) hₜ₋₁ + Δₜ bₜ xₜᵀ and yₜ = hₜᵀ cₜ, with b and c of a group of heads. This is the composition of libtorch's
/// operations, for tensors that ``Recurrence`` has no kernel for.
struct StateSpaceScan {
    /// x, `[tokens, heads, size]`.
    private let values: Tensor
    /// b and c, `[tokens, groups, states]`.
    private let writers, readers: Tensor
    /// Δ ≥ 0, `[tokens, heads]`.
    private let steps: Tensor
    /// a < 0, `[heads]`.
    private let decays: Tensor

    /// All tensors have the dtype in which it is computed; each group serves as many consecutive heads.
    init(values: Tensor, writers: Tensor, readers: Tensor, steps: Tensor, decays: Tensor) {
        (self.values, self.writers, self.readers) = (values, writers, readers)
        (self.steps, self.decays) = (steps, decays)
    }

    private var groups: Int { writers.dim(1) }
    private var states: Int { writers.dim(2) }
    /// Number of heads of a group.
    private var share: Int { values.dim(1) / groups }
    private var size: Int { values.dim(2) }

    /// One token of each sequence.
    ///
    /// - Parameter memory: `[rows, groups, states, heads of a group, size]`.
    /// - Returns: outputs `[rows, heads, size]` and the new memory.
    func step(_ memory: Tensor) -> (outputs: Tensor, memory: Tensor) {
        let rows = values.dim(0)
        let faded = memory * (steps * decays).exp().reshaped(rows, groups, 1, share, 1)
        let written = (values * steps.unsqueezed(2)).reshaped(rows, groups, 1, share, size)
        let memory = faded + writers.reshaped(rows, groups, states, 1, 1) * written
        let outputs = readers.unsqueezed(2).matmul(memory.reshaped(rows, groups, states, share * size))
        return (outputs.reshaped(rows, values.dim(1), size), memory)
    }

    /// All tokens of packed sequences, chunk by chunk.
    ///
    /// - Parameters:
    ///   - memory: `[rows, groups, states, heads of a group, size]`; `nil` for zeros.
    ///   - keepsMemory: whether the new memory is returned.
    /// - Returns: outputs `[tokens, heads, size]`.
    func scan(_ chunks: SequenceChunks, memory: Tensor?, keepsMemory: Bool) -> (outputs: Tensor, memory: Tensor?) {
        let (heads, length, count) = (values.dim(1), chunks.length, chunks.count)
        func zeros(_ rows: Int) -> Tensor {
            .zeros([rows, groups, states, share, size], dtype: self.values.dtype, device: self.values.device)
        }
        guard count > 0 else {
            return (
                .zeros(values.shape, dtype: values.dtype, device: values.device), memory ?? zeros(chunks.rows)
            )
        }
        // `[chunks, length, heads, size]`
        let values = chunks.padded(values * steps.unsqueezed(2))
        // `[chunks, groups, length, states]`
        let (writers, readers) = (chunks.padded(writers).transposed(1, 2), chunks.padded(readers).transposed(1, 2))
        // Σ Δ a from the chunk's start, `[chunks, length, heads]`.
        let decays = chunks.padded(steps * decays).cumulativeSum(axis: 1)
        let ends = decays.narrowed(axis: 1, length - 1..<length)

        // Within a chunk: exp(Σ Δ a) between two tokens, 0 for those that follow, times cᵀ b.
        let places = Tensor.arange(0, length, device: values.device)
        let follows = places.unsqueezed(1).less(than: places.unsqueezed(0))
        let never = Tensor.full([1], -.infinity, dtype: values.dtype, device: values.device)
        let ofHeads = decays.transposed(1, 2).unsqueezed(3)
        let between = never.selecting(where: follows, else: ofHeads - ofHeads.transposed()).exp()
        let products = readers.matmul(writers.transposed()).unsqueezed(2)
        let scores = (products * between.reshaped(count, groups, share, length, length))
            .reshaped(count, heads, length, length)
        let inner = scores.matmul(values.transposed(1, 2)).transposed(1, 2)

        // What the chunks write, `[chunks, groups, states, heads of a group, size]`.
        let late = (values * (ends - decays).exp().unsqueezed(3)).reshaped(count, length, groups, share * size)
        let written = writers.transposed().matmul(late.transposed(1, 2)).reshaped(count, groups, states, share, size)
        let passed = ends.exp().reshaped(count, groups, 1, share, 1)
        let carried = chunks.carry(memory, zeros: zeros, keeps: keepsMemory) { step, state in
            let own = written.narrowed(axis: 0, step)
            guard let state else { return (own, zeros(step.count)) }
            return (state * passed.narrowed(axis: 0, step) + own, state)
        }
        let starts = carried.outputs.reshaped(count, groups, states, share * size)
        let read = readers.matmul(starts).transposed(1, 2).reshaped(count, length, heads, size)
        return (chunks.unpadded(inner + read * decays.exp().unsqueezed(3)), carried.memory)
    }
}
