import PEFTSupport
import Testing
import TorchTestSupport

@testable import Torch

/// Packed attention against attention row by row in plain operations.
@Suite struct AttentionTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var queries: [Int]
        var keys: [Int]
        var causal = false
        var hasBias = false
        var dropout = 0.0
        var scale = 1.0
        var window: Int?
        var softcap: Double?
        var keyHeads = 2
        let testDescription: String
    }

    static let cases = [
        Case(queries: [0, 3, 4, 9], keys: [0, 3, 4, 9], testDescription: "rows of 3, 1 and 5"),
        Case(queries: [0, 3, 4, 9], keys: [0, 3, 4, 9], causal: true, testDescription: "causal"),
        Case(queries: [0, 3, 5], keys: [0, 3, 5], hasBias: true, scale: 0.5, testDescription: "bias and scale"),
        Case(queries: [0, 4, 6], keys: [0, 4, 6], causal: true, hasBias: true, testDescription: "causal with bias"),
        Case(queries: [0, 2, 3], keys: [0, 5, 9], testDescription: "to another sequence"),
        Case(queries: [0, 2, 3], keys: [0, 5, 9], hasBias: true, testDescription: "to another sequence, with bias"),
        Case(queries: [0, 3, 5], keys: [0, 3, 5], dropout: 0.3, testDescription: "dropout"),
        Case(
            queries: [0, 4, 5], keys: [0, 4, 5], causal: true, hasBias: true, dropout: 0.3, scale: 0.7,
            testDescription: "everything"),
        Case(queries: [0, 1], keys: [0, 1], causal: true, testDescription: "one token"),
        Case(queries: [0, 2, 2, 3], keys: [0, 2, 2, 3], testDescription: "a row without tokens"),
        Case(queries: [0, 2, 2, 3], keys: [0, 2, 2, 3], causal: true, testDescription: "causal without tokens"),
        Case(queries: [0, 3, 5], keys: [0, 5, 7], causal: true, testDescription: "causal after prefixes"),
        Case(queries: [0, 5, 7], keys: [0, 5, 7], causal: true, window: 2, testDescription: "a window"),
        Case(
            queries: [0, 5, 7], keys: [0, 8, 10], causal: true, window: 4, testDescription: "a window over prefixes"),
        Case(queries: [0, 5, 7], keys: [0, 8, 10], window: 2, testDescription: "a window in both directions"),
        Case(queries: [0, 3, 5], keys: [0, 3, 5], scale: 0.7, softcap: 0.8, testDescription: "a soft cap"),
        Case(
            queries: [0, 4, 6], keys: [0, 4, 6], causal: true, keyHeads: 1, testDescription: "shared heads of keys"),
        Case(
            queries: [0, 5, 6], keys: [0, 6, 8], causal: true, hasBias: true, scale: 0.7, window: 3, softcap: 0.8,
            keyHeads: 1, testDescription: "everything but dropout"),
    ]

    /// Rows of several tiles, too long for finite differences.
    static let long = [
        Case(queries: [0, 300, 430], keys: [0, 300, 430], causal: true, scale: 0.3, testDescription: "causal"),
        Case(queries: [0, 290, 300], keys: [0, 297, 310], causal: true, scale: 0.3, testDescription: "prefixes"),
        Case(
            queries: [0, 150, 190], keys: [0, 150, 190], causal: true, scale: 0.3, window: 40,
            testDescription: "window"),
        Case(
            queries: [0, 300, 310], keys: [0, 310, 330], causal: true, hasBias: true, scale: 0.3, window: 17,
            softcap: 0.9, keyHeads: 1, testDescription: "everything"),
        Case(
            queries: [0, 200], keys: [0, 200], causal: true, scale: 0.3, window: 500, testDescription: "a wide window"
        ),
        Case(
            queries: [0, 200, 290], keys: [0, 207, 300], scale: 0.3, window: 37,
            testDescription: "window in both directions"),
        Case(
            queries: [0, 300, 310], keys: [0, 310, 330], hasBias: true, scale: 0.3, window: 17, softcap: 0.9,
            keyHeads: 1, testDescription: "everything in both directions"),
    ]

    @Test(arguments: long) func tilesEqualAttentionRowByRow(item: Case) throws {
        try expectSame(inputs(item), { packed(item, $0) }, { reference(item, $0) })
    }

    /// What drops out in a tile drops out of its gradient: along any direction the function changes as they say.
    @Test func tilesDropTheSameOnTheWayBack() throws {
        let item = Case(
            queries: [0, 300], keys: [0, 300], causal: true, dropout: 0.4, scale: 0.3, window: 33,
            testDescription: "dropout")
        let x = inputs(item)
        let directions = x.enumerated().map { random(300, 2, 3, seed: 20 + UInt64($0.offset)) }
        let exact = try gradients(x) { packed(item, $0) }
        let slope = zip(exact, directions).map { ($0 * $1).sum().item() }.reduce(0, +)
        func value(_ step: Double) -> Double {
            let output = packed(item, zip(x, directions).map { $0 + $1 * step })
            var source = SeededRandom(seed: 99)
            let weights = Tensor.empty(output.shape, dtype: output.dtype)
            weights.fillNormal(from: &source)
            return (output * weights).sum().item()
        }
        #expect(abs((value(1e-6) - value(-1e-6)) / 2e-6 - slope) < 1e-6 * max(abs(slope), 1))
    }

    static let single =
        cases + long + [
            Case(
                queries: [0, 140, 150], keys: [0, 140, 150], dropout: 0.3, scale: 0.4, keyHeads: 1,
                testDescription: "dropout and a shared head"),
            Case(
                queries: [0, 200, 230], keys: [0, 210, 240], causal: true, hasBias: true, dropout: 0.3, scale: 0.4,
                window: 60, testDescription: "dropout, a bias and a window"),
            Case(
                queries: [0, 3, 3, 7], keys: [0, 0, 6, 11], scale: 0.4, testDescription: "nothing to see, nobody to"),
        ]

    /// fp32 has kernels of its own, where a library for small products was found: the same to its precision, dropout included.
    @Test(arguments: single) func singlePrecisionIsTheSame(item: Case) throws {
        let narrow = inputs(item).map { $0.to(.float32) }
        let wide = narrow.map { $0.to(.float64) }
        let expected = try withTorchErrors { withoutGradients { packed(item, wide) } }
        let slopes = try gradients(wide) { packed(item, $0) }
        for isAllowed in [true, false] {
            try Runtime.withOtherBLAS(isAllowed) {
                let result = try withTorchErrors { withoutGradients { packed(item, narrow) } }
                #expect(result.dtype == .float32)
                #expect(relativeDifference(result.to(.float64), expected) < 2e-6)
                let own = try gradients(narrow) { packed(item, $0).to(.float64) }
                for (number, pair) in zip(own, slopes).enumerated() {
                    #expect(relativeDifference(pair.0.to(.float64), pair.1) < 5e-6, "gradient of input \(number)")
                }
            }
        }
    }

    /// bf16 is computed in fp32, by the kernels that fp32 has and by libtorch's operations: only inputs and results are rounded.
    @Test(arguments: single) func narrowNumbersAreAsPreciseAsTheyCan(item: Case) throws {
        let narrow = inputs(item).map { $0.to(.bfloat16) }
        let wide = narrow.map { $0.to(.float64) }
        let expected = try withTorchErrors { withoutGradients { packed(item, wide) } }
        let slopes = try gradients(wide) { packed(item, $0) }
        for isAllowed in [true, false] {
            try Runtime.withOtherBLAS(isAllowed) {
                let result = try withTorchErrors { withoutGradients { packed(item, narrow) } }
                #expect(result.dtype == .bfloat16)
                #expect(relativeDifference(result.to(.float64), expected) < 4e-3)
                let own = try gradients(narrow) { packed(item, $0).to(.float64) }
                for (number, pair) in zip(own, slopes).enumerated() {
                    #expect(relativeDifference(pair.0.to(.float64), pair.1) < 1.2e-2, "gradient of input \(number)")
                }
            }
        }
    }

    /// A bias by key is that of every query, from a sequence's first key on, whatever precedes its queries.
    @Test(arguments: [1, 2], [Int?.none, 33]) func biasByKeyIsTheSameForAllQueries(keyHeads: Int, window: Int?) throws
    {
        let (queries, keys) = ([0, 150, 152, 155], [0, 150, 158, 170])
        let bias = random(2, 150, seed: 4)
        /// Sequence by sequence, with the bias of each query and key.
        func separate(_ x: [Tensor]) -> Tensor {
            let parts = (0..<3).map { row in
                let own = queries[row]..<queries[row + 1], seen = keys[row]..<keys[row + 1]
                let columns = bias.narrowed(axis: 1, 0..<seen.count).to(x[0].dtype).unsqueezed(1)
                return Functions.packedAttention(
                    x[0].narrowed(axis: 0, own), x[1].narrowed(axis: 0, seen), x[2].narrowed(axis: 0, seen),
                    bias: columns.expanded([2, own.count, seen.count]).contiguous(), queryOffsets: [0, own.count],
                    keyOffsets: [0, seen.count], causal: true, window: window, scale: 0.4)
            }
            return .concatenated(parts)
        }
        func together(_ x: [Tensor]) -> Tensor {
            Functions.packedAttention(
                x[0], x[1], x[2], bias: bias.to(x[0].dtype), queryOffsets: queries, keyOffsets: keys, causal: true,
                window: window, scale: 0.4)
        }
        let x = [random(155, 2, 3, seed: 1), random(170, keyHeads, 3, seed: 2), random(170, keyHeads, 3, seed: 3)]
        try expectSame(x, together, separate)
        let narrow = x.map { $0.to(.float32) }
        #expect(
            try withTorchErrors {
                withoutGradients { relativeDifference(together(narrow).to(.float64), separate(x)) }
            } < 2e-6)
        for (a, b) in zip(try gradients(narrow, together), try gradients(x, separate)) {
            #expect(relativeDifference(a.to(.float64), b) < 5e-6)
        }
        let trained = random(2, 150, seed: 4)
        trained.requiresGrad = true
        #expect(throws: PEFTError.self) {
            try withTorchErrors {
                Functions.packedAttention(
                    x[0], x[1], x[2], bias: trained, queryOffsets: queries, keyOffsets: keys, causal: true, scale: 1)
            }
        }
    }

    @Test func whatDoesNotFitIsRefused() {
        let x = Tensor.zeros([4, 2, 8]), short = Tensor.zeros([3, 2, 8])
        func attend(
            _ q: Tensor, _ k: Tensor, _ v: Tensor, bias: Tensor? = nil, rows: [Int] = [0, 4], keys: [Int] = [0, 4],
            causal: Bool = true
        ) {
            #expect(throws: PEFTError.self) {
                try withTorchErrors {
                    Functions.packedAttention(
                        q, k, v, bias: bias, queryOffsets: rows, keyOffsets: keys, causal: causal, scale: 1)
                }
            }
        }
        attend(x, x, short)
        attend(x, short, short, keys: [0, 3])
        attend(x, x, x, rows: [0, 3], keys: [0, 4])
        attend(x, x, x, rows: [0, 5, 4], keys: [0, 5, 4])
        attend(x, .zeros([4, 2, 7]), .zeros([4, 2, 7]))
        attend(x, x, x, bias: .zeros([2, 4, 3]))
        attend(x, x, x, bias: .zeros([1, 4, 4]))
    }

    private static let heads = 2
    private static let seed: UInt64 = 1_234

    private func inputs(_ item: Case) -> [Tensor] {
        let (queries, keys) = (item.queries.last ?? 0, item.keys.last ?? 0)
        func lengths(_ offsets: [Int]) -> [Int] { zip(offsets.dropFirst(), offsets).map { $0 - $1 } }
        func longest(_ offsets: [Int]) -> Int { lengths(offsets).max() ?? 0 }
        let tensors = [
            random(queries, Self.heads, 3, seed: 1), random(keys, item.keyHeads, 3, seed: 2),
            random(keys, item.keyHeads, 3, seed: 3),
        ]
        let prefix: Int = zip(lengths(item.keys), lengths(item.queries)).map { $0 - $1 }.max() ?? 0
        let bias = random(Self.heads, longest(item.queries), prefix + longest(item.queries), seed: 4)
        return item.hasBias ? tensors + [bias] : tensors
    }

    private func packed(_ item: Case, _ x: [Tensor]) -> Tensor {
        Functions.packedAttention(
            x[0], x[1], x[2], bias: item.hasBias ? x[3] : nil, queryOffsets: item.queries, keyOffsets: item.keys,
            causal: item.causal, window: item.window, scale: item.scale, softcap: item.softcap, dropout: item.dropout,
            seed: Self.seed)
    }

    private func reference(_ item: Case, _ x: [Tensor]) -> Tensor {
        let rows = (0..<(item.queries.count - 1)).map { row -> Tensor in
            let (queries, keys) = (item.queries[row]..<item.queries[row + 1], item.keys[row]..<item.keys[row + 1])
            func head(_ x: Tensor, _ range: Range<Int>) -> Tensor {
                let part = x.narrowed(axis: 0, range).permuted(1, 0, 2)
                guard part.dim(0) < Self.heads else { return part }
                return part.expanded([Self.heads, range.count, 3])
            }
            let (q, k, v) = (head(x[0], queries), head(x[1], keys), head(x[2], keys))
            let prefix = keys.count - queries.count
            var scores = q.matmul(k.T) * item.scale
            if let cap = item.softcap { scores = (scores / cap).tanh() * cap }
            if item.hasBias {
                let skipped = x[3].dim(2) - x[3].dim(1) - prefix
                scores =
                    scores
                    + x[3].narrowed(axis: 1, 0..<queries.count).narrowed(axis: 2, skipped..<(skipped + keys.count))
            }
            if item.causal || item.window != nil {
                let hidden = (0..<queries.count).flatMap { i in
                    (0..<keys.count).map { j in
                        let distance = prefix + i - j
                        let isFuture = item.causal && distance < 0
                        return isFuture || abs(distance) >= item.window ?? .max ? -Double.infinity : 0
                    }
                }
                scores = scores + Tensor(hidden, shape: [queries.count, keys.count])
            }
            let weights = Functions.dropout(
                scores.softmax(), probability: item.dropout,
                seed: Self.seed &+ 0x9E37_79B9_7F4A_7C15 &* UInt64(row + 1))
            return weights.matmul(v).permuted(1, 0, 2)
        }
        return Tensor.concatenated(rows)
    }

    @Test(arguments: cases) func equalsAttentionRowByRow(item: Case) throws {
        try expectSame(inputs(item), { packed(item, $0) }, { reference(item, $0) })
    }

    @Test(arguments: cases) func gradientsAgreeWithFiniteDifferences(item: Case) throws {
        try expectGradients(inputs(item)) { packed(item, $0) }
    }

    /// A row's result has nothing to do with the other rows.
    @Test func rowsDoNotSeeEachOther() {
        let item = Self.cases[1]
        let before = inputs(item)
        let after = before.map { $0.clone() }
        for tensor in after { tensor.narrowed(axis: 0, 0..<3).fill(9) }
        let (x, y) = (packed(item, before), packed(item, after))
        #expect(x.narrowed(axis: 0, 3..<9).isIdentical(to: y.narrowed(axis: 0, 3..<9)))
        #expect(!x.isIdentical(to: y))
    }

    @Test func paddedAttentionEqualsItsDefinition() throws {
        let inputs = [random(2, 2, 3, 4, seed: 1), random(2, 2, 5, 4, seed: 2), random(2, 2, 5, 4, seed: 3)]
        let mask = Tensor([0, 0, 0, 0, 0, 0, 0, 0, -Double.infinity, -Double.infinity], shape: [2, 1, 1, 5])
        try expectSame(
            inputs, { Functions.attention($0[0], $0[1], $0[2], mask: mask, scale: 0.3) },
            { ($0[0].matmul($0[1].T) * 0.3 + mask).softmax().matmul($0[2]) })
        try expectSame(
            inputs, { Functions.attention($0[0], $0[1], $0[2], mask: mask, scale: 0.3, softcap: 0.2) },
            { (($0[0].matmul($0[1].T) * 1.5).tanh() * 0.2 + mask).softmax().matmul($0[2]) })
    }
}
