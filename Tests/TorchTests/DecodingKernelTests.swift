import Testing
import TorchTestSupport

@testable import Torch

/// The kernels of a step of generation, which run where no gradient is recorded, against float64 compositions.
@Suite struct DecodingKernelTests {
    /// Rows on both sides of every way that the kernel divides them, and inputs that don't fill vectors.
    @Test(arguments: [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 31, 32, 33], [5, 16, 64, 75, 1100])
    func linearOfFewRows(rows: Int, inputs: Int) throws {
        try withTorchErrors {
            withoutGradients {
                let x = random(rows, inputs, seed: 1), weight = random(23, inputs, seed: 2),
                    bias = random(23, seed: 3)
                for bias in [nil, bias] {
                    let expected = bias.map { x.matmul(weight.T) + $0 } ?? x.matmul(weight.T)
                    let result = Functions.linear(
                        x.to(.float32), weight.to(.float32), bias: bias?.to(.float32))
                    #expect(result.dtype == .float32)
                    #expect(relativeDifference(result, expected) < 2e-6)
                }
                // Rows of a wider matrix, and one that is stored by columns.
                let wide = random(23, inputs + 3, seed: 4).to(.float32)
                let part = wide.narrowed(axis: 1, 2..<(2 + inputs))
                let expected = x.matmul(part.to(.float64).T)
                #expect(relativeDifference(Functions.linear(x.to(.float32), part), expected) < 2e-6)
                let columns = part.T.contiguous().T
                #expect(relativeDifference(Functions.linear(x.to(.float32), columns), expected) < 2e-6)
            }
        }
    }

    /// The last layer has none where a prompt is read.
    @Test func noRows() throws {
        try withTorchErrors {
            withoutGradients {
                let x = Tensor.zeros([0, 70]), y = Tensor.zeros([0, 29])
                #expect(Functions.linear(x, .ones([29, 70]), bias: .ones([29])).shape == [0, 29])
                let update = Functions.loraBranch(y, x: x, a: .ones([4, 70]), b: .ones([29, 4]), scale: 0.5)
                #expect(update.shape == [0, 29])
                for weight in [
                    StoredMatrix.rounding(.ones([4, 64]), to: .nf4, block: 64, isDouble: false),
                    StoredMatrix.roundingRows(.ones([4, 64])),
                ] {
                    #expect(weight.project(.zeros([0, 64]), bias: nil).shape == [0, 4])
                }
                let groups = GroupQuantizedMatrix.rounding(.ones([4, 64]), bits: 8)
                #expect(groups.project(.zeros([0, 64]), bias: nil).shape == [0, 4])
                #expect(
                    Functions.projections(.zeros([0, 64]), [.init(.groups(groups), bias: nil)])[0].shape == [0, 4])
            }
        }
    }

    @Test(arguments: [1, 4, 7, 33], [1, 3, 8, 16]) func loraBranch(rows: Int, rank: Int) throws {
        try withTorchErrors {
            withoutGradients {
                let x = random(rows, 70, seed: 1), y = random(rows, 29, seed: 2)
                let a = random(rank, 70, seed: 3), b = random(29, rank, seed: 4)
                let expected = y + x.matmul(a.T).matmul(b.T) * 0.5
                let result = Functions.loraBranch(
                    y.to(.float32), x: x.to(.float32), a: a.to(.float32), b: b.to(.float32), scale: 0.5)
                #expect(relativeDifference(result, expected) < 2e-6)
            }
        }
    }

    /// Projections of one input at once, of kinds and sizes of all sorts, are those made alone; in float64 too, and with so many
    /// rows that each goes its own way.
    @Test(arguments: [1, 2, 3, 8, 9, 33], [128, 512]) func projectionsAtOnce(rows: Int, inputs: Int) throws {
        try withTorchErrors {
            withoutGradients {
                // The larger ones are divided among threads.
                let sizes = inputs == 128 ? [70, 23, 5] : [1000, 300, 5]
                let weights = sizes.enumerated().map { random($1, inputs, seed: UInt64(10 + $0)).to(.float32) }
                let matrices =
                    [
                        [.dense(weights[0]), .dense(weights[1]), .dense(weights[2])],
                        [
                            .stored(.rounding(weights[0], to: .nf4, block: 64, isDouble: true)),
                            .stored(.roundingRows(weights[1])), .dense(weights[2]),
                        ],
                        [
                            .groups(.rounding(weights[0], bits: 4)),
                            .groups(.rounding(weights[1], bits: 8, groupSize: 64)),
                            .groups(.rounding(weights[2], bits: 3)),
                        ],
                    ] as [[Projection.Matrix]]
                for list in matrices {
                    for dtype in [DType.float32, .float64] {
                        let x = random(rows, inputs, seed: 1).to(.float32)
                        let known = list.map { matrix -> Tensor in
                            switch matrix {
                            case .dense(let tensor): tensor
                            case .stored(let stored): stored.dense(as: .float32)
                            case .groups(let groups): groups.dense(as: .float32)
                            }
                        }
                        let parts = zip(list, known).enumerated().map { index, pair -> Projection in
                            let (matrix, own) = pair
                            let outputs = own.dim(0)
                            let bias = index == 1 ? nil : random(outputs, seed: 30 + UInt64(index)).to(dtype)
                            let rank = 3 * index
                            let update =
                                rank == 0
                                ? nil
                                : Projection.Update(
                                    a: random(rank, inputs, seed: 40).to(dtype),
                                    b: random(outputs, rank, seed: 50).to(dtype), scale: 0.7
                                )
                            if dtype == .float64, case .dense = matrix {
                                return Projection(.dense(own.to(.float64)), bias: bias, update: update)
                            }
                            return Projection(matrix, bias: bias, update: update)
                        }
                        let results = Functions.projections(x.to(dtype), parts)
                        #expect(results.count == 3)
                        for (index, part) in parts.enumerated() {
                            var expected = x.to(.float64).matmul(known[index].to(.float64).T)
                            if let bias = part.bias { expected = expected + bias.to(.float64) }
                            if let update = part.update {
                                let low = x.to(.float64).matmul(update.a.to(.float64).T)
                                expected = expected + low.matmul(update.b.to(.float64).T) * update.scale
                            }
                            #expect(results[index].dtype == dtype)
                            #expect(relativeDifference(results[index].to(.float64), expected) < 3e-6)
                        }
                    }
                }
            }
        }
    }

    @Test func projectionsThatDoNotFitAreRefused() {
        let x = Tensor.zeros([1, 4])
        func project(_ projection: Projection) throws {
            _ = try withTorchErrors { withoutGradients { Functions.projections(x, [projection]) } }
        }
        #expect(throws: (any Error).self) { try project(Projection(.dense(.zeros([3, 5])), bias: nil)) }
        #expect(throws: (any Error).self) { try project(Projection(.dense(.zeros([3, 4])), bias: .zeros([2]))) }
        #expect(throws: (any Error).self) {
            try project(
                Projection(
                    .dense(.zeros([3, 4])), bias: nil, update: .init(a: .zeros([2, 5]), b: .zeros([3, 2]), scale: 1)))
        }
    }

    /// A column of a cache, from views of every kind; with another type it is converted.
    @Test func columnsOfCaches() throws {
        try withTorchErrors {
            withoutGradients {
                let tokens = random(2, 3, 8, seed: 1).to(.float32)
                let turned = random(2, 4, 3, 8, seed: 2).to(.float32).transposed(1, 2)
                for (x, column) in [(tokens.unsqueezed(2), 4), (turned, 1), (turned.to(.float64), 0)] {
                    let (cache, expected) = (Tensor.ones([2, 3, 5, 8]), Tensor.ones([2, 3, 5, 8]))
                    Functions.write(x, into: cache, column: column)
                    expected.narrowed(axis: 2, column..<(column + x.dim(2))).copy(from: x)
                    #expect(cache.isIdentical(to: expected))
                }
            }
        }
        #expect(throws: (any Error).self) {
            try withTorchErrors { Functions.write(.zeros([2, 3, 1, 8]), into: .zeros([2, 3, 5, 8]), column: 5) }
        }
    }

    /// Rows with branches of different ranks, gains with and without the bias, and none; in float64 too, which has no kernel.
    @Test(arguments: [DType.float32, .float64]) func rowBranches(dtype: DType) throws {
        try withTorchErrors {
            withoutGradients {
                let x = random(32, 40, seed: 1), y = random(32, 21, seed: 2), bias = random(21, seed: 3)
                let kinds: [(rows: Range<Int>, rank: Int, hasGain: Bool, keepsBias: Bool)] = [
                    (0..<1, 8, false, false), (1..<4, 3, true, true), (4..<5, 0, true, false),
                    (6..<9, 16, true, false),
                    (9..<9, 4, true, true), (9..<10, 0, true, true), (10..<31, 5, true, true),
                ]
                let result = y.to(dtype).clone()
                let expected = y.clone()
                var branches: [Functions.RowBranch] = []
                for (index, kind) in kinds.enumerated() {
                    let seed = UInt64(index), part = expected.narrowed(axis: 0, kind.rows)
                    let (a, b, scale) = (
                        random(kind.rank, 40, seed: 10 + seed), random(21, kind.rank, seed: 20 + seed),
                        Double(index) + 0.5
                    )
                    let gain = kind.hasGain ? random(21, seed: 30 + seed) : nil
                    var own = part
                    if kind.rank > 0 {
                        own = own + x.narrowed(axis: 0, kind.rows).matmul(a.T).matmul(b.T) * scale
                    }
                    if let gain { own = kind.keepsBias ? (own - bias) * gain + bias : own * gain }
                    part.copy(from: own)
                    branches.append(
                        .init(
                            rows: kind.rows,
                            factors: kind.rank > 0 ? (a.to(dtype), b.to(dtype), scale) : nil,
                            gain: gain?.to(dtype).reshaped(21, 1), keepsBias: kind.keepsBias))
                }
                Functions.rowBranches(result, x: x.to(dtype), bias: bias.to(dtype), branches)
                #expect(relativeDifference(result, expected) < (dtype == .float32 ? 2e-6 : 1e-14))
            }
        }
    }

    /// Hadamard products of few and many rows, of ranks for which each row and for which ΔW is less work.
    @Test(arguments: [DType.float32, .float64]) func hadamardBranches(dtype: DType) throws {
        try withTorchErrors {
            withoutGradients {
                for (inputs, outputs) in [(70, 45), (16, 3)] {
                    let x = random(24, inputs, seed: 1), y = random(24, outputs, seed: 2)
                    let kinds: [(rows: Range<Int>, rank: Int)] = [(0..<1, 8), (1..<4, 3), (5..<23, 5), (23..<24, 40)]
                    let result = y.to(dtype).clone()
                    let expected = y.to(.float64)
                    var branches: [Functions.RowBranch] = []
                    for (index, (rows, rank)) in kinds.enumerated() {
                        func factor(_ size: Int, _ kind: UInt64) -> Tensor {
                            random(rank, size, seed: 10 * UInt64(index + 1) + kind)
                        }
                        let (a, b) = (factor(inputs, 1), factor(outputs, 2))
                        let others = (a: factor(inputs, 3), b: factor(outputs, 4))
                        func product(_ a: Tensor, _ b: Tensor) -> Tensor {
                            b.to(.float64).T.matmul(a.to(.float64))
                        }
                        let delta = product(a, b) * product(others.a, others.b)
                        let part = expected.narrowed(axis: 0, rows)
                        part.copy(from: part + x.narrowed(axis: 0, rows).to(.float64).matmul(delta.T) * 0.25)
                        branches.append(
                            .init(
                                rows: rows, factors: (a.to(dtype), b.to(dtype), 0.25),
                                others: (others.a.to(dtype), others.b.to(dtype))))
                    }
                    Functions.rowBranches(result, x: x.to(dtype), bias: nil, branches)
                    #expect(relativeDifference(result, expected) < (dtype == .float32 ? 2e-6 : 1e-14))
                }
            }
        }
        let x = Tensor.zeros([2, 4]), y = Tensor.zeros([2, 3])
        #expect(throws: (any Error).self) {
            try withTorchErrors {
                let branch = Functions.RowBranch(
                    rows: 0..<2, factors: (.zeros([2, 4]), .zeros([2, 3]), 1),
                    others: (.zeros([2, 5]), .zeros([2, 3])))
                Functions.rowBranches(y, x: x, bias: nil, [branch])
            }
        }
    }

    @Test(arguments: [DType.float32, .float64]) func scaledRows(dtype: DType) throws {
        try withTorchErrors {
            withoutGradients {
                let x = random(5, 40, seed: 1), gain = random(1, 40, seed: 2)
                let result = Functions.scaledRows(
                    x.to(dtype), offsets: [0, 1, 3, 5], gains: [nil, gain.to(dtype), nil])
                let expected = x.clone()
                expected.narrowed(axis: 0, 1..<3).copy(from: x.narrowed(axis: 0, 1..<3) * gain)
                #expect(relativeDifference(result, expected) < (dtype == .float32 ? 1e-7 : 1e-15))
            }
        }
    }

    @Test func branchesThatDoNotFitAreRejected() throws {
        let x = Tensor.zeros([2, 4]), y = Tensor.zeros([2, 3])
        func apply(_ rows: Range<Int>, _ a: Tensor, _ b: Tensor, gain: Int = 3, bias: Int = 3) throws {
            try withTorchErrors {
                Functions.rowBranches(
                    y, x: x, bias: .zeros([bias]), [.init(rows: rows, factors: (a, b, 1), gain: .zeros([gain]))])
            }
        }
        try apply(0..<2, .zeros([2, 4]), .zeros([3, 2]))
        #expect(throws: (any Error).self) { try apply(0..<2, .zeros([2, 5]), .zeros([3, 2])) }
        #expect(throws: (any Error).self) { try apply(0..<2, .zeros([2, 4]), .zeros([2, 2])) }
        #expect(throws: (any Error).self) { try apply(0..<3, .zeros([2, 4]), .zeros([3, 2])) }
        #expect(throws: (any Error).self) { try apply(0..<2, .zeros([2, 4]), .zeros([3, 2]), gain: 2) }
        #expect(throws: (any Error).self) { try apply(0..<2, .zeros([2, 4]), .zeros([3, 2]), bias: 2) }
        #expect(throws: (any Error).self) {
            try withTorchErrors { _ = Functions.scaledRows(x, offsets: [0, 3], gains: [.zeros([4])]) }
        }
        #expect(throws: (any Error).self) {
            try withTorchErrors { _ = Functions.scaledRows(x, offsets: [0, 2], gains: [.zeros([3])]) }
        }
    }

    /// One query of each sequence, with keys and values of its own, and query heads that share a key head.
    @Test func attentionToSequencesOfTheirOwn() throws {
        try withTorchErrors {
            withoutGradients {
                let q = random(4, 6, 12, seed: 1)
                for heads in [6, 2] {
                    let lengths = [1, 40, 17, 3]
                    let own = lengths.enumerated().map { row, length in
                        (
                            keys: random(length, heads, 12, seed: 10 + UInt64(row)),
                            values: random(length, heads, 12, seed: 20 + UInt64(row))
                        )
                    }
                    let result = Functions.attendSequences(
                        q.to(.float32), to: own.map { ($0.keys.to(.float32), $0.values.to(.float32)) }, scale: 0.3)
                    for (row, (keys, values)) in own.enumerated() {
                        func byHead(_ x: Tensor) -> Tensor { x.transposed(0, 1).unsqueezed(0) }
                        let expected = Functions.attention(
                            q.narrowed(axis: 0, row..<(row + 1)).reshaped(1, heads, -1, 12), byHead(keys),
                            byHead(values), mask: nil, scale: 0.3)
                        let part = result.narrowed(axis: 0, row..<(row + 1)).reshaped(expected.shape)
                        #expect(relativeDifference(part, expected) < 3e-6)
                    }
                }
            }
        }
        #expect(throws: (any Error).self) {
            try withTorchErrors {
                _ = Functions.attendSequences(
                    .zeros([1, 6, 12]), to: [(.zeros([3, 4, 12]), .zeros([3, 4, 12]))], scale: 1)
            }
        }
    }

    /// Caches that are longer than what they hold, masks of every kind that generation makes, queries that share a head.
    @Test(arguments: [1, 2, 5], [1, 17, 40]) func attention(queries: Int, keys: Int) throws {
        try withTorchErrors {
            withoutGradients {
                let q = random(3, 2, queries, 24, seed: 1)
                let held = 0..<keys
                let k = random(3, 2, 50, 24, seed: 2).narrowed(axis: 2, held)
                let v = random(3, 2, 50, 24, seed: 3).narrowed(axis: 2, held)
                let gaps = Tensor(
                    (0..<3).flatMap { row in held.map { $0 < min(row, keys - 1) ? -Float.infinity : 0 } },
                    shape: [3, 1, 1, keys])
                let bias = random(1, 2, 1, 50, seed: 4).narrowed(axis: 3, (50 - keys)..<50)
                for mask in [nil, gaps.to(.float64), bias, gaps.to(.float64) + bias] {
                    var scores = q.matmul(k.transposed(2, 3)) * 0.3
                    if let mask { scores = scores + mask }
                    let expected = scores.softmax().matmul(v)
                    let result = Functions.attention(
                        q.to(.float32), narrow(k), narrow(v), mask: mask?.to(.float32), scale: 0.3)
                    #expect(relativeDifference(result, expected) < 3e-6)
                }
            }
        }
    }

    /// One token of each of several sequences, whose caches differ in length, among rows of others; two query heads per key
    /// head.
    @Test(arguments: [nil, 4], [false, true]) func sequencesWithCachesOfTheirOwn(window: Int?, hasBias: Bool) throws {
        try withTorchErrors {
            withoutGradients {
                // By distance, the query's own column last.
                let bias = hasBias ? random(4, 19, seed: 5) : nil
                let (q, k, v) = (random(5, 4, 24, seed: 1), random(5, 2, 24, seed: 2), random(5, 2, 24, seed: 3))
                let sequences = [(row: 0, column: 0), (row: 3, column: 6), (row: 4, column: 17)]
                let known = sequences.indices.map { random(2, 20, 2 * 24, seed: UInt64(10 + $0)) }
                let caches = zip(sequences, known).map { own, known in
                    let cache = known.to(.float32).clone()
                    func half(_ index: Int) -> Tensor {
                        cache.narrowed(axis: 0, index..<(index + 1)).reshaped(1, 1, 20, 48)
                    }
                    return (row: own.row, keys: half(0), values: half(1), column: own.column)
                }
                let y = Tensor.ones(q.shape)
                Functions.decodeSequences(
                    q.to(.float32), k.to(.float32), v.to(.float32), caches: caches, bias: bias?.to(.float32),
                    window: window, scale: 0.3, into: y)
                for (own, known) in zip(sequences, known) {
                    func row(_ x: Tensor) -> Tensor { x.narrowed(axis: 0, own.row..<(own.row + 1)) }
                    func columns(_ index: Int, _ last: Tensor) -> Tensor {
                        let before = known.narrowed(axis: 0, index..<(index + 1)).reshaped(20, 2, 24)
                        let all = Tensor.concatenated([before.narrowed(axis: 0, 0..<own.column), row(last)])
                        let seen = max(0, own.column + 1 - (window ?? 20))..<(own.column + 1)
                        return all.narrowed(axis: 0, seen).transposed(0, 1)
                    }
                    var scores = row(q).reshaped(2, 2, 24).matmul(columns(0, k).transposed(1, 2)) * 0.3
                    if let bias {
                        scores = scores + bias.narrowed(axis: 1, (19 - scores.dim(2))..<19).reshaped(2, 2, -1)
                    }
                    let expected = scores.softmax().matmul(columns(1, v)).reshaped(1, 4, 24)
                    #expect(relativeDifference(row(y), expected) < 3e-6)
                }
                // The others' rows.
                #expect(y.narrowed(axis: 0, 1..<3).isIdentical(to: .ones([2, 4, 24])))
            }
        }
        let row = Tensor.zeros([1, 2, 8])
        #expect(throws: (any Error).self) {
            let cache = Tensor.zeros([1, 1, 3, 16])
            try withTorchErrors {
                Functions.decodeSequences(
                    row, row, row, caches: [(0, cache, cache, 3)], window: nil, scale: 1, into: .zeros([1, 2, 8]))
            }
        }
        #expect(throws: (any Error).self) {
            let cache = Tensor.zeros([1, 1, 3, 16])
            try withTorchErrors {
                Functions.decodeSequences(
                    row, row, row, caches: [(0, cache, cache, 2)], bias: .zeros([2, 2]), window: nil, scale: 1,
                    into: .zeros([1, 2, 8]))
            }
        }
    }

    @Test func attentionWithoutQueries() throws {
        let (none, keys) = (Tensor.zeros([2, 3, 0, 8]), Tensor.zeros([2, 3, 5, 8]))
        let result = try withTorchErrors {
            withoutGradients { Functions.attention(none, keys, keys, mask: nil, scale: 1) }
        }
        #expect(result.shape == [2, 3, 0, 8])
    }

    /// The same view of fp32 numbers.
    private func narrow(_ x: Tensor) -> Tensor {
        let whole = Tensor.zeros([x.dim(0), x.dim(1), 50, x.dim(3)], dtype: .float32)
        let part = whole.narrowed(axis: 2, 0..<x.dim(2))
        part.copy(from: x.to(.float32))
        return part
    }
}
