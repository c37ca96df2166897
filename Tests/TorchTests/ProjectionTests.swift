import Testing
import TorchTestSupport

@testable import Torch

/// Several projections of one input as one node against what each makes alone.
@Suite struct ProjectionTests {
    /// How a projection is made up; ranks of 0 have no update.
    struct Part: Sendable {
        var outputs: Int
        var rank: Int
        var hasBias = false
        var trainsWeight = false
        var form: String?
        var dropout = 0.0
    }

    struct Case: Sendable, CustomTestStringConvertible {
        var parts: [Part]
        let testDescription: String
    }

    static let cases = [
        Case(parts: [Part(outputs: 48, rank: 4)], testDescription: "one"),
        Case(
            parts: [
                Part(outputs: 48, rank: 4), Part(outputs: 16, rank: 2, hasBias: true), Part(outputs: 32, rank: 3),
            ],
            testDescription: "of three, one with a bias"),
        Case(
            parts: [Part(outputs: 48, rank: 4), Part(outputs: 16, rank: 0, hasBias: true)],
            testDescription: "one of two has no update"),
        Case(
            parts: [Part(outputs: 48, rank: 0, trainsWeight: true), Part(outputs: 16, rank: 0, trainsWeight: true)],
            testDescription: "trained matrices"),
        Case(
            parts: [
                Part(outputs: 48, rank: 4, dropout: 0.3), Part(outputs: 16, rank: 2),
                Part(outputs: 8, rank: 1, dropout: 0.5),
            ],
            testDescription: "some drop inputs"),
        Case(
            parts: [
                Part(outputs: 48, rank: 4, form: "nf4"), Part(outputs: 16, rank: 2, hasBias: true, form: "int8"),
            ],
            testDescription: "stored matrices"),
        Case(
            parts: [
                Part(outputs: 48, rank: 4, form: "int4"), Part(outputs: 16, rank: 2, hasBias: true, form: "int4"),
            ],
            testDescription: "group-wise integers"),
    ]

    /// Everything that gradients reach, in a fixed order: x, then of each part the trained W, bias, a and b.
    private struct Inputs {
        let item: Case
        let dtype: DType
        var leaves: [Tensor] = []
        var matrices: [Projection.Matrix?] = []

        init(_ item: Case, _ dtype: DType) throws {
            (self.item, self.dtype) = (item, dtype)
            // What narrower numbers hold is what all are made from.
            func made(_ shape: Int..., seed: UInt64) -> Tensor {
                let tensor = Tensor.empty(shape, dtype: .float64)
                tensor.copy(from: random(shape.reduce(1, *), seed: seed).reshaped(shape))
                return tensor.to(.bfloat16).to(dtype)
            }
            leaves.append(made(40, 64, seed: 1))
            for (index, part) in item.parts.enumerated() {
                let seed = 10 * UInt64(index + 1)
                if part.form == "int4" {
                    let weight = made(part.outputs, 64, seed: seed).to(.float32)
                    matrices.append(.groups(.rounding(weight, bits: 4)))
                } else if let form = part.form {
                    matrices.append(.stored(try StoredMatrixTests.matrix(form, part.outputs, 64)))
                } else {
                    let weight = made(part.outputs, 64, seed: seed)
                    matrices.append(part.trainsWeight ? nil : .dense(weight))
                    if part.trainsWeight { leaves.append(weight) }
                }
                if part.hasBias { leaves.append(made(part.outputs, seed: seed + 1)) }
                if part.rank > 0 {
                    leaves.append(made(part.rank, 64, seed: seed + 2))
                    leaves.append(made(part.outputs, part.rank, seed: seed + 3))
                }
            }
        }

        func projections(_ leaves: [Tensor]) -> (x: Tensor, list: [Projection]) {
            var rest = leaves.dropFirst()
            let list = zip(item.parts, matrices).enumerated().map { index, pair -> Projection in
                let (part, matrix) = pair
                let own = matrix ?? .dense(rest.removeFirst())
                let bias = part.hasBias ? rest.removeFirst() : nil
                guard part.rank > 0 else { return Projection(own, bias: bias) }
                let (a, b) = (rest.removeFirst(), rest.removeFirst())
                return Projection(
                    own, bias: bias,
                    update: .init(
                        a: a, b: b, scale: 0.5 * Double(index + 1), dropout: part.dropout, seed: 5 + UInt64(index)))
            }
            return (leaves[0], list)
        }

        func together(_ leaves: [Tensor]) -> Tensor {
            let (x, list) = projections(leaves)
            return .concatenated(Functions.projections(x, list), axis: 1)
        }

        func alone(_ leaves: [Tensor]) -> Tensor {
            let (x, list) = projections(leaves)
            let results = list.map { part -> Tensor in
                let plain =
                    switch part.matrix {
                    case .dense(let weight): Functions.linear(x, weight, bias: part.bias)
                    case .stored(let matrix): Functions.linear(x, matrix.dense(as: x.dtype), bias: part.bias)
                    case .groups(let matrix): Functions.linear(x, matrix.dense(as: x.dtype), bias: part.bias)
                    }
                guard let update = part.update else { return plain }
                return Functions.loraBranch(
                    plain, x: x, a: update.a, b: update.b, scale: update.scale, dropout: update.dropout,
                    seed: update.seed)
            }
            return .concatenated(results, axis: 1)
        }
    }

    @Test(arguments: cases, [DType.float64, .float32, .bfloat16])
    func togetherIsWhatEachMakesAlone(item: Case, dtype: DType) throws {
        let tolerance = dtype == .bfloat16 ? 1.5e-2 : dtype == .float32 || item.parts[0].form != nil ? 3e-6 : 1e-12
        let (narrow, wide) = (try Inputs(item, dtype), try Inputs(item, .float64))
        for isAllowed in dtype == .float32 ? [true, false] : [true] {
            try Runtime.withOtherBLAS(isAllowed) {
                for hasGradients in [true, false] {
                    let (found, expected) = try withTorchErrors {
                        hasGradients
                            ? (narrow.together(narrow.leaves), wide.alone(wide.leaves))
                            : withoutGradients { (narrow.together(narrow.leaves), wide.alone(wide.leaves)) }
                    }
                    #expect(found.dtype == dtype)
                    #expect(relativeDifference(found.to(.float64), expected) < tolerance)
                }
                let found = try gradients(narrow.leaves) { narrow.together($0).to(.float64) }
                let expected = try gradients(wide.leaves) { wide.alone($0) }
                for (number, pair) in zip(found, expected).enumerated() {
                    #expect(relativeDifference(pair.0.to(.float64), pair.1) < tolerance, "gradient \(number)")
                }
            }
        }
    }

    /// Results that nobody uses, an input that needs no gradient, and factors that are not trained.
    @Test func whatIsNotAskedForIsNotMade() throws {
        let inputs = try Inputs(Self.cases[1], .float64)
        func leaves() -> [Tensor] {
            let leaves = inputs.leaves.map { $0.detached().clone() }
            leaves[1].requiresGrad = true
            return leaves
        }
        try withTorchErrors {
            let (own, known) = (leaves(), leaves())
            let outputs = 0..<Self.cases[1].parts[0].outputs
            inputs.together(own).narrowed(axis: 1, outputs).squared().sum().backward()
            inputs.alone(known).narrowed(axis: 1, outputs).squared().sum().backward()
            let (found, expected) = (try #require(own[1].grad), try #require(known[1].grad))
            #expect(relativeDifference(found, expected) < 1e-12)
            for (number, leaf) in own.enumerated() where number != 1 {
                #expect(leaf.grad == nil, "input \(number)")
            }
            // The other two have no gradient at all.
            let (alone, same) = (leaves(), leaves())
            let (x, list) = inputs.projections(alone)
            Functions.projections(x, list)[0].squared().sum().backward()
            inputs.together(same).narrowed(axis: 1, outputs).squared().sum().backward()
            let (least, whole) = (try #require(alone[1].grad), try #require(same[1].grad))
            #expect(relativeDifference(least, whole) < 1e-12)
        }
    }

    /// Run again in the backward pass, to the bit.
    @Test func recomputationIsTheSameBits() throws {
        let inputs = try Inputs(Self.cases[4], .float32)
        func leaves() -> [Tensor] {
            inputs.leaves.enumerated().map { index, leaf in
                let own = leaf.detached().clone()
                own.requiresGrad = index > 0
                return own
            }
        }
        try withTorchErrors {
            let (plain, again) = (leaves(), leaves())
            inputs.together(plain).squared().sum().backward()
            Recomputation.run({ inputs.together(again) }, again: { _ = inputs.together(again) }).squared().sum()
                .backward()
            for (own, known) in zip(again, plain).dropFirst() {
                let (found, expected) = (try #require(own.grad), try #require(known.grad))
                #expect(found.isIdentical(to: expected))
            }
        }
    }
}
