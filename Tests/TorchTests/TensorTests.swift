import Foundation
import PEFTSupport
import Testing
import TorchTestSupport

@testable import Torch

@Suite struct TensorTests {
    @Test func elementsAndShapes() {
        let x = Tensor([1, 2, 3, 4, 5, 6] as [Float], shape: [2, 3])
        #expect(x.shape == [2, 3])
        #expect((x.rank, x.count, x.byteCount, x.dtype, x.device) == (2, 6, 24, .float32, .cpu))
        #expect((x.dim(0), x.dim(-1), x.dim(2)) == (2, 3, 0))
        #expect(x.array(Double.self) == [1, 2, 3, 4, 5, 6])
        #expect(x.T.array(Int.self) == [1, 4, 2, 5, 3, 6])
        #expect(!x.T.isContiguous && x.T.contiguous().isContiguous)
        #expect(x[1].array(Float.self) == [4, 5, 6])
        #expect(x.unsqueezed(-1).shape == [2, 3, 1] && x.unsqueezed(0).shape == [1, 2, 3])
        #expect(x.narrowed(axis: 1, 1..<3).array(Float.self) == [2, 3, 5, 6])
        #expect(x.flipped(axis: 1).array(Float.self) == [3, 2, 1, 6, 5, 4])
        #expect(Tensor.concatenated([x, x], axis: 1).shape == [2, 6])
        #expect(Tensor.arange(2, 6).array(Int.self) == [2, 3, 4, 5])
        #expect(Tensor([3.5], shape: []).item() == 3.5)
        #expect(Tensor([Float](), shape: [0, 3]).array(Float.self).isEmpty)
    }

    @Test(arguments: DType.allCases) func types(dtype: DType) {
        let x = Tensor.ones([3], dtype: dtype)
        #expect(x.dtype == dtype)
        #expect(x.byteCount == 3 * dtype.size)
        #expect(x.array(Double.self) == [1, 1, 1])
        #expect(x.withBytes { $0.count } == x.byteCount)
        #expect(DType(safetensors: dtype.safetensorsName) == dtype)
    }

    @Test func arithmetic() {
        let (a, b) = (Tensor([1.0, -2, 4]), Tensor([3.0, 5, -1]))
        #expect((a + b).array() == [4.0, 3, 3])
        #expect((a - b).array() == [-2.0, -7, 5])
        #expect((a * b).array() == [3.0, -10, -4])
        #expect((b / a).array() == [3.0, -2.5, -0.25])
        #expect((2 * a - 1).array() == [1.0, -5, 7])
        #expect((-a).abs().array() == [1.0, 2, 4])
        #expect(a.squared().sum().item() == 21)
        #expect(a.atLeast(0).array(Double.self) == [1, 0, 4])
        #expect(a.atMost(0).array(Double.self) == [0, -2, 0])
        #expect(a.less(than: b).array() == [true, true, false])
        #expect(a.selecting(where: a.greater(than: 0), else: b).array() == [1.0, 5, 4])
        #expect(a.argmax(axis: 0).item() == 2 && a.max().item() == 4)
        let top = a.topK(2)
        #expect(top.values.array() == [4.0, 1] && top.indices.array() == [2, 0])
        #expect(a.cumulativeSum(axis: 0).array() == [1.0, -1, 3])
        #expect(abs(a.softmax().sum().item() - 1) < 1e-15)
        #expect(relativeDifference(a.softmax().log(), a.logSoftmax()) < 1e-14)
        #expect((a / 0).isFinite().array() == [false, false, false])
        let matrix = random(3, 4, seed: 1)
        #expect(matrix.sum(axes: [0]).shape == [4] && matrix.mean(axes: [-1], keep: true).shape == [3, 1])
        #expect(matrix.matmul(matrix.T).shape == [3, 3])
    }

    @Test func indexing() {
        let x = Tensor((0..<12).map(Float.init), shape: [4, 3])
        #expect(x.selecting(Tensor([3, 0])).array(Float.self) == [9, 10, 11, 0, 1, 2])
        #expect(x.gathering(axis: 1, Tensor([2, 0, 1, 1], shape: [4, 1])).array(Float.self) == [2, 3, 7, 10])
        #expect(Functions.embedding(x, Tensor([1, 1], shape: [2, 1])).shape == [2, 1, 3])
        x.set(rows: Tensor([0, 3, 3]), columns: Tensor([1, 0, 2]), to: -1)
        #expect(x.array(Float.self) == [0, -1, 2, 3, 4, 5, 6, 7, 8, -1, 10, -1])
    }

    @Test func viewsShareElementsAndClonesDoNot() {
        let x = Tensor.zeros([2, 2])
        let copy = x.clone()
        x[0].fill(7)
        x.narrowed(axis: 1, 1..<2).scale(by: 2)
        #expect(x.array(Float.self) == [7, 14, 0, 0])
        #expect(copy.array(Float.self) == [0, 0, 0, 0])
        x.add(Tensor.ones([2, 2]), alpha: 0.5)
        copy.copy(from: x)
        #expect(copy.array(Float.self) == [7.5, 14.5, 0.5, 0.5])
        #expect(copy.isIdentical(to: x))
    }

    @Test func identityIsOfBitsTypesAndShapes() {
        let x = Tensor([0.0, .nan])
        #expect(x.isIdentical(to: x.clone()))
        #expect(!x.isIdentical(to: Tensor([-0.0, .nan])))
        #expect(!x.isIdentical(to: x.to(.float32)))
        #expect(!x.isIdentical(to: x.unsqueezed(0)))
        #expect(Tensor([Float]()).isIdentical(to: Tensor([Float]())))
        #expect(random(3, 4, seed: 1).T.isIdentical(to: random(3, 4, seed: 1).T.contiguous()))
        let shapeOnly = Tensor.empty([2], device: .meta)
        #expect(!shapeOnly.isIdentical(to: shapeOnly))
    }

    @Test func gradientsAccumulateUntilTheyAreDropped() throws {
        let x = Tensor([1.0, 2])
        x.requiresGrad = true
        #expect(x.grad == nil)
        for round in 1...2 {
            try withTorchErrors { x.squared().sum().backward() }
            #expect(try #require(x.grad).array() == [2.0 * Double(round), 4 * Double(round)])
        }
        x.grad = nil
        #expect(x.grad == nil)
        let untracked = withoutGradients { withoutGradients { x * 2 } }
        #expect(!untracked.requiresGrad)
        #expect(withoutGradients { withGradients(true) { x * 2 } }.requiresGrad)
        #expect((x * 2).requiresGrad && !x.detached().requiresGrad)
    }

    @Test func seedsDecideWhatIsDrawn() {
        func draw(_ seed: UInt64, _ fill: (Tensor, inout SeededRandom) -> Void) -> [Double] {
            var source = SeededRandom(seed: seed)
            let tensor = Tensor.empty([2_000], dtype: .float64)
            fill(tensor, &source)
            return tensor.array()
        }
        let uniform: (Tensor, inout SeededRandom) -> Void = { $0.fillUniform(-2, 3, from: &$1) }
        let normal: (Tensor, inout SeededRandom) -> Void = { $0.fillNormal(mean: 5, deviation: 2, from: &$1) }
        for fill in [uniform, normal] {
            #expect(draw(1, fill) == draw(1, fill))
            #expect(draw(1, fill) != draw(2, fill))
        }
        #expect(draw(1, uniform).allSatisfy { $0 >= -2 && $0 < 3 })
        let average: Double = draw(1, uniform).reduce(0, +) / 2_000
        #expect(abs(average - 0.5) < 0.15)
        let values = draw(4, normal)
        let mean: Double = values.reduce(0, +) / 2_000
        let squares: [Double] = values.map { ($0 - mean) * ($0 - mean) }
        let variance: Double = squares.reduce(0, +) / 2_000
        #expect(abs(mean - 5) < 0.2 && abs(variance.squareRoot() - 2) < 0.15)
        // The source moves on, and a trained tensor can be filled.
        var source = SeededRandom(seed: 1)
        let (a, b) = (Tensor.empty([8]), Tensor.empty([8]))
        b.requiresGrad = true
        a.fillNormal(from: &source)
        b.fillNormal(from: &source)
        #expect(a.array(Float.self) != b.array(Float.self))
    }

    @Test func samplingFollowsTheProbabilities() {
        var source = SeededRandom(seed: 6)
        let rows = Tensor([0, 1, 0, 0.25, 0, 0.75] as [Float], shape: [2, 3])
        var counts = [0, 0, 0]
        for _ in 0..<400 {
            let drawn: [Int] = rows.sampled(from: &source).array()
            #expect(drawn[0] == 1)
            counts[drawn[1]] += 1
        }
        #expect(counts[1] == 0 && abs(counts[0] - 100) < 45)
    }

    @Test func devicesAreParsed() throws {
        #expect(try Device("cpu") == .cpu)
        for name in ["", "gpu", "cuda:x", "cuda:-1", "cpu:0", "CPU", "meta"] {
            let error = try #require(throws: PEFTError.self) { try Device(name) }
            #expect(error.problem.contains("'\(name)'") || name.hasPrefix("cuda"))
        }
        #expect([Device.cpu, .cuda(1), .mps, .meta].map(\.description) == ["cpu", "cuda:1", "mps", "meta"])
        #if os(Linux)
            // An Apple GPU can't be reached, and that is said before the first operation.
            #expect(throws: PEFTError.self) { try Device("mps") }
        #endif
    }

    @Test func shapesWithoutElements() throws {
        let x = Tensor.empty([1_000_000, 1_000_000], device: .meta)
        #expect(x.device == .meta && x.count == 1_000_000_000_000)
        #expect(x.matmul(x).shape == [1_000_000, 1_000_000])
        #expect(throws: PEFTError.self) { try withTorchErrors { x.array(Float.self) } }
    }
}

@Suite struct TorchErrorTests {
    private let a = Tensor.zeros([2, 3])
    private let b = Tensor.zeros([2, 3])

    @Test func libtorchsMessageIsThrown() throws {
        let error = try #require(throws: PEFTError.self) { try withTorchErrors { a.matmul(b) } }
        #expect(error.problem.contains("2x3"))
        #expect(!error.problem.contains("\n") && !error.problem.contains(".cpp"))
    }

    @Test func theFirstFailureIsTheOneThatIsThrown() throws {
        struct Other: Error {}
        let error = try #require(throws: PEFTError.self) {
            try withTorchErrors {
                let wrong = a.matmul(b)
                // What follows from a failure fails too, and hides nothing.
                _ = (wrong + a).reshaped(7).sum().item()
                _ = wrong.array(Float.self)
                _ = wrong.shape
                throw Other()
            }
        }
        #expect(error.problem.contains("2x3"))
        #expect(throws: Other.self) { try withTorchErrors { throw Other() } }
    }

    @Test func scopesNest() throws {
        try withTorchErrors {
            #expect(throws: PEFTError.self) { try withTorchErrors { a.matmul(b) } }
            // The inner failure was handled there.
            #expect((a + b).shape == [2, 3])
        }
        let error = try #require(throws: PEFTError.self) {
            try withTorchErrors {
                _ = a.reshaped(5)
                try withTorchErrors { _ = a + b }
            }
        }
        #expect(error.problem.contains("'[5]'"))
    }

    @Test func laterOperationsWork() throws {
        for _ in 0..<3 {
            #expect(throws: PEFTError.self) { try withTorchErrors { a.matmul(b) } }
            #expect(try withTorchErrors { a.matmul(b.T).sum().item() } == 0)
        }
    }

    @Test func everyKindOfFailureIsCaught() throws {
        let ids = Tensor([0, 9])
        let operations: [(String, () -> Void)] = [
            ("item of many", { _ = a.item() }),
            ("copy", { a.copy(from: Tensor.zeros([3, 2])) }),
            ("too many elements", { _ = Tensor([1, 2, 3] as [Float], shape: [2, 2]) }),
            ("negative size", { _ = Tensor.empty([-1]) }),
            ("axis", { _ = a.sum(axes: [5]) }),
            ("range", { _ = a.narrowed(axis: 0, 1..<4) }),
            ("index", { _ = Functions.embedding(a, ids) }),
            ("select", { _ = a.selecting(ids) }),
            ("concatenate", { _ = Tensor.concatenated([a, Tensor.zeros([2])]) }),
            ("nothing to concatenate", { _ = Tensor.concatenated([]) }),
            ("backward of no scalar", { a.clone().backward() }),
            ("gradient of integers", { ids.requiresGrad = true }),
            ("top k", { _ = a.topK(9) }),
            ("targets", { _ = Functions.linearCrossEntropy(hidden: a, weight: b, targets: ids) }),
            ("update", { _ = Functions.loraBranch(a, x: a, a: Tensor.zeros([1, 2]), b: b, scale: 1) }),
            (
                "attention",
                {
                    _ = Functions.packedAttention(
                        Tensor.zeros([2, 1, 4]), Tensor.zeros([2, 1, 4]), Tensor.zeros([2, 1, 4]), bias: nil,
                        queryOffsets: [0, 2], keyOffsets: [0, 3], causal: false, scale: 1)
                }
            ),
            (
                "no gradient",
                {
                    OptimizerKernels.adamW(
                        [a], firstMoments: [b], secondMoments: [b], step: 1, learningRate: 1, beta1: 0.9, beta2: 0.9,
                        weightDecay: 0, epsilon: 1e-8)
                }
            ),
        ]
        for (name, operation) in operations {
            #expect(throws: PEFTError.self, "\(name)") { try withTorchErrors { operation() } }
        }
    }

    @Test func hugeTensorsAreAnErrorWithARemedy() throws {
        let error = try #require(throws: PEFTError.self) { try withTorchErrors { Tensor.empty([1 << 50]) } }
        #expect(error.problem.contains("memory") && error.remedy != nil)
    }
}
