import CKernels

/// Uniform floats in −1 ..< 1 from a 64-bit linear congruential generator (Knuth's MMIX constants).
func samples(_ count: Int, seed: UInt64) -> [Float] {
    var state = seed &* 2_862_933_555_777_941_757 &+ 1
    return (0..<count).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Float(Double(state >> 11) / Double(1 << 52) - 1)
    }
}

/// The same values in bf16.
func bfloats(_ values: [Float]) -> [UInt16] {
    var bits = [UInt16](repeating: 0, count: values.count)
    ck_downcast_to_bf16(values, &bits, Int64(values.count))
    return bits
}

/// The largest |a − b| divided by the largest |b|.
func relativeDifference(_ a: [Float], _ b: [Double]) -> Double {
    let difference = zip(a, b).map { abs(Double($0) - $1) }.max() ?? 0
    return difference / max(b.map(abs).max() ?? 0, .leastNormalMagnitude)
}

/// x [rows, inputs] Wᵀ in float64, W [outputs, inputs].
func product(_ x: [Float], _ weight: [Float], rows: Int, inputs: Int, outputs: Int) -> [Double] {
    (0..<rows * outputs).map { index in
        let row = index / outputs * inputs, output = index % outputs * inputs
        return (0..<inputs).reduce(0) { $0 + Double(x[row + $1]) * Double(weight[output + $1]) }
    }
}
