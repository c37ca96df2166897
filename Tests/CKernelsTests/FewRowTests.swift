import CKernels
import Testing

/// Matmuls with few rows against float64.
@Suite struct FewRowTests {
    @Test(arguments: [1, 2, 3, 4, 5, 9, 32]) func fp32(rows: Int) {
        for (inputs, outputs) in [(1, 1), (7, 13), (63, 5), (64, 12), (100, 25), (256, 40)] {
            let weight = samples(outputs * inputs, seed: 1), x = samples(rows * inputs, seed: 2)
            let bias = samples(outputs, seed: 3)
            var y = [Float](repeating: 0, count: rows * outputs)
            ck_multiply_few(weight, x, Int64(rows), Int64(inputs), &y, Int64(outputs), nil)
            let expected = product(x, weight, rows: rows, inputs: inputs, outputs: outputs)
            #expect(relativeDifference(y, expected) < 2e-6, "\(inputs) inputs, \(outputs) outputs")
            ck_multiply_few(weight, x, Int64(rows), Int64(inputs), &y, Int64(outputs), bias)
            let shifted = expected.indices.map { expected[$0] + Double(bias[$0 % outputs]) }
            #expect(relativeDifference(y, shifted) < 2e-6, "\(inputs) inputs, \(outputs) outputs, bias")
        }
    }

    /// Multiples of 32 inputs are multiplied in bf16 as they are stored, others through a buffer.
    @Test(arguments: 1...8) func bf16(rows: Int) {
        for (inputs, outputs) in [(31, 17), (32, 17), (96, 3), (256, 40)] {
            let bits = bfloats(samples(outputs * inputs, seed: 1)), x = samples(rows * inputs, seed: 2)
            var weight = [Float](repeating: 0, count: bits.count)
            ck_upcast_bf16(bits, &weight, Int64(bits.count))
            var y = [Float](repeating: 0, count: rows * outputs)
            ck_multiply_few_bf16(bits, x, Int64(rows), Int64(inputs), &y, Int64(outputs))
            let expected = product(x, weight, rows: rows, inputs: inputs, outputs: outputs)
            #expect(relativeDifference(y, expected) < 2e-6, "\(inputs) inputs, \(outputs) outputs")
        }
    }
}
