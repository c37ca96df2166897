import PEFTSupport
import Testing
import Torch
import TorchTestSupport

@testable import TorchNN

/// The grouped matmul of experts and its gradients against one projection per assignment.
@Suite struct ExpertLinearTests {
    private let experts = 4, outputs = 6, inputs = 64, tokens = 7, choices = 2
    /// Expert 2 has no token.
    private let chosen = [0, 3, 3, 1, 1, 0, 3, 0, 0, 1, 1, 3, 3, 0]

    private func random(_ shape: [Int], _ seed: UInt64) -> Tensor {
        let tensor = Tensor.empty(shape)
        tensor.fillNormal(seed: seed)
        return tensor
    }

    private var routing: ExpertRouting {
        ExpertRouting(Tensor(chosen).reshaped(tokens, choices), experts: experts)
    }

    /// Outputs in the order of assignments, projection by projection.
    private func plain(_ x: Tensor, _ weight: Tensor, bias: Tensor, a: Tensor, b: Tensor, scale: Double) -> Tensor {
        func own(_ t: Tensor, _ expert: Int) -> Tensor {
            t.narrowed(axis: 0, expert..<expert + 1).reshaped(Array(t.shape.dropFirst()))
        }
        return Tensor.concatenated(
            chosen.enumerated().map { place, expert in
                let row = x.narrowed(axis: 0, place / choices..<place / choices + 1)
                let delta = own(b, expert).matmul(own(a, expert)) * scale
                return row.matmul((own(weight, expert) + delta).T) + own(bias, expert)
            })
    }

    @Test func routingIsStableAndCounts() throws {
        let routing = routing
        #expect(routing.offsets.array(Int64.self) == [0, 5, 9, 9, 14])
        #expect(routing.counts.array(Int64.self) == [5, 4, 0, 5])
        #expect(routing.order.array(Int64.self) == [0, 5, 7, 8, 13, 3, 4, 9, 10, 1, 2, 6, 11, 12])
        #expect(routing.tokens.array(Int64.self) == [0, 2, 3, 4, 6, 1, 2, 4, 5, 0, 1, 3, 5, 6])
    }

    @Test(arguments: [false, true]) func valuesAndGradientsEqualPlainProjections(isTransposed: Bool) throws {
        let shape = isTransposed ? [experts, inputs, outputs] : [experts, outputs, inputs]
        let tensors = [
            random([tokens, inputs], 1), random(shape, 2), random([experts, outputs], 3),
            random([experts, 3, inputs], 4), random([experts, outputs, 3], 5), random([tokens, choices], 6),
        ]
        func gradients(_ compute: ([Tensor]) -> Tensor) throws -> (Tensor, [Tensor]) {
            let own = tensors.map { $0.clone() }
            for tensor in own { tensor.requiresGrad = true }
            return try withTorchErrors {
                let y = compute(own)
                (y * y).sum().backward()
                return (y.detached(), try own.map { try #require($0.grad) })
            }
        }
        let routing = routing
        let grouped = try gradients { t in
            let y = Functions.expertLinear(
                t[0], ExpertMatrices(.dense(t[1], isTransposed: isTransposed), experts: experts), bias: t[2],
                update: (t[3], t[4], 0.7), routing: routing, isOrdered: false)
            return Functions.expertSum(y, weights: t[5], routing: routing)
        }
        let single = try gradients { t in
            let weight = isTransposed ? t[1].transposed() : t[1]
            let y = plain(t[0], weight, bias: t[2], a: t[3], b: t[4], scale: 0.7)
            return (y.reshaped(tokens, choices, outputs) * t[5].unsqueezed(2)).sum(axes: [1])
        }
        #expect(relativeDifference(grouped.0, single.0) < 1e-5)
        for (index, (a, b)) in zip(grouped.1, single.1).enumerated() {
            #expect(relativeDifference(a, b) < 1e-5, "tensor \(index)")
        }
    }

    /// Rows in the order of experts, without a gathering.
    @Test func orderedRowsAreTakenAsTheyAre() throws {
        let (routing, weight) = (routing, random([experts, outputs, inputs], 2))
        let x = random([tokens, inputs], 1)
        let matrices = ExpertMatrices(.dense(weight, isTransposed: false), experts: experts)
        try withTorchErrors {
            let gathered = Functions.expertLinear(x, matrices, routing: routing, isOrdered: false)
            let ordered = Functions.expertLinear(
                x.selecting(routing.tokens), matrices, routing: routing, isOrdered: true)
            #expect(gathered.isIdentical(to: ordered))
        }
        #expect(throws: PEFTError.self) {
            try withTorchErrors {
                _ = Functions.expertLinear(x, matrices, routing: routing, isOrdered: true)
            }
        }
    }

    @Test(arguments: ["nf4", "int8", "bf16"]) func packedExpertsComputeAsDenseOnes(name: String) throws {
        let conversion = try #require(try WeightFormat(name).conversion)
        let weight = random([experts * outputs, inputs], 2)
        let stored = try #require(StoredExperts(conversion.weight(DenseWeight(weight)), experts: experts))
        #expect(stored.formatName == name && stored.outputs == outputs && stored.inputs == inputs)
        let (routing, x) = (routing, random([tokens, inputs], 1))
        func run(_ matrices: ExpertMatrices) throws -> (Tensor, Tensor) {
            let own = x.clone()
            own.requiresGrad = true
            return try withTorchErrors {
                let y = Functions.expertLinear(own, matrices, routing: routing, isOrdered: false)
                (y * y).sum().backward()
                return (y.detached(), try #require(own.grad))
            }
        }
        let packed = try run(stored.matrices)
        let dense = try run(
            ExpertMatrices(.dense(stored.dense(as: .float32), isTransposed: false), experts: experts))
        #expect(relativeDifference(packed.0, dense.0) < 1e-5)
        #expect(relativeDifference(packed.1, dense.1) < 1e-5)
    }

    /// The values of MXFP4's codes, in plain loops over the file's bytes.
    @Test func mxfp4StaysPacked() throws {
        let weight = try MXFP4Experts(experts: 2, outputs: 3, inputs: 64)
        let bytes = (0..<2 * 3 * 2 * 16).map { UInt8(truncatingIfNeeded: $0 &* 73 &+ 11) }
        let exponents = (0..<2 * 3 * 2).map { UInt8(124 + $0 % 5) }
        weight.parameters[0].parameter.tensor = Tensor(bytes).reshaped(2, 3, 2, 16)
        weight.parameters[1].parameter.tensor = Tensor(exponents).reshaped(2, 3, 2)
        let values: [Float] = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6]
        var expected: [Float] = []
        for block in 0..<12 {
            let scale = Float(sign: .plus, exponent: Int(exponents[block]) - 127, significand: 1)
            for byte in bytes[block * 16..<(block + 1) * 16] {
                expected += [values[Int(byte & 15)] * scale, values[Int(byte >> 4)] * scale]
            }
        }
        let dense = try withTorchErrors { weight.dense(as: .float32) }
        #expect(dense.array(Float.self) == expected)
        #expect(weight.precision == .quantized && weight.formatName == "mxfp4")

        let site = ExpertLinear(64, 3, experts: 2)
        site.weight = weight
        let routing = ExpertRouting(Tensor([0, 1, 1, 0]).reshaped(4, 1), experts: 2)
        let x = random([4, 64], 9)
        let (packed, plain) = try withTorchErrors {
            (
                site(x, routing: routing, isOrdered: false),
                Functions.expertLinear(
                    x, ExpertMatrices(.dense(dense, isTransposed: false), experts: 2), routing: routing,
                    isOrdered: false)
            )
        }
        #expect(relativeDifference(packed, plain) < 1e-5)
        #expect(throws: PEFTError.self) { try MXFP4Experts(experts: 2, outputs: 3, inputs: 48) }
        #expect(throws: PEFTError.self) { try weight.replacing(with: dense) }
    }
}
