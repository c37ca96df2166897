import Foundation
import Testing
import TorchTestSupport

@testable import Torch

/// Matrices in fewer bits, to the bit as bitsandbytes stores them (`make_stored_fixtures.py`).
@Suite struct StoredMatrixTests {
    private static func file() throws -> SafetensorsFile {
        try SafetensorsFile(
            #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/stored-matrices.safetensors"))
    }

    static let blockCases: [String] = ["nf4", "fp4"].flatMap { kind in
        [
            "plain.32", "plain.64", "plain.128", "rest.64", "even-rest.64", "zero-rest.64", "awkward.64",
            "midpoints.64",
        ]
        .map { "\(kind).\($0)" }
    }

    @Test(arguments: blockCases) func blocksAreThoseOfBitsAndBytes(name: String) throws {
        let file = try Self.file()
        let parts = name.split(separator: ".").map(String.init)
        let code = try #require(BlockCode(rawValue: parts[0]))
        let weight = try file.tensor(name + ".weight")
        let made = try withTorchErrors {
            StoredMatrix.rounding(weight, to: code, block: Int(parts[2]) ?? 0, isDouble: false)
        }
        #expect(code.table.isIdentical(to: try file.tensor(parts[0] + ".table")))
        #expect(try #require(made.scales).isIdentical(to: try file.tensor(name + ".scales")))
        #expect(made.codes.isIdentical(to: try file.tensor(name + ".codes")))
        // An FP4 of zero may be the negative zero there.
        let dense = try withTorchErrors { made.dense(as: .float32) }
        #expect(dense.array(Float.self) == (try file.tensor(name + ".dense")).array(Float.self))
    }

    @Test(arguments: ["many", "few", "equal"]) func nestedScalesAreThoseOfBitsAndBytes(name: String) throws {
        let (file, key) = (try Self.file(), "double.\(name).32")
        let weight = try file.tensor(key + ".weight").to(.float32)
        let made = try withTorchErrors { StoredMatrix.rounding(weight, to: .nf4, block: 32, isDouble: true) }
        let nested = try #require(made.nested)
        #expect(nested.table.isIdentical(to: try file.tensor(key + ".map")))
        #expect(Float(nested.offset) == (try file.tensor(key + ".offset")).array(Float.self)[0])
        #expect(nested.scales.isIdentical(to: try file.tensor(key + ".nested")))
        #expect(try #require(made.scales).isIdentical(to: try file.tensor(key + ".scales")))
        #expect(made.codes.isIdentical(to: try file.tensor(key + ".codes")))
        let dense = try withTorchErrors { made.dense(as: .float32) }
        #expect(dense.to(.float16).isIdentical(to: try file.tensor(key + ".dense")))
        #expect(
            Array(dense.array(Float.self).prefix(2 * weight.dim(1)))
                == (try file.tensor(key + ".first")).array(Float.self))
    }

    @Test func rowsAreThoseOfBitsAndBytes() throws {
        let file = try Self.file()
        let made = try withTorchErrors { StoredMatrix.roundingRows(try file.tensor("int8.weight")) }
        #expect(made.codes.isIdentical(to: try file.tensor("int8.codes")))
        #expect(try #require(made.scales).isIdentical(to: try file.tensor("int8.scales")))
    }

    /// A matrix in each form: sizes that the fast kernels take, and sizes that they don't.
    static let forms = ["nf4", "fp4", "nf4-double", "nf4-32", "int8", "bfloat16", "float16"]

    static func matrix(_ form: String, _ outputs: Int, _ inputs: Int) throws -> StoredMatrix {
        let weight = random(outputs, inputs, seed: 3, dtype: .float32) * 0.3
        return switch form {
        case "nf4", "fp4":
            .rounding(weight, to: form == "nf4" ? .nf4 : .fp4, block: 64, isDouble: false)
        case "nf4-double": .rounding(weight, to: .nf4, block: 64, isDouble: true)
        case "nf4-32": .rounding(weight, to: .nf4, block: 32, isDouble: false)
        case "int8": .roundingRows(weight)
        default:
            StoredMatrix(
                .floats, codes: weight.to(try #require(DType(rawValue: form))), outputs: outputs, inputs: inputs)
        }
    }

    @Test(arguments: forms, [(37, 128), (5, 33), (400, 704)])
    func productsAndGradientsAreThoseOfTheNumbers(form: String, shape: (Int, Int)) throws {
        let (outputs, inputs) = shape
        try withTorchErrors {
            let matrix = try Self.matrix(form, outputs, inputs)
            let dense = matrix.dense(as: .float64)
            #expect(dense.shape == [outputs, inputs])
            let bias = random(outputs, seed: 4, dtype: .float32)
            for rows in [1, 2, 3, 5, 8, 9, 20] {
                for type in [DType.float32, .float64] {
                    let x = random(rows, inputs, seed: 5, dtype: .float32).to(type).detached().clone()
                    let upstream = random(rows, outputs, seed: 6, dtype: .float32)
                    let (known, own) = (x.to(.float64).detached().clone(), bias.to(type).detached().clone())
                    for tensor in [x, known, own] { tensor.requiresGrad = true }
                    let y = matrix.project(x, bias: own)
                    let expected = Functions.linear(known, dense, bias: bias.to(.float64))
                    #expect(y.dtype == type)
                    #expect(relativeDifference(y.to(.float64), expected) < (type == .float32 ? 2e-6 : 2e-7))
                    (y * upstream.to(type)).sum().backward()
                    (expected * upstream.to(.float64)).sum().backward()
                    let (gradient, reference) = (try #require(x.grad), try #require(known.grad))
                    #expect(relativeDifference(gradient.to(.float64), reference) < 3e-6)
                    #expect(
                        relativeDifference(try #require(own.grad), upstream.sum(axes: [0])) < 1e-6)
                }
            }
        }
    }

    /// As a table of vectors.
    @Test(arguments: forms, [(37, 128), (5, 33), (400, 704)])
    func rowsAreThoseOfTheNumbers(form: String, shape: (Int, Int)) throws {
        try withTorchErrors {
            let matrix = try Self.matrix(form, shape.0, shape.1)
            let ids = Tensor([4, 0, 3, 4, 1, 2] as [Int64], shape: [2, 3])
            for type in [DType.float32, .bfloat16] {
                let rows = matrix.rows(ids, as: type)
                let expected = Functions.embedding(matrix.dense(as: .float32), ids).to(type)
                #expect(rows.shape == [2, 3, shape.1])
                #expect(rows.isIdentical(to: expected))
            }
        }
        for id in [-1, shape.0] {
            #expect(throws: (any Error).self) {
                try withTorchErrors { try Self.matrix(form, shape.0, shape.1).rows(Tensor([id]), as: .float32) }
            }
        }
    }

    /// As an output layer: the loss and its gradient over one and several chunks of rows.
    @Test(arguments: forms, [(20, 300, 64, 0.0, nil), (300, 40_000, 32, 0.1, 3.0)])
    func crossEntropyIsThatOfTheNumbers(
        form: String, example: (rows: Int, words: Int, size: Int, smoothing: Double, softcap: Double?)
    ) throws {
        try withTorchErrors {
            let matrix = try Self.matrix(form, example.words, example.size)
            let targets = Tensor((0..<example.rows).map { $0 * 31 % example.words })
            let x = random(example.rows, example.size, seed: 8, dtype: .float32)
            let known = x.clone()
            let bias = random(example.words, seed: 9, dtype: .float32)
            let knownBias = bias.clone()
            for tensor in [x, known, bias, knownBias] { tensor.requiresGrad = true }
            let loss = matrix.crossEntropy(
                hidden: x, bias: bias, targets: targets, scale: 0.5, softcap: example.softcap,
                labelSmoothing: example.smoothing)
            let expected = Functions.linearCrossEntropy(
                hidden: known, weight: matrix.dense(as: .float32), bias: knownBias, targets: targets, scale: 0.5,
                softcap: example.softcap, labelSmoothing: example.smoothing)
            #expect(abs(loss.item() - expected.item()) < 1e-6 * expected.item())
            (loss * 2.0).backward()
            (expected * 2.0).backward()
            #expect(try relativeDifference(#require(x.grad), #require(known.grad)) < 1e-5)
            #expect(try relativeDifference(#require(bias.grad), #require(knownBias.grad)) < 1e-5)
        }
    }

    /// The kernels for 512-bit vectors, where the processor has them, and those without.
    @Test(arguments: ["nf4", "fp4", "nf4-double", "int8"], [64, 320])
    func widerVectorsMakeTheSame(form: String, inputs: Int) throws {
        try withTorchErrors {
            try withoutGradients {
                let matrix = try Self.matrix(form, 37, inputs)
                for rows in 1...8 {
                    let x = random(rows, inputs, seed: 5, dtype: .float32)
                    let expected = Functions.linear(x.to(.float64), matrix.dense(as: .float64))
                    let wide = matrix.project(x, bias: nil)
                    let narrow = Runtime.withoutWideVectors { matrix.project(x, bias: nil) }
                    #expect(relativeDifference(wide.to(.float64), expected) < 2e-6)
                    #expect(relativeDifference(narrow.to(.float64), expected) < 2e-6)
                }
            }
        }
    }

    /// int8: rows of nothing, of one number among zeros, of numbers of very different sizes, of such as have
    /// no inverse, and of what is no number. (The scale comes after the sum, which must not overflow before.)
    @Test func int8TakesAllNumbers() throws {
        try withTorchErrors {
            try withoutGradients {
                let matrix = try Self.matrix("int8", 21, 192)
                let dense = matrix.dense(as: .float64)
                func row(_ value: (Int) -> Float) -> Tensor { Tensor((0..<192).map(value), shape: [1, 192]) }
                for x in [
                    row { _ in 0 }, row { $0 == 77 ? -3 : 0 }, row { $0 % 2 == 0 ? 1e4 : 1e-3 * Float($0) },
                    row { _ in 100 * .leastNonzeroMagnitude }, row { Float($0 - 96) * 3e32 },
                ] {
                    let difference =
                        (matrix.project(x, bias: nil).to(.float64) - Functions.linear(x.to(.float64), dense))
                    // What is rounded off is a share of what is added up.
                    let bound = Functions.linear(x.to(.float64).abs(), dense.abs()).max().item() * 1e-6
                    #expect(difference.abs().max().item() <= max(bound, Double(Float.leastNonzeroMagnitude)))
                }
                for bad in [Float.nan, .infinity] {
                    let sums: [Float] = matrix.project(row { $0 == 5 ? bad : 1 }, bias: nil).array()
                    #expect(sums.allSatisfy { !$0.isFinite })
                }
            }
        }
    }

    @Test func shapesAreKnownWithoutNumbers() throws {
        let matrix = StoredMatrix(
            .blocks, codes: .empty([64, 1], dtype: .uint8, device: .meta), scales: .empty([2], device: .meta),
            table: .empty([16], device: .meta), outputs: 2, inputs: 64)
        let y = try withTorchErrors { matrix.project(.empty([3, 5, 64], device: .meta), bias: nil) }
        #expect(y.shape == [3, 5, 2])
        #expect(try withTorchErrors { matrix.dense(as: .float32) }.shape == [2, 64])
        let ids = Tensor.empty([7], dtype: .int64, device: .meta)
        #expect(try withTorchErrors { matrix.rows(ids, as: .float32) }.shape == [7, 64])
    }

    @Test func partsThatDontFitAreRefused() throws {
        let matrix = StoredMatrix.rounding(.ones([4, 64]), to: .nf4, block: 64, isDouble: false)
        let wrong = [
            StoredMatrix(
                .blocks, codes: matrix.codes, scales: matrix.scales, table: matrix.table, outputs: 8, inputs: 64),
            StoredMatrix(.blocks, codes: matrix.codes, scales: nil, table: matrix.table, outputs: 4, inputs: 64),
            StoredMatrix(.blocks, codes: matrix.codes, scales: matrix.scales, table: nil, outputs: 4, inputs: 64),
            StoredMatrix(
                .blocks, codes: matrix.codes, scales: matrix.scales, table: matrix.table, block: 32, outputs: 4,
                inputs: 64),
        ]
        for matrix in wrong {
            #expect(throws: (any Error).self) { try withTorchErrors { matrix.project(.ones([1, 64]), bias: nil) } }
        }
        #expect(throws: (any Error).self) {
            try withTorchErrors { matrix.project(.ones([1, 32]), bias: nil) }
        }
    }
}
