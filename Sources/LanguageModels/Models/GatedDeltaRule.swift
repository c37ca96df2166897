import Torch

/// The gated delta rule (Yang et al. 2024, Gated Delta Networks, eq. 10), a linear attention whose memory is a matrix per
/// head: Sₜ = exp(gₜ) (I − βₜ kₜ kₜᵀ) Sₜ₋₁ + βₜ kₜ vₜᵀ and oₜ = Sₜᵀ qₜ / √d, with q and k of unit length.
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
        let zeros = Tensor.zeros(shape(chunks.rows), dtype: values.dtype, device: values.device)
        guard chunks.count > 0 else {
            return (Tensor.zeros(values.shape, dtype: values.dtype, device: values.device), memory ?? zeros)
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

        var state = memory.map { chunks.ordered($0) }
        var outputs: [Tensor] = []
        var final: [Tensor] = []
        var rows = chunks.rows
        /// The memories of sequences that ended, from the last ones on.
        func finish(_ count: Int) {
            if keepsMemory, count < rows {
                final.insert((state ?? zeros).narrowed(axis: 0, count..<rows), at: 0)
            }
            if count < rows { state = state?.narrowed(axis: 0, 0..<count) }
            rows = count
        }
        for step in chunks.steps {
            finish(step.count)
            func own(_ x: Tensor) -> Tensor { x.narrowed(axis: 0, step) }
            var changes = own(newValues)
            var output: Tensor?
            if let state {
                changes = changes - own(readKeys).matmul(state)
                output = own(readQueries).matmul(state)
            }
            let inner = own(scores).matmul(changes)
            outputs.append(output.map { $0 + inner } ?? inner)
            let written = own(writtenKeys).matmul(changes)
            state = state.map { $0 * own(passed) + written } ?? written
        }
        finish(0)
        return (
            chunks.unpadded(Tensor.concatenated(outputs).transposed(1, 2)),
            keepsMemory ? chunks.unordered(Tensor.concatenated(final)) : nil
        )
    }
}

/// Packed sequences cut into chunks, the first chunks of all sequences before the second ones, and so on. Sequences with more
/// chunks come first, so that those that go on are always the first ones.
struct SequenceChunks {
    /// Number of tokens of a chunk; the last one of a sequence ends with zeros.
    let length: Int
    let count: Int
    /// Number of sequences.
    let rows: Int
    /// The chunks of each step.
    let steps: [Range<Int>]
    /// Tokens of the chunks, or their number for a zero, and chunk positions of the tokens.
    private let sources, places: Tensor
    /// Sequences in their order, and positions of sequences in it.
    private let order, positions: Tensor

    /// - Parameters:
    ///   - offsets: where each sequence starts, and the end.
    ///   - most: maximum number of tokens of a chunk.
    init(_ offsets: [Int], device: Device, most: Int = 64) {
        let lengths = zip(offsets.dropFirst(), offsets).map { $0 - $1 }
        let length = min(most, max(1, lengths.max() ?? 1))
        let counts = lengths.map { ($0 + length - 1) / length }
        let order = lengths.indices.sorted { (-counts[$0], $0) < (-counts[$1], $1) }
        let tokens = offsets.last ?? 0
        var sources: [Int] = []
        var places = [Int](repeating: 0, count: tokens)
        var steps: [Range<Int>] = []
        for step in 0..<(counts.max() ?? 0) {
            let start = steps.last?.upperBound ?? 0
            let active = order.prefix { counts[$0] > step }
            for row in active {
                for token in offsets[row] + step * length..<offsets[row] + (step + 1) * length {
                    if token < offsets[row + 1] { places[token] = sources.count }
                    sources.append(token < offsets[row + 1] ? token : tokens)
                }
            }
            steps.append(start..<start + active.count)
        }
        var positions = [Int](repeating: 0, count: order.count)
        for (position, row) in order.enumerated() { positions[row] = position }
        (self.length, self.steps, rows) = (length, steps, lengths.count)
        count = steps.last?.upperBound ?? 0
        self.sources = Tensor(sources, device: device)
        self.places = Tensor(places, device: device)
        self.order = Tensor(order, device: device)
        self.positions = Tensor(positions, device: device)
    }

    /// x `[tokens, …]` -> `[chunks, length, …]`.
    func padded(_ x: Tensor) -> Tensor {
        let rest = Array(x.shape.dropFirst())
        let zero = Tensor.zeros([1] + rest, dtype: x.dtype, device: x.device)
        return Tensor.concatenated([x, zero]).selecting(sources).reshaped([count, length] + rest)
    }

    /// x `[chunks, length, …]` -> `[tokens, …]`.
    func unpadded(_ x: Tensor) -> Tensor {
        x.reshaped([count * length] + Array(x.shape.dropFirst(2))).selecting(places)
    }

    /// States `[rows, …]` in the order of the chunks.
    func ordered(_ x: Tensor) -> Tensor { x.selecting(order) }
    func unordered(_ x: Tensor) -> Tensor { x.selecting(positions) }
}
