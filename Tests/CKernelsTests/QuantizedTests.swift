import CKernels
import Testing

@Suite struct QuantizedTests {
    /// Integers [inputs, outputs] packed along the inputs, lowest bits first, with fp32 scales and zero points.
    private struct Groups {
        let bits: Int, inputs = 64, outputs = 19, groupSize = 32
        let integers: [UInt32], scales: [Float], zeros: [Float]
        var packed: [UInt32]

        init(bits: Int) {
            self.bits = bits
            integers = samples(inputs * outputs, seed: 1).map {
                UInt32(($0 + 1) / 2 * Float(1 << bits)) & (1 << UInt32(bits) - 1)
            }
            scales = samples(inputs / groupSize * outputs, seed: 2)
            zeros = samples(inputs / groupSize * outputs, seed: 3).map { ($0 + 1) * Float(1 << (bits - 1)) }
            packed = [UInt32](repeating: 0, count: inputs * bits / 32 * outputs)
            for input in 0..<inputs {
                for output in 0..<outputs {
                    for bit in 0..<bits where integers[input * outputs + output] >> UInt32(bit) & 1 == 1 {
                        let place = input * bits + bit
                        packed[place / 32 * outputs + output] |= 1 << UInt32(place % 32)
                    }
                }
            }
        }

        /// W transposed, [inputs, outputs].
        var dense: [Float] {
            integers.indices.map { index in
                let group = index / outputs / groupSize * outputs + index % outputs
                return scales[group] * (Float(integers[index]) - zeros[group])
            }
        }
    }

    @Test(arguments: [2, 3, 4, 8]) func dequantizesGroups(bits: Int) {
        let w = Groups(bits: bits)
        var dense = [Float](repeating: 0, count: w.inputs * w.outputs)
        ck_dequantize_groups(
            w.packed, w.scales, w.zeros, Int32(bits), Int64(w.groupSize), Int64(w.inputs), Int64(w.outputs), &dense)
        #expect(dense == w.dense)
    }

    @Test(arguments: [2, 3, 4, 8]) func multipliesGroups(bits: Int) {
        let w = Groups(bits: bits), dense = w.dense
        let weight = (0..<w.outputs * w.inputs).map { dense[$0 % w.inputs * w.outputs + $0 / w.inputs] }
        for rows in [1, 2, 3, 8] {
            let x = samples(rows * w.inputs, seed: 4)
            var y = [Float](repeating: 0, count: rows * w.outputs)
            ck_multiply_groups(
                w.packed, w.scales, w.zeros, Int32(bits), Int64(w.groupSize), Int64(w.inputs), Int64(w.outputs), x,
                Int64(rows), &y)
            let expected = product(x, weight, rows: rows, inputs: w.inputs, outputs: w.outputs)
            #expect(relativeDifference(y, expected) < 5e-6)
        }
    }

    @Test(arguments: [64, 128]) func quantizesBlocks(block: Int) {
        let outputs = 6, inputs = 96, count = outputs * inputs
        let weight = samples(count, seed: 1)
        var codes = [UInt8](repeating: 0, count: count / 2),
            scales = [Float](repeating: 0, count: (count + block - 1) / block)
        ck_quantize_nf4(weight, Int64(count), Int64(block), &codes, &scales)
        var dense = [Float](repeating: 0, count: count)
        ck_dequantize_nf4(codes, scales, Int64(block), Int64(outputs), Int64(inputs), &dense)
        for index in 0..<count {
            let start = index / block * block, peak = weight[start..<min(start + block, count)].map(abs).max() ?? 0
            #expect(scales[index / block] == peak)
            // Half of the widest gap between neighboring values, 1 − 0.696.
            #expect(abs(dense[index] - weight[index]) <= 0.153 * peak)
            if abs(weight[index]) == peak { #expect(dense[index] == weight[index]) }
        }
    }
}
