/// An unpacked row of blocks: integers, and the scale and minimum of each group.
struct GGUFRow {
    var integers: [UInt8]
    var scales: [Float]
    var minima: [Float]

    /// Allocates space for a row of `count` values.
    init(_ type: GGUFType, count: Int) {
        integers = Array(repeating: 0, count: count)
        scales = Array(repeating: 0, count: count / type.group)
        minima = Array(repeating: 0, count: count / type.group)
    }

    /// Unpacks the blocks of a row.
    mutating func read(_ type: GGUFType, _ bytes: UnsafeRawBufferPointer) {
        let (groups, blocks) = (type.block / type.group, integers.count / type.block)
        integers.withUnsafeMutableBufferPointer { integers in
            scales.withUnsafeMutableBufferPointer { scales in
                minima.withUnsafeMutableBufferPointer { minima in
                    guard let q = integers.baseAddress, let s = scales.baseAddress, let m = minima.baseAddress,
                        let from = bytes.baseAddress
                    else { return }
                    for index in 0..<blocks {
                        let block = GGUFBlock(
                            bytes: (from + index * type.bytes).assumingMemoryBound(to: UInt8.self),
                            q: q + index * type.block, scales: s + index * groups, minima: m + index * groups)
                        block.read(type)
                    }
                }
            }
        }
    }

    /// Dequantizes the row.
    func numbers(_ type: GGUFType, to out: UnsafeMutablePointer<Float>) {
        let zero = type.zero
        for (group, scale) in scales.enumerated() {
            let minimum = minima[group]
            for i in (group * type.group)..<((group + 1) * type.group) {
                out[i] = scale * Float(Int(integers[i]) - zero) - minimum
            }
        }
    }
}

/// One block of the file while it is unpacked.
private struct GGUFBlock {
    let bytes: UnsafePointer<UInt8>
    let q: UnsafeMutablePointer<UInt8>
    let scales: UnsafeMutablePointer<Float>
    let minima: UnsafeMutablePointer<Float>

    func read(_ type: GGUFType) {
        switch type {
        case .q4_0: nibbles(bytes + 2, scale: half(0))
        case .q4_1: nibbles(bytes + 4, scale: half(0), minimum: -half(2))
        case .q5_0: nibbles(bytes + 6, fifth: bytes + 2, scale: half(0))
        case .q5_1: nibbles(bytes + 8, fifth: bytes + 4, scale: half(0), minimum: -half(2))
        case .q8_0:
            scales[0] = half(0)
            for i in 0..<32 { q[i] = bytes[2 + i] &+ 128 }
        case .q2_K: q2()
        case .q3_K: q3()
        case .q4_K: q4(fifth: nil, nibbles: bytes + 16)
        case .q5_K: q4(fifth: bytes + 16, nibbles: bytes + 48)
        case .q6_K: q6()
        case .iq4_nl:
            scales[0] = half(0)
            levels(bytes + 2, to: q)
        case .mxfp4:
            // Levels are twice the floats.
            scales[0] = Float(sign: .plus, exponent: Int(bytes[0]) - 128, significand: 1)
            levels(bytes + 1, of: Self.floats, to: q)
        case .iq4_xs: iq4()
        case .f32, .f16, .bf16: break
        }
    }

    private func half(_ at: Int) -> Float { Half(bits: UInt16(bytes[at]) | UInt16(bytes[at + 1]) << 8).number }

    /// 16 bytes whose low halves are the first 16 values; the fifth bits of all 32 are in four bytes.
    private func nibbles(
        _ from: UnsafePointer<UInt8>, fifth: UnsafePointer<UInt8>? = nil, scale: Float, minimum: Float = 0
    ) {
        (scales[0], minima[0]) = (scale, minimum)
        for i in 0..<16 { (q[i], q[i + 16]) = (from[i] & 15, from[i] >> 4) }
        guard let fifth else { return }
        for i in 0..<32 { q[i] |= (fifth[i / 8] >> UInt8(i % 8) & 1) << 4 }
    }

    /// The levels of a four-bit code in IQ4, steps that grow with the distance from zero.
    private static let levels: [Int8] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]

    /// Twice the values of floats e2m1.
    private static let floats: [Int8] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12]

    /// 16 bytes whose low halves are the codes of the first 16 values; the integers are levels from 0 to 255.
    private func levels(
        _ from: UnsafePointer<UInt8>, of table: [Int8] = Self.levels, to q: UnsafeMutablePointer<UInt8>
    ) {
        func level(_ code: UInt8) -> UInt8 { UInt8(bitPattern: table[Int(code)]) &+ 128 }
        for i in 0..<16 { (q[i], q[i + 16]) = (level(from[i] & 15), level(from[i] >> 4)) }
    }

    /// A half d; eight six-bit scales less 32, their high bits in two bytes and their low ones in four; the codes of eight
    /// groups of 32 values.
    private func iq4() {
        let d = half(0)
        let high = UInt16(bytes[2]) | UInt16(bytes[3]) << 8
        for group in 0..<8 {
            let low = bytes[4 + group / 2] >> UInt8(4 * (group % 2)) & 15
            let scale = Int(low) | Int(high >> UInt16(2 * group) & 3) << 4
            scales[group] = d * Float(scale - 32)
            levels(bytes + 8 + 16 * group, to: q + 32 * group)
        }
    }

    /// 16 bytes with a four-bit scale and a four-bit minimum each, 64 bytes of two-bit integers, halves d and m.
    private func q2() {
        let (d, m) = (half(80), half(82))
        for group in 0..<16 {
            scales[group] = d * Float(bytes[group] & 15)
            minima[group] = m * Float(bytes[group] >> 4)
        }
        twos(bytes + 16)
    }

    /// Two-bit integers: each 32 bytes are four runs of 32 values, lowest bits first.
    private func twos(_ from: UnsafePointer<UInt8>) {
        for part in 0..<2 {
            for run in 0..<4 {
                for i in 0..<32 { q[128 * part + 32 * run + i] = from[32 * part + i] >> UInt8(2 * run) & 3 }
            }
        }
    }

    /// Third bits in 32 bytes, one bit for each run of 32 values; the lower two bits as above; 16 six-bit scales less
    /// 32 in 12 bytes; a half d.
    private func q3() {
        let d = half(108)
        twos(bytes + 32)
        for i in 0..<256 { q[i] |= (bytes[i % 32] >> UInt8(i / 32) & 1) << 2 }
        for group in 0..<16 {
            let low = bytes[96 + group % 8] >> UInt8(group < 8 ? 0 : 4) & 15
            let high = bytes[104 + group % 4] >> UInt8(2 * (group / 4)) & 3
            scales[group] = d * Float(Int(low | high << 4) - 32)
        }
    }

    /// Eight groups of 32: halves d and m, six-bit scales and minima in 12 bytes, optional fifth bits in 32 bytes,
    /// then four-bit integers, the low halves first in each 64 values.
    private func q4(fifth: UnsafePointer<UInt8>?, nibbles: UnsafePointer<UInt8>) {
        let (d, m) = (half(0), half(2))
        for group in 0..<8 {
            let at = 4 + group
            var (scale, minimum) = (bytes[at] & 63, group < 4 ? bytes[at + 4] & 63 : 0)
            if group >= 4 {
                scale = bytes[at + 4] & 15 | (bytes[at - 4] >> 6) << 4
                minimum = bytes[at + 4] >> 4 | (bytes[at] >> 6) << 4
            }
            (scales[group], minima[group]) = (d * Float(scale), m * Float(minimum))
        }
        for pair in 0..<4 {
            for i in 0..<32 {
                let byte = nibbles[32 * pair + i]
                (q[64 * pair + i], q[64 * pair + 32 + i]) = (byte & 15, byte >> 4)
            }
        }
        guard let fifth else { return }
        for i in 0..<256 { q[i] |= (fifth[i % 32] >> UInt8(i / 32) & 1) << 4 }
    }

    /// The low four bits of all values in 128 bytes, the high two in 64, 16 signed scales, a half d.
    private func q6() {
        let d = half(208)
        for part in 0..<2 {
            for run in 0..<4 {
                for i in 0..<32 {
                    let low = bytes[64 * part + 32 * (run % 2) + i] >> UInt8(run < 2 ? 0 : 4) & 15
                    let high = bytes[128 + 32 * part + i] >> UInt8(2 * run) & 3
                    q[128 * part + 32 * run + i] = low | high << 4
                }
            }
        }
        for group in 0..<16 { scales[group] = d * Float(Int8(bitPattern: bytes[192 + group])) }
    }
}

/// An IEEE half by its bits, as Swift's Float16 isn't available on all platforms.
struct Half {
    var bits: UInt16

    init(bits: UInt16) { self.bits = bits }

    /// Rounds to nearest, ties to even.
    init(_ number: Float) {
        let sign = UInt16(number.bitPattern >> 16 & 0x8000)
        let magnitude = number.bitPattern & 0x7fff_ffff
        if magnitude >= 0x477f_f000 {
            bits = sign | (number.isNaN ? 0x7e00 : 0x7c00)
        } else if magnitude < 0x3880_0000 {
            // Adding a half aligns the float's steps with those of subnormal halves.
            bits = sign | UInt16(truncatingIfNeeded: (Float(bitPattern: magnitude) + 0.5).bitPattern &- 0x3f00_0000)
        } else {
            bits = sign | UInt16(truncatingIfNeeded: (magnitude - 0x3800_0000 + 0xfff + (magnitude >> 13 & 1)) >> 13)
        }
    }

    var number: Float {
        let exponent = UInt32(bits >> 10 & 31)
        let fraction = UInt32(bits & 0x3ff)
        let magnitude: Float =
            exponent == 31
            ? Float(bitPattern: 0x7f80_0000 | fraction << 13)
            // Exact for all other values: a power of two corrects the exponent.
            : Float(bitPattern: (exponent << 10 | fraction) << 13) * 0x1p112
        return bits & 0x8000 == 0 ? magnitude : -magnitude
    }
}
