import Foundation
import PEFTSupport
import Testing
import TorchTestSupport

@testable import Torch

/// The fused operations against compositions of plain ones, and against finite differences.
@Suite struct KernelTests {
    @Test func rmsNorm() throws {
        let inputs = [random(2, 3, 5, seed: 1), random(5, seed: 2)]
        func fused(_ x: [Tensor]) -> Tensor { Functions.rmsNorm(x[0], weight: x[1], epsilon: 0.01) }
        try expectSame(inputs, fused) { x in
            x[0] * (x[0].squared().mean(axes: [-1], keep: true) + 0.01).rsqrt() * x[1]
        }
        try expectGradients(inputs, fused)
        // Half precision: the statistics are those of fp32, only the result is rounded.
        let wide = random(4, 64, seed: 3, dtype: .float32) * 100
        let half = Functions.rmsNorm(wide.to(.float16), weight: Tensor.ones([64], dtype: .float16), epsilon: 1e-6)
        #expect(half.dtype == .float16)
        let exact = Functions.rmsNorm(wide.to(.float16).to(.float32), weight: .ones([64]), epsilon: 1e-6)
        #expect(relativeDifference(half, exact) < 1e-3)
    }

    /// Gemma's norm scales by 1 + w, and rounds last.
    @Test func rmsNormAroundOne() throws {
        let inputs = [random(2, 3, 5, seed: 1), random(5, seed: 2)]
        func fused(_ x: [Tensor]) -> Tensor { Functions.rmsNorm(x[0], weight: x[1], epsilon: 0.01, offset: 1) }
        try expectSame(inputs, fused) { x in
            x[0] * (x[0].squared().mean(axes: [-1], keep: true) + 0.01).rsqrt() * (x[1] + 1)
        }
        try expectGradients(inputs, fused)
        let (x, w) = (inputs[0].to(.bfloat16), inputs[1].to(.bfloat16))
        let half = Functions.rmsNorm(x, weight: w, epsilon: 0.01, offset: 1)
        let exact = Functions.rmsNorm(x.to(.float32), weight: w.to(.float32), epsilon: 0.01, offset: 1)
        #expect(half.isIdentical(to: exact.to(.bfloat16)))
    }

    /// The first 2p components turn, the others stay; parts of a wider tensor are taken as they lie.
    @Test(arguments: [1, 2, 3]) func rotary(pairs: Int) throws {
        let angles = random(4, pairs, seed: 3)
        let (cosines, sines) = (angles.cos(), angles.sin())
        func fused(_ x: [Tensor]) -> Tensor {
            Functions.rotary(x[0].narrowed(axis: 1, 1..<3), cosines: cosines, sines: sines)
        }
        let inputs = [random(4, 5, 7, seed: 1)]
        try expectSame(inputs, fused) { x in
            let part = x[0].narrowed(axis: 1, 1..<3)
            let a = part.narrowed(axis: 2, 0..<pairs), b = part.narrowed(axis: 2, pairs..<(2 * pairs))
            let (c, s) = (cosines.unsqueezed(1), sines.unsqueezed(1))
            return Tensor.concatenated(
                [a * c - b * s, b * c + a * s, part.narrowed(axis: 2, (2 * pairs)..<7)], axis: 2)
        }
        try expectGradients(inputs, fused)
    }

    /// Of interleaved pairs, neighboring components turn.
    @Test(arguments: [1, 2, 3]) func interleavedRotary(pairs: Int) throws {
        let angles = random(4, pairs, seed: 3)
        func fused(_ x: [Tensor]) -> Tensor {
            Functions.rotary(
                x[0], cosines: angles.cos().to(x[0].dtype), sines: angles.sin().to(x[0].dtype), interleaved: true)
        }
        let inputs = [random(4, 2, 7, seed: 1)]
        func plain(_ x: [Tensor]) -> Tensor {
            let columns = (0..<7).map { x[0].narrowed(axis: 2, $0..<($0 + 1)) }
            let turned = (0..<pairs).flatMap { pair -> [Tensor] in
                let angle = angles.narrowed(axis: 1, pair..<(pair + 1)).unsqueezed(1)
                let (a, b, c, s) = (columns[2 * pair], columns[2 * pair + 1], angle.cos(), angle.sin())
                return [a * c - b * s, b * c + a * s]
            }
            return .concatenated(turned + columns[(2 * pairs)...], axis: 2)
        }
        try expectSame(inputs, fused, plain)
        try expectGradients(inputs, fused)
        // The kernels of fp32 and bf16.
        for (type, tolerance) in [(DType.float32, 1e-6), (.bfloat16, 8e-3)] {
            let own = fused(inputs.map { $0.to(type) })
            #expect(own.dtype == type && relativeDifference(own.to(.float64), plain(inputs)) < tolerance)
        }
    }

    @Test func partsHaveOneGradient() throws {
        let inputs = [random(3, 6, seed: 1)]
        try expectSame(
            inputs,
            { x in
                let parts = x[0].split(axis: -1, [1, 3, 2])
                return Tensor.concatenated([parts[2] * 2, parts[1].squared(), parts[0]], axis: 1)
            },
            { x in
                Tensor.concatenated(
                    [
                        x[0].narrowed(axis: 1, 4..<6) * 2, x[0].narrowed(axis: 1, 1..<4).squared(),
                        x[0].narrowed(axis: 1, 0..<1),
                    ], axis: 1)
            })
    }

    @Test func layerNorm() throws {
        let inputs = [random(3, 6, seed: 1), random(6, seed: 2), random(6, seed: 3)]
        try expectSame(
            inputs, { Functions.layerNorm($0[0], weight: $0[1], bias: $0[2], epsilon: 0.1) },
            { x in
                let centered = x[0] - x[0].mean(axes: [-1], keep: true)
                let deviation = (centered.squared().mean(axes: [-1], keep: true) + 0.1).sqrt()
                return centered / deviation * x[1] + x[2]
            })
    }

    @Test(arguments: [Activation.relu, .gelu, .geluTanh, .silu]) func gatedActivation(kind: Activation) throws {
        let inputs = [random(3, 4, seed: 1), random(3, 4, seed: 2)]
        try expectSame(inputs, { kind.gated($0[0], $0[1]) }, { kind($0[0]) * $0[1] })
        try expectGradients(inputs) { kind.gated($0[0], $0[1]) }
    }

    @Test func activationsAreTheirFormulas() {
        let x = Tensor(stride(from: -4.0, through: 4, by: 0.25).map { $0 })
        let values: [Double] = x.array()
        let formulas: [(Activation, (Double) -> Double)] = [
            (.relu, { max(0, $0) }), (.gelu, { 0.5 * $0 * (1 + erf($0 / 2.0.squareRoot())) }),
            (.geluTanh, { 0.5 * $0 * (1 + tanh((2 / Double.pi).squareRoot() * ($0 + 0.044715 * $0 * $0 * $0))) }),
            (.silu, { $0 / (1 + exp(-$0)) }),
        ]
        for (kind, formula) in formulas {
            #expect(relativeDifference(kind(x), Tensor(values.map(formula))) < 1e-12, "\(kind)")
        }
        #expect(Activation(huggingFaceName: "gelu_new") == .geluTanh)
        #expect(Activation(huggingFaceName: "gelu") == .gelu)
        #expect(Activation(huggingFaceName: "mish") == nil)
    }

    // MARK: Dropout

    /// The mask as its definition says: a mixer of 32 bits, keyed by the seed's halves.
    private func isDropped(_ index: Int, _ probability: Double, _ seed: UInt64) -> Bool {
        var x = UInt32(truncatingIfNeeded: index) ^ UInt32(truncatingIfNeeded: seed)
        x ^= x >> 16
        x = x &* 0x7feb_352d
        x ^= x >> 15
        x = x &+ UInt32(truncatingIfNeeded: seed >> 32)
        x = x &* 0x846c_a68b
        x ^= x >> 16
        return x < UInt32(probability * 4_294_967_296)
    }

    /// Large enough for several threads: each of them has to know where its part begins.
    @Test(arguments: [DType.float32, .float64]) func dropoutMaskIsAFunctionOfSeedAndPosition(dtype: DType) {
        let count = 300_007
        let x = Tensor.ones([count], dtype: dtype)
        let seed: UInt64 = 0x1234_5678_9abc_def0
        let dropped: [Double] = Functions.dropout(x, probability: 0.3, seed: seed).array()
        let scale = 1 / 0.7
        let wrong = dropped.indices.filter { index in
            abs(dropped[index] - (isDropped(index, 0.3, seed) ? 0 : scale)) > 1e-6
        }
        #expect(wrong.isEmpty, "\(wrong.prefix(3))")
        let share = Double(dropped.count { $0 == 0 }) / Double(count)
        #expect(abs(share - 0.3) < 5 * (0.21 / Double(count)).squareRoot())
    }

    @Test func dropoutMasksOfDifferentSeedsAreUnrelated() {
        let count = 100_000
        func mask(_ seed: UInt64) -> [Bool] {
            Functions.dropout(.ones([count]), probability: 0.5, seed: seed).array(Float.self).map { $0 == 0 }
        }
        let first = mask(1)
        for seed: UInt64 in [2, 3, 1 << 32, 0xffff_ffff, 1 + 0x9E37_79B9_7F4A_7C15] {
            let equal = zip(first, mask(seed)).count { $0 == $1 }
            #expect(abs(equal - count / 2) < 800, "seed \(seed)")
        }
        // Neighbors, and elements a power of two apart.
        for distance in [1, 2, 64, 1_024, 4_096] {
            let equal = zip(first, first.dropFirst(distance)).count { $0 == $1 }
            #expect(abs(equal - (count - distance) / 2) < 800, "distance \(distance)")
        }
    }

    @Test func dropoutIsTheSameForwardAndBackward() throws {
        for dtype in [DType.float32, .float64, .bfloat16] {
            let x = Tensor.ones([7, 13], dtype: dtype)
            x.requiresGrad = true
            let y = Functions.dropout(x, probability: 0.4, seed: 5)
            try withTorchErrors { y.sum().backward() }
            #expect(try #require(x.grad).isIdentical(to: y.detached()), "\(dtype)")
        }
        // Positions are those of the logical order, whatever the layout.
        let matrix = random(6, 8, seed: 3)
        #expect(
            Functions.dropout(matrix.T, probability: 0.4, seed: 5).isIdentical(
                to: Functions.dropout(matrix.T.contiguous(), probability: 0.4, seed: 5)))
        try expectGradients([random(4, 3, seed: 1)]) { Functions.dropout($0[0].T, probability: 0.4, seed: 8) }
        let all = Functions.dropout(.ones([1_000]), probability: 1, seed: 1)
        #expect(all.abs().max().item() == 0)
        let x = Tensor.ones([3])
        #expect(Functions.dropout(x, probability: 0, seed: 1) === x)
    }

    // MARK: LoRA's path

    @Test(arguments: [0.0, 0.35]) func loraBranch(dropout: Double) throws {
        let inputs = [
            random(2, 3, 5, seed: 1), random(2, 3, 4, seed: 2), random(2, 4, seed: 3), random(5, 2, seed: 4),
        ]
        // The kernel writes over y, which therefore is a result and no leaf, as a projection's output is.
        func fused(_ x: [Tensor]) -> Tensor {
            Functions.loraBranch(x[0] * 1, x: x[1], a: x[2], b: x[3], scale: 0.7, dropout: dropout, seed: 11)
        }
        try expectSame(inputs, fused) { x in
            let input = Functions.dropout(x[1], probability: dropout, seed: 11)
            return x[0] + input.matmul(x[2].T).matmul(x[3].T) * 0.7
        }
        try expectGradients(inputs, fused)
    }

    @Test func loraBranchesStack() throws {
        let inputs = [random(6, 4, seed: 1), random(5, 4, seed: 2), random(2, 4, seed: 3), random(5, 2, seed: 4)]
        func fused(_ x: [Tensor]) -> Tensor {
            let y = Functions.linear(x[0], x[1])
            let once = Functions.loraBranch(y, x: x[0], a: x[2], b: x[3], scale: 0.5)
            return Functions.loraBranch(once, x: x[0], a: x[2] * 2, b: x[3], scale: 0.25)
        }
        try expectSame(inputs, fused) { x in
            x[0].matmul(x[1].T) + x[0].matmul(x[2].T).matmul(x[3].T)
        }
    }

    /// Only what asks for a gradient gets one.
    @Test func loraBranchOfFrozenParts() throws {
        let parts = [random(3, 4, seed: 1), random(2, 4, seed: 2), random(5, 2, seed: 3)]
        for trained in 0..<3 {
            let leaves = parts.map { $0.clone() }
            leaves[trained].requiresGrad = true
            try withTorchErrors {
                Functions.loraBranch(
                    Tensor.zeros([3, 5], dtype: .float64), x: leaves[0], a: leaves[1], b: leaves[2], scale: 1
                ).squared().sum().backward()
            }
            #expect(leaves.map { $0.grad != nil } == (0..<3).map { $0 == trained })
        }
    }

    // MARK: Cross-entropy

    @Test(arguments: [0.0, 0.1]) func linearCrossEntropy(smoothing: Double) throws {
        let targets = Tensor([2, 0, 6, 6])
        let inputs = [random(4, 3, seed: 1), random(7, 3, seed: 2)]
        func fused(_ x: [Tensor]) -> Tensor {
            Functions.linearCrossEntropy(
                hidden: x[0], weight: x[1], targets: targets, scale: 0.6, labelSmoothing: smoothing)
        }
        // PyTorch: (1 − ε) of the target's and ε of the mean over the classes of −log p.
        try expectSame(inputs, fused) { x in
            let logs = (x[0].matmul(x[1].T) * 0.6).logSoftmax()
            let wanted = logs.gathering(axis: 1, targets.unsqueezed(1)).sum()
            return -(wanted * (1 - smoothing) + logs.mean(axes: [-1]).sum() * smoothing)
        }
        try expectGradients(inputs, fused)
    }

    @Test(arguments: [0.0, 0.1], [Double?.none, 0.9])
    func linearCrossEntropyWithABias(smoothing: Double, softcap: Double?) throws {
        let targets = Tensor([2, 0, 6, 6])
        let inputs = [random(4, 3, seed: 1), random(7, 3, seed: 2), random(7, seed: 3)]
        func fused(_ x: [Tensor]) -> Tensor {
            Functions.linearCrossEntropy(
                hidden: x[0], weight: x[1], bias: x[2], targets: targets, scale: 0.6, softcap: softcap,
                labelSmoothing: smoothing)
        }
        try expectSame(inputs, fused) { x in
            let scores = (x[0].matmul(x[1].T) + x[2]) * 0.6
            let logs = (softcap.map { (scores / $0).tanh() * $0 } ?? scores).logSoftmax()
            let wanted = logs.gathering(axis: 1, targets.unsqueezed(1)).sum()
            return -(wanted * (1 - smoothing) + logs.mean(axes: [-1]).sum() * smoothing)
        }
        try expectGradients(inputs, fused)
    }

    @Test(arguments: [0.0, 0.1]) func linearCrossEntropyOfCappedLogits(smoothing: Double) throws {
        let targets = Tensor([2, 0, 6, 6])
        let inputs = [random(4, 3, seed: 1), random(7, 3, seed: 2)]
        func fused(_ x: [Tensor]) -> Tensor {
            Functions.linearCrossEntropy(
                hidden: x[0], weight: x[1], targets: targets, scale: 1.4, softcap: 0.9, labelSmoothing: smoothing)
        }
        try expectSame(inputs, fused) { x in
            let logs = ((x[0].matmul(x[1].T) * (1.4 / 0.9)).tanh() * 0.9).logSoftmax()
            let wanted = logs.gathering(axis: 1, targets.unsqueezed(1)).sum()
            return -(wanted * (1 - smoothing) + logs.mean(axes: [-1]).sum() * smoothing)
        }
        try expectGradients(inputs, fused)
    }

    /// With 2¹⁸ entries 16 rows of logits exist at a time.
    @Test func linearCrossEntropyInSeveralParts() throws {
        let (rows, vocabulary) = (37, 1 << 18)
        let targets = Tensor((0..<rows).map { $0 * 7_001 })
        let inputs = [random(rows, 2, seed: 1), random(vocabulary, 2, seed: 2)]
        func loss(_ x: [Tensor]) -> Tensor {
            Functions.linearCrossEntropy(hidden: x[0], weight: x[1], targets: targets, labelSmoothing: 0.05)
        }
        try expectSame(inputs, loss) { x in
            let logs = x[0].matmul(x[1].T).logSoftmax()
            let wanted = logs.gathering(axis: 1, targets.unsqueezed(1)).sum()
            return -(wanted * 0.95 + logs.mean(axes: [-1]).sum() * 0.05)
        }
    }

    /// fp32 has a pass over rows of its own.
    @Test(arguments: [(37, 5_003), (3, 40)], [0.0, 0.1]) func linearCrossEntropyInSinglePrecision(
        shape: (rows: Int, vocabulary: Int), smoothing: Double
    ) throws {
        let targets = Tensor((0..<shape.rows).map { $0 * 131 % shape.vocabulary })
        let narrow = [random(shape.rows, 8, seed: 1) * 5, random(shape.vocabulary, 8, seed: 2)].map {
            $0.to(.float32)
        }
        func loss(_ x: [Tensor]) -> Tensor {
            Functions.linearCrossEntropy(
                hidden: x[0], weight: x[1], targets: targets, scale: 0.7, labelSmoothing: smoothing
            ).to(.float64)
        }
        let wide = narrow.map { $0.to(.float64) }
        let (result, expected) = try withTorchErrors { withoutGradients { (loss(narrow), loss(wide)) } }
        #expect(relativeDifference(result, expected) < 2e-7)
        for (a, b) in zip(try gradients(narrow, loss), try gradients(wide, loss)) {
            #expect(relativeDifference(a.to(.float64), b) < 3e-6)
        }
        for target in [-1, shape.vocabulary] {
            #expect(throws: PEFTError.self) {
                try withTorchErrors {
                    Functions.linearCrossEntropy(
                        hidden: narrow[0].narrowed(axis: 0, 0..<1), weight: narrow[1], targets: Tensor([target]))
                }
            }
        }
    }

    @Test func linearCrossEntropyStaysFinite() {
        let hidden = Tensor([1e4, -1e4] as [Float], shape: [2, 1])
        let weight = Tensor([1, -1] as [Float], shape: [2, 1])
        let loss = Functions.linearCrossEntropy(hidden: hidden, weight: weight, targets: Tensor([0, 0]))
        #expect(loss.item() == 20_000)
        let none = Functions.linearCrossEntropy(
            hidden: Tensor.zeros([0, 1]), weight: weight, targets: Tensor([Int]()))
        #expect(none.item() == 0)
    }
}
