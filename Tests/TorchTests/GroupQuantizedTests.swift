import Foundation
import Testing
import TorchTestSupport

@testable import Torch

/// Matrices of packed integers against what a program of its own made of the same bits (`make_group_fixtures.py`).
@Suite struct GroupQuantizedTests {
    private static func file() throws -> SafetensorsFile {
        try SafetensorsFile(
            #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/group-quantized.safetensors"))
    }

    private struct Case {
        let matrix: GroupQuantizedMatrix
        let weight: Tensor
        let x: Tensor
        let y: Tensor
        let upstream: Tensor
        let gradient: Tensor

        init(_ name: String) throws {
            let file = try file()
            func tensor(_ part: String) throws -> Tensor { try file.tensor("\(name).\(part)") }
            let packed = try tensor("packed")
            let weight = try tensor("weight")
            let order = file.entries["\(name).order"] == nil ? nil : try tensor("order")
            let groups = try tensor("scales").dim(0)
            matrix = GroupQuantizedMatrix(
                packed: packed, scales: try tensor("scales"), zeros: try tensor("zeros"), order: order,
                bits: packed.dim(0) * 32 / weight.dim(1), groupSize: weight.dim(1) / groups,
                zeroOffset: name == "second-format" ? 0 : 1)
            self.weight = weight
            (x, y, upstream, gradient) =
                (try tensor("x"), try tensor("y"), try tensor("upstream"), try tensor("gradient"))
        }
    }

    static let cases = [
        "bits-2", "bits-3", "bits-4", "bits-8", "one-row", "many-rows", "order", "order-3", "real-zeros",
        "second-format", "column",
    ]

    @Test(arguments: cases) func numbersAreThoseOfTheBits(name: String) throws {
        let item = try Case(name)
        for type in [DType.float32, .float64] {
            let dense = try withTorchErrors { item.matrix.dense(as: type) }
            #expect(dense.dtype == type)
            #expect(relativeDifference(dense, item.weight) < 1e-6)
        }
    }

    @Test(arguments: cases) func productsAndGradientsAreThoseOfTheNumbers(name: String) throws {
        let item = try Case(name)
        for (type, tolerance) in [(DType.float32, 2e-6), (.float64, 2e-7)] {
            let x = item.x.to(type).detached().clone()
            x.requiresGrad = true
            let y = try withTorchErrors { () -> Tensor in
                let y = item.matrix.project(x, bias: nil)
                (y * item.upstream.to(type)).sum().backward()
                return y
            }
            #expect(relativeDifference(y, item.y) < tolerance)
            #expect(relativeDifference(try #require(x.grad), item.gradient) < tolerance)
        }
        // A bias, and leading axes.
        let bias = random(item.weight.dim(0), seed: 3, dtype: .float32)
        let whole = try withTorchErrors { item.matrix.project(item.x.unsqueezed(0), bias: bias) }
        #expect(whole.shape == [1] + item.y.shape)
        #expect(relativeDifference(whole.reshaped(item.y.shape), item.y + bias) < 2e-6)
        // Half precision goes in and comes out.
        let half = try withTorchErrors { item.matrix.project(item.x.to(.bfloat16), bias: nil) }
        #expect(half.dtype == .bfloat16)
        #expect(relativeDifference(half, item.y) < 2e-2)
    }

    /// Each number of rows takes another way through the kernels, and more columns than a strip or a tile has.
    @Test(arguments: [1, 2, 3, 4, 7, 8, 9]) func everyNumberOfRowsGivesTheSame(rows: Int) throws {
        let weight = random(1032, 544, seed: 1, dtype: .float32)
        for bits in [2, 3, 4, 8] {
            let weight = bits < 4 ? weight.narrowed(axis: 0, 0..<1024).contiguous() : weight
            let matrix = GroupQuantizedMatrix.rounding(weight, bits: bits)
            let x = random(rows, 544, seed: 2, dtype: .float32)
            let expected = x.to(.float64).matmul(matrix.dense(as: .float64).T)
            #expect(relativeDifference(try withTorchErrors { matrix.project(x, bias: nil) }, expected) < 2e-6)
            let upstream = random(rows, weight.dim(0), seed: 4, dtype: .float32)
            let leaf = x.detached().clone()
            leaf.requiresGrad = true
            try withTorchErrors { (matrix.project(leaf, bias: nil) * upstream).sum().backward() }
            let gradient = upstream.to(.float64).matmul(matrix.dense(as: .float64))
            #expect(relativeDifference(try #require(leaf.grad), gradient) < 2e-6)
        }
    }

    @Test(arguments: [2, 3, 4, 8], [0, 1]) func packingKeepsTheIntegers(bits: Int, axis: Int) throws {
        let integers: [Int32] = (0..<2_048).map { Int32($0 * 37 % (1 << bits)) }
        let values = Tensor(integers, shape: [64, 32])
        let packed = try withTorchErrors { values.packed(bits: bits, axis: axis) }
        #expect(packed.dim(axis) == values.dim(axis) * bits / 32)
        #expect(try withTorchErrors { packed.unpacked(bits: bits, axis: axis) }.isIdentical(to: values))
    }

    @Test func packingIsTheFormats() throws {
        let file = try Self.file()
        for bits in [2, 3, 4, 8] {
            let packed = try file.tensor("bits-\(bits).packed")
            #expect(packed.unpacked(bits: bits, axis: 0).packed(bits: bits, axis: 0).isIdentical(to: packed))
            let zeros = try file.tensor("bits-\(bits).zeros")
            #expect(zeros.unpacked(bits: bits, axis: 1).packed(bits: bits, axis: 1).isIdentical(to: zeros))
        }
    }

    /// GPTQ's rounding equals an implementation that follows the paper's algorithm column by column.
    @Test(
        arguments: [("round-4", 4, 32), ("round-4-symmetric", 4, 32), ("round-2", 2, 32), ("round-column", 3, 160)],
        ["nearest", "gptq"])
    func roundingIsTheReferences(item: (name: String, bits: Int, group: Int), kind: String) throws {
        let file = try Self.file()
        let x = try file.tensor("round.x").to(.float64)
        let weight = try file.tensor("round.weight")
        let hessian = x.T.matmul(x) * 2
        let rounded = try withTorchErrors {
            weight.roundedInGroups(
                bits: item.bits, groupSize: item.group, isSymmetric: item.name.hasSuffix("symmetric"),
                hessian: kind == "gptq" ? hessian : nil)
        }
        let expected: (String) throws -> Tensor = { try file.tensor("\(item.name).\(kind).\($0)") }
        #expect(rounded.integers.isIdentical(to: try expected("integers").to(.int32)))
        #expect(relativeDifference(rounded.zeros, try expected("zeros")) == 0)
        #expect(relativeDifference(rounded.scales, try expected("scales")) < 1e-12)
    }

    @Test func shapesAloneAreEnoughForAPlan() throws {
        let matrix = GroupQuantizedMatrix(
            packed: .empty([8, 24], dtype: .int32, device: .meta),
            scales: .empty([2, 24], dtype: .float16, device: .meta),
            zeros: .empty([2, 3], dtype: .int32, device: .meta), bits: 4, groupSize: 32, zeroOffset: 1)
        let x = Tensor.empty([5, 64], device: .meta)
        x.requiresGrad = true
        try withTorchErrors {
            let y = matrix.project(x, bias: nil)
            #expect(y.shape == [5, 24])
            y.sum().backward()
        }
        #expect(x.grad?.shape == [5, 64])
        #expect(matrix.dense(as: .float32).shape == [24, 64])
    }

    @Test func whatDoesNotFitIsRefused() throws {
        let item = try Case("bits-4")
        func attempt(_ matrix: GroupQuantizedMatrix) { _ = matrix.project(item.x, bias: nil) }
        let own = item.matrix
        let bad = [
            GroupQuantizedMatrix(
                packed: own.packed, scales: own.scales, zeros: own.zeros, bits: 5, groupSize: 32, zeroOffset: 1),
            GroupQuantizedMatrix(
                packed: own.packed, scales: own.scales, zeros: own.zeros, bits: 4, groupSize: 16, zeroOffset: 1),
            GroupQuantizedMatrix(
                packed: own.packed, scales: own.scales, zeros: own.packed, bits: 4, groupSize: 32, zeroOffset: 1),
            GroupQuantizedMatrix(
                packed: own.packed, scales: own.scales, zeros: own.zeros,
                order: Tensor([Int32](repeating: 3, count: 96)), bits: 4, groupSize: 32, zeroOffset: 1),
        ]
        for matrix in bad { #expect(throws: (any Error).self) { try withTorchErrors { attempt(matrix) } } }
    }
}
