import Testing
import TorchTestSupport

@testable import Torch

/// The kernels for rows of fp32 and bf16 numbers against the compositions that float64 tensors take.
@Suite struct RowKernelTests {
    /// Value and gradients in fp32 and in bf16 against those of the same numbers in float64.
    private func expectWideAgreement(
        _ inputs: [Tensor], tolerance: Double = 2e-6, sourceLocation: SourceLocation = #_sourceLocation,
        _ function: ([Tensor]) -> Tensor
    ) throws {
        try expectWideAgreement(inputs, .float32, tolerance, sourceLocation, function)
        // Products are rounded once, the gradient that is given before.
        try expectWideAgreement(inputs.map { $0.to(.bfloat16) }, .bfloat16, 1.2e-2, sourceLocation, function)
    }

    private func expectWideAgreement(
        _ inputs: [Tensor], _ dtype: DType, _ tolerance: Double, _ sourceLocation: SourceLocation,
        _ function: ([Tensor]) -> Tensor
    ) throws {
        let narrow = inputs.map { $0.to(dtype) }, wide = narrow.map { $0.to(.float64) }
        let (a, b) = try withTorchErrors { withoutGradients { (function(narrow), function(wide)) } }
        #expect(a.dtype == dtype)
        #expect(relativeDifference(a.to(.float64), b) < tolerance, "value", sourceLocation: sourceLocation)
        for (number, (a, b)) in try zip(gradients(narrow, function), gradients(wide, function)).enumerated() {
            #expect(
                relativeDifference(a.to(.float64), b) < tolerance, "gradient \(number)",
                sourceLocation: sourceLocation)
        }
    }

    @Test(arguments: [3, 31, 32, 33, 768]) func rmsNorm(size: Int) throws {
        let weight = random(size, seed: 2)
        try expectWideAgreement([random(3, 5, size, seed: 1)]) { x in
            Functions.rmsNorm(x[0], weight: weight.to(x[0].dtype), epsilon: 1e-5)
        }
        try expectWideAgreement([random(3, 5, size, seed: 1)]) { x in
            Functions.rmsNorm(x[0], weight: weight.to(x[0].dtype), epsilon: 1e-5, offset: 1)
        }
        // A trained weight takes the other way in the backward pass.
        try expectWideAgreement([random(7, size, seed: 1), weight]) { x in
            Functions.rmsNorm(x[0], weight: x[1], epsilon: 1e-5)
        }
    }

    @Test(arguments: [Activation.silu, .geluTanh, .relu]) func gatedActivation(activation: Activation) throws {
        try expectWideAgreement([random(9, 37, seed: 1) * 4, random(9, 37, seed: 2)]) {
            activation.gated($0[0], $0[1])
        }
        // Far from 0, where e^x leaves the range of numbers.
        let far = Tensor([-1e4, -200, -90, -1e-30, 0, 1e-30, 90, 200, 1e4] as [Float])
        try expectWideAgreement([far, Tensor.ones([9])]) { activation.gated($0[0], $0[1]) }
    }

    @Test(arguments: [3, 4]) func rotary(pairs: Int) throws {
        let angles = random(6, pairs, seed: 3)
        try expectWideAgreement([random(6, 5, 8, seed: 1)]) { x in
            Functions.rotary(x[0], cosines: angles.cos().to(x[0].dtype), sines: angles.sin().to(x[0].dtype))
        }
    }

    /// What bf16 numbers are computed to is what fp32 makes of them, rounded.
    @Test func narrowNumbersAreRoundedOnce() throws {
        let (x, other, weight) = (
            random(5, 96, seed: 1).to(.bfloat16), random(5, 96, seed: 2).to(.bfloat16),
            random(96, seed: 3).to(.bfloat16)
        )
        try withTorchErrors {
            withoutGradients {
                for offset in [0.0, 1] {
                    let wide = Functions.rmsNorm(
                        x.to(.float32), weight: weight.to(.float32), epsilon: 1e-5, offset: offset)
                    let narrow = Functions.rmsNorm(x, weight: weight, epsilon: 1e-5, offset: offset)
                    #expect(narrow.isIdentical(to: wide.to(.bfloat16)))
                }
                let gated = Activation.silu.gated(x.to(.float32), other.to(.float32))
                #expect(Activation.silu.gated(x, other).isIdentical(to: gated.to(.bfloat16)))
            }
        }
    }

    /// Large matmuls agree with double precision whichever library computes them; shapes that aren't multiples of a tile, a
    /// weight that is stored transposed, with and without a bias.
    @Test(arguments: [(17, 5, 3), (64, 130, 65), (300, 64, 700)])
    func products(rows: Int, inputs: Int, outputs: Int) throws {
        let x = random(rows, inputs, seed: 1, dtype: .float32), bias = random(outputs, seed: 3, dtype: .float32)
        for weight in [
            random(outputs, inputs, seed: 2, dtype: .float32), random(inputs, outputs, seed: 2, dtype: .float32).T,
        ] {
            func results(_ x: Tensor, _ weight: Tensor, _ bias: Tensor) throws -> [Tensor] {
                let plain = try withTorchErrors { Functions.linear(x, weight) }
                let all = try gradients([x, weight, bias]) { Functions.linear($0[0], $0[1], bias: $0[2]) }
                let one = try gradients([x]) { Functions.linear($0[0], weight) }
                return [plain] + all + one
            }
            let exact = try results(x.to(.float64), weight.to(.float64), bias.to(.float64))
            for isAllowed in [true, false] {
                try Runtime.withOtherBLAS(isAllowed) {
                    for (number, (a, b)) in try zip(results(x, weight, bias), exact).enumerated() {
                        #expect(relativeDifference(a, b) < 2e-6, "result \(number), another library: \(isAllowed)")
                    }
                }
            }
        }
    }

    /// Tensors whose numbers stand in several places: inputs that are one row over and over, and the gradients of sums.
    @Test func broadcastTensors() throws {
        let weight = random(48, 64, seed: 1), x = random(40, 64, seed: 2)
        let (a, b) = (random(4, 64, seed: 3), random(48, 4, seed: 4))
        func update(_ x: Tensor, _ w: Tensor, _ a: Tensor, _ b: Tensor) -> Tensor {
            Functions.loraBranch(Functions.linear(x, w), x: x, a: a, b: b, scale: 0.5)
        }
        let functions: [([Tensor]) -> Tensor] = [
            { update($0[0], $0[1], $0[2], $0[3]).sum(axes: [-1]).squared() },
            { update($0[0], $0[1], $0[2], $0[3]).sum(axes: [0]).squared() },
            { update($0[0].narrowed(axis: 0, 0..<1).expanded([40, 64]), $0[1], $0[2], $0[3]) },
            { Functions.linear($0[0].narrowed(axis: 0, 0..<1).expanded([40, 64]), $0[1]).sum(axes: [0]).squared() },
        ]
        for (number, function) in functions.enumerated() {
            let inputs = [x, weight, a, b]
            let expected = try gradients(inputs, function)
            let found = try gradients(inputs.map { $0.to(.float32) }) { function($0).to(.float64) }
            for (own, known) in zip(found, expected) {
                #expect(relativeDifference(own.to(.float64), known) < 5e-6, "function \(number)")
            }
        }
    }
}
