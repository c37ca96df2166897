import Support
import Testing

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
    ]

    private static let heads = 2
    private static let seed: UInt64 = 1_234

    private func inputs(_ item: Case) -> [Tensor] {
        let (queries, keys) = (item.queries.last ?? 0, item.keys.last ?? 0)
        func longest(_ offsets: [Int]) -> Int { zip(offsets.dropFirst(), offsets).map { $0 - $1 }.max() ?? 0 }
        let tensors = [
            random(queries, Self.heads, 3, seed: 1), random(keys, Self.heads, 3, seed: 2),
            random(keys, Self.heads, 3, seed: 3),
        ]
        let bias = random(Self.heads, longest(item.queries), longest(item.keys), seed: 4)
        return item.hasBias ? tensors + [bias] : tensors
    }

    private func packed(_ item: Case, _ x: [Tensor]) -> Tensor {
        Functions.packedAttention(
            x[0], x[1], x[2], bias: item.hasBias ? x[3] : nil, queryOffsets: item.queries, keyOffsets: item.keys,
            causal: item.causal, scale: item.scale, dropout: item.dropout, seed: Self.seed)
    }

    private func reference(_ item: Case, _ x: [Tensor]) -> Tensor {
        let rows = (0..<(item.queries.count - 1)).map { row -> Tensor in
            let (queries, keys) = (item.queries[row]..<item.queries[row + 1], item.keys[row]..<item.keys[row + 1])
            let q = x[0].narrowed(axis: 0, queries).permuted(1, 0, 2)
            let k = x[1].narrowed(axis: 0, keys).permuted(1, 0, 2)
            let v = x[2].narrowed(axis: 0, keys).permuted(1, 0, 2)
            var scores = q.matmul(k.T) * item.scale
            if item.hasBias {
                scores = scores + x[3].narrowed(axis: 1, 0..<queries.count).narrowed(axis: 2, 0..<keys.count)
            }
            if item.causal {
                let future = (0..<queries.count).flatMap { i in
                    (0..<keys.count).map { $0 > i ? -Double.infinity : 0 }
                }
                scores = scores + Tensor(future, shape: [queries.count, keys.count])
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
    }
}
