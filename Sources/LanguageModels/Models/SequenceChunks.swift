import Torch

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

    /// Carries the memories of all sequences through their chunks.
    ///
    /// - Parameters:
    ///   - memory: before the first chunks, `[rows, …]`; `nil` for zeros.
    ///   - zeros: zeros of so many sequences.
    ///   - keeps: whether the memories after the last chunks are returned, `[rows, …]`.
    ///   - advance: the memories after the chunks of a step and the outputs of these chunks, from the memories before
    ///     them, `nil` for zeros.
    /// - Returns: the outputs of all chunks, and the memories.
    func carry(
        _ memory: Tensor?, zeros: (Int) -> Tensor, keeps: Bool,
        _ advance: (Range<Int>, Tensor?) -> (memory: Tensor, outputs: Tensor)
    ) -> (outputs: Tensor, memory: Tensor?) {
        var state = memory?.selecting(order)
        var (outputs, final): ([Tensor], [Tensor]) = ([], [])
        var rows = rows
        /// The memories of sequences that ended, from the last ones on.
        func finish(_ count: Int) {
            if keeps, count < rows {
                final.insert((state ?? zeros(rows)).narrowed(axis: 0, count..<rows), at: 0)
            }
            if count < rows { state = state?.narrowed(axis: 0, 0..<count) }
            rows = count
        }
        for step in steps {
            finish(step.count)
            let next = advance(step, state)
            state = next.memory
            outputs.append(next.outputs)
        }
        finish(0)
        return (.concatenated(outputs), keeps ? Tensor.concatenated(final).selecting(positions) : nil)
    }
}
