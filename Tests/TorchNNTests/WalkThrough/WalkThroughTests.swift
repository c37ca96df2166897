import PEFTSupport
import Testing
import Torch

@testable import TorchNN

/// The weight format that CONTRIBUTING adds.
@Suite struct WalkThroughTests {
    /// A format in the table is found by its name, quantizes a matrix and multiplies by it.
    @Test func aFormatOfTheTableQuantizesAndMultiplies() throws {
        let format = try WeightFormat.named("Ternary", in: WeightFormat.families + [.ternary])
        #expect(format.name == "ternary" && format.isQuantized)
        #expect(throws: PEFTError.self) { try WeightFormat("ternary") }
        // The mean absolute value is 7/6: 2 and 3 are clipped, 0.5, 0.1 and 0.4 round to zero.
        let matrix = Tensor([2, -0.5, 0.1, -1, 0.4, 3] as [Float], shape: [2, 3])
        let weight = try #require(format.conversion).weight(DenseWeight(matrix))
        let scale = 7.0 / 6
        #expect(weight.outputs == 2 && weight.inputs == 3 && weight.isQuantized)
        #expect(weight.parameters.map(\.parameter.tensor.dtype) == [.int8, .float32])
        func isClose(_ tensor: Tensor, _ values: [Double]) -> Bool {
            let found = tensor.array(Double.self)
            return found.count == values.count && zip(found, values).allSatisfy { abs($0 - scale * $1) < 1e-6 }
        }
        #expect(isClose(weight.dense(as: .float32), [1, 0, 0, -1, 0, 1]))
        let x = Tensor([1, 2, 3] as [Float], shape: [1, 3])
        x.requiresGrad = true
        let y = weight.project(x, bias: nil)
        #expect(isClose(y, [1, 2]))
        try withTorchErrors { y.sum().backward() }
        #expect(isClose(try #require(x.grad), [0, 0, 1]))
        // Other values in the same format.
        #expect(try weight.replacing(with: matrix * -1).formatName == "ternary")
        #expect(isClose(try weight.replacing(with: matrix * -1).dense(as: .float32), [-1, 0, 0, 1, 0, -1]))
    }
}
