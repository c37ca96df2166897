import CKernels
import Testing

@Suite struct QuantizedTests {
    /// Integers [inputs, outputs] packed along the inputs, lowest bits first, with fp32 scales and zero points.
    private struct Groups {
        let bits: Int, inputs: Int, outputs: Int, groupSize: Int
        let integers: [UInt32], scales: [Float], zeros: [Float]
        var packed: [UInt32]

        init(bits: Int, inputs: Int = 64, outputs: Int = 19, groupSize: Int = 32) {
            (self.bits, self.inputs, self.outputs, self.groupSize) = (bits, inputs, outputs, groupSize)
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

        /// x Wᵀ for x [rows, inputs].
        func product(_ x: [Float], rows: Int) -> [Float] {
            var y = [Float](repeating: 0, count: rows * outputs)
            ck_multiply_groups(
                packed, scales, zeros, Int32(bits), Int64(groupSize), Int64(inputs), Int64(outputs), x, Int64(rows),
                &y)
            return y
        }

        func expected(_ x: [Float], rows: Int) -> [Double] {
            let dense = self.dense
            let weight = (0..<outputs * inputs).map { dense[$0 % inputs * outputs + $0 / inputs] }
            return CKernelsTests.product(x, weight, rows: rows, inputs: inputs, outputs: outputs)
        }
    }

    @Test(arguments: [2, 3, 4, 8]) func dequantizesGroups(bits: Int) {
        let w = Groups(bits: bits)
        var dense = [Float](repeating: 0, count: w.inputs * w.outputs)
        ck_dequantize_groups(
            w.packed, w.scales, w.zeros, Int32(bits), Int64(w.groupSize), Int64(w.inputs), Int64(w.outputs), &dense)
        #expect(dense == w.dense)
    }

    /// In fp32, and with integers where the processor has fast ones: groups of one, several and half a chunk, whole vectors of
    /// outputs and parts of them.
    @Test(arguments: [2, 3, 4, 8], ["fp32", "integers", "integers without AVX-512"])
    func multipliesGroups(bits: Int, arithmetic: String) {
        ck_use_group_integers(arithmetic != "fp32")
        ck_use_wide_vectors(arithmetic == "integers")
        defer {
            ck_use_group_integers(true)
            ck_use_wide_vectors(true)
        }
        for (inputs, outputs, groupSize) in [(64, 19, 32), (96, 56, 16), (512, 33, 256), (192, 24, 192)]
        where groupSize >= 32 || bits != 3 {
            let w = Groups(bits: bits, inputs: inputs, outputs: outputs, groupSize: groupSize)
            for rows in 1...8 {
                let x = samples(rows * inputs, seed: 4)
                let difference = relativeDifference(w.product(x, rows: rows), w.expected(x, rows: rows))
                #expect(
                    difference < 2e-6, "\(inputs) inputs, \(outputs) outputs, groups of \(groupSize), \(rows) rows")
            }
        }
    }

    /// A row's result doesn't depend on the others, whatever their size.
    @Test(arguments: [2, 4, 8], [true, false]) func rowsAreIndependent(bits: Int, isWide: Bool) {
        ck_use_wide_vectors(isWide)
        defer { ck_use_wide_vectors(true) }
        let w = Groups(bits: bits, inputs: 128, outputs: 40)
        // Without AVX-512, up to four rows are multiplied as integers.
        let sizes: [Float] = isWide ? [1, 1e-12, 1e12, 0, 1e-6, 1, 3, 7] : [1e12, 1, 0, 1e-12]
        let x = samples(sizes.count * w.inputs, seed: 5).enumerated().map { $1 * sizes[$0 / w.inputs] }
        let together = w.product(x, rows: sizes.count)
        for row in sizes.indices {
            let alone = Array(x[row * w.inputs..<(row + 1) * w.inputs])
            let result = w.product(alone, rows: 1)
            #expect(result == Array(together[row * w.outputs..<(row + 1) * w.outputs]))
            #expect(relativeDifference(result, w.expected(alone, rows: 1)) < 2e-6)
        }
    }

    /// One input is very large beside the others, all are tiny, and infinity and NaN.
    @Test(arguments: [2, 4, 8], [true, false]) func extremeInputsAreKept(bits: Int, isWide: Bool) {
        ck_use_wide_vectors(isWide)
        defer { ck_use_wide_vectors(true) }
        let w = Groups(bits: bits, outputs: 24)
        var x = samples(w.inputs, seed: 6)
        x[5] = 1e6
        #expect(relativeDifference(w.product(x, rows: 1), w.expected(x, rows: 1)) < 2e-6)
        x = x.map { $0 * 1e-24 }
        #expect(relativeDifference(w.product(x, rows: 1), w.expected(x, rows: 1)) < 2e-6)
        x[7] = .infinity
        let finite = w.product(x, rows: 1).filter(\.isFinite)
        #expect(finite.isEmpty)
        x[7] = .nan
        let numbers = w.product(x, rows: 1).filter { !$0.isNaN }
        #expect(numbers.isEmpty)
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
