import Torch

/// The gated delta rule (Yang et al. 2024, Gated Delta Networks, eq. 10), a linear attention whose memory is a matrix per
/// head: Sₜ = exp(gₜ) (I − βₜ kₜ kₜᵀ) Sₜ₋₁ + βₜ kₜ vₜᵀ and oₜ = Sₜᵀ qₜ / √d, with q and k of unit length. This is the composition of
/// libtorch's operations, for tensors that ``Recurrence`` has no kernel for.
struct GatedDeltaRule {
    /// `[tokens, key heads, key size]`
    private let queries, keys: Tensor
    /// `[tokens, heads, value size]`
    private let values: Tensor
    /// β and g ≤ 0, `[tokens, heads]`.
    private let rates, decays: Tensor

    /// Normalizes queries and keys. All tensors have the dtype in which it is computed; each key head serves as many
    /// consecutive value heads.
    init(queries: Tensor, keys: Tensor, values: Tensor, rates: Tensor, decays: Tensor) {
        func unit(_ x: Tensor) -> Tensor { x * (x.squared().sum(axes: [-1], keep: true) + 1e-6).rsqrt() }
        self.queries = unit(queries) * (1 / Double(queries.dim(-1)).squareRoot())
        self.keys = unit(keys)
        (self.values, self.rates, self.decays) = (values, rates, decays)
    }

    /// - Parameter x: queries, keys and values beside each other, `[tokens, width]`.
    init(_ x: Tensor, _ sizes: Recurrence, rates: Tensor, decays: Tensor) {
        let parts = x.split(axis: 1, [sizes.keyWidth, sizes.keyWidth, sizes.valueWidth])
        func heads(_ x: Tensor, _ size: Int) -> Tensor { x.reshaped(-1, x.dim(1) / size, size) }
        self.init(
            queries: heads(parts[0], sizes.keySize), keys: heads(parts[1], sizes.keySize),
            values: heads(parts[2], sizes.valueSize), rates: rates, decays: decays)
    }

    private var groups: Int { values.dim(1) / keys.dim(1) }

    /// Shape of the memory of so many sequences.
    private func shape(_ rows: Int) -> [Int] { [rows, values.dim(1), keys.dim(2), values.dim(2)] }

    /// One token of each sequence.
    ///
    /// - Parameter memory: `[rows, heads, key size, value size]`.
    /// - Returns: outputs `[rows, heads, value size]` and the new memory.
    func step(_ memory: Tensor) -> (outputs: Tensor, memory: Tensor) {
        let (rows, heads) = (values.dim(0), values.dim(1))
        func repeated(_ x: Tensor) -> Tensor {
            x.unsqueezed(2).expanded([rows, x.dim(1), groups, x.dim(2)]).reshaped(rows, heads, 1, x.dim(2))
        }
        let (queries, keys) = (repeated(queries), repeated(keys))
        let faded = memory * decays.exp().reshaped(rows, heads, 1, 1)
        let change = (values.unsqueezed(2) - keys.matmul(faded)) * rates.reshaped(rows, heads, 1, 1)
        let memory = faded + keys.transposed() * change
        return (queries.matmul(memory).reshaped(rows, heads, -1), memory)
    }

    /// All tokens of packed sequences, chunk by chunk (Yang et al. 2024, section 3.3).
    ///
    /// - Parameters:
    ///   - memory: `[rows, heads, key size, value size]`; `nil` for zeros.
    ///   - keepsMemory: whether the new memory is returned.
    /// - Returns: outputs `[tokens, heads, value size]`.
    func scan(_ chunks: SequenceChunks, memory: Tensor?, keepsMemory: Bool) -> (outputs: Tensor, memory: Tensor?) {
        let (heads, length) = (values.dim(1), chunks.length)
        func zeros(_ rows: Int) -> Tensor {
            .zeros(shape(rows), dtype: self.values.dtype, device: self.values.device)
        }
        guard chunks.count > 0 else {
            return (
                .zeros(values.shape, dtype: values.dtype, device: values.device), memory ?? zeros(chunks.rows)
            )
        }
        // `[chunks, heads, length, size]`
        func laid(_ x: Tensor) -> Tensor {
            let own = chunks.padded(x).transposed(1, 2)
            guard own.dim(1) < heads else { return own }
            return own.unsqueezed(2).expanded([chunks.count, own.dim(1), groups, length, own.dim(3)])
                .reshaped(chunks.count, heads, length, own.dim(3))
        }
        let (queries, keys, values) = (laid(queries), laid(keys), laid(values))
        let rates = laid(rates.unsqueezed(2))
        // Σ g from the chunk's start, `[chunks, heads, length, 1]`.
        let decays = laid(decays.unsqueezed(2)).cumulativeSum(axis: 2)
        let ends = decays.narrowed(axis: 2, length - 1..<length)

        // exp(Σ g) between two tokens, 0 for those that follow.
        let places = Tensor.arange(0, length, device: values.device)
        let follows = places.unsqueezed(1).less(than: places.unsqueezed(0))
        let never = Tensor.full([1], -.infinity, dtype: values.dtype, device: values.device)
        let between = never.selecting(where: follows, else: decays - decays.transposed()).exp()

        // A chunk's changes of the memory are a triangular system (the UT transform).
        let faded = decays.exp()
        let weighted = keys * rates
        let system = weighted.matmul(keys.transposed()) * between
        let solution = system.solvingUnitLower(
            Tensor.concatenated([values * rates, weighted * faded], axis: 3)
        ).split(axis: 3, [values.dim(3), keys.dim(3)])
        let (newValues, readKeys) = (solution[0], solution[1])
        let scores = queries.matmul(keys.transposed()) * between
        let readQueries = queries * faded
        let writtenKeys = (keys * (ends - decays).exp()).transposed()
        let passed = ends.exp()

        let carried = chunks.carry(memory, zeros: zeros, keeps: keepsMemory) { step, state in
            func own(_ x: Tensor) -> Tensor { x.narrowed(axis: 0, step) }
            guard let state else {
                return (own(writtenKeys).matmul(own(newValues)), own(scores).matmul(own(newValues)))
            }
            let changes = own(newValues) - own(readKeys).matmul(state)
            return (
                state * own(passed) + own(writtenKeys).matmul(changes),
                own(readQueries).matmul(state) + own(scores).matmul(changes)
            )
        }
        return (chunks.unpadded(carried.outputs.transposed(1, 2)), carried.memory)
    }
}
