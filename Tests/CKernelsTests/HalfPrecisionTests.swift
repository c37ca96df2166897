import CKernels
import Testing

@Suite struct HalfPrecisionTests {
    private func upcastBF16(_ bits: [UInt16]) -> [Float] {
        var values = [Float](repeating: 0, count: bits.count)
        ck_upcast_bf16(bits, &values, Int64(bits.count))
        return values
    }

    private func upcastFP16(_ bits: [UInt16]) -> [Float] {
        var values = [Float](repeating: 0, count: bits.count)
        ck_upcast_fp16(bits, &values, Int64(bits.count))
        return values
    }

    @Test func bf16OfKnownPatterns() {
        #expect(upcastBF16([0x3F80, 0xC000, 0x4049, 0x0000, 0x7F80]) == [1, -2, 3.140625, 0, .infinity])
        // Halfway cases go to the even neighbor: 1 + 2⁻⁸ down to 1, 1 + 3 · 2⁻⁸ up to 1 + 2⁻⁶.
        #expect(
            bfloats([1, 1 + 0x1p-8, 1 + 0x1.8p-7, 3.141592653, -0.0]) == [0x3F80, 0x3F80, 0x3F82, 0x4049, 0x8000])
        #expect(
            bfloats([.nan, .infinity, -.infinity, .greatestFiniteMagnitude]) == [0x7FC0, 0x7F80, 0xFF80, 0x7F80])
    }

    @Test func everyBF16SurvivesARoundTrip() {
        let bits = (UInt16.min...UInt16.max).filter { $0 & 0x7FFF <= 0x7F80 }
        #expect(bfloats(upcastBF16(bits)) == bits)
    }

    @Test func fp16OfKnownPatterns() {
        let bits: [UInt16] = [0x3C00, 0xC000, 0x0001, 0x0400, 0x7BFF, 0x7C00, 0xFC00, 0x8000]
        let values: [Float] = [1, -2, 0x1p-24, 0x1p-14, 65504, .infinity, -.infinity, 0]
        #expect(upcastFP16(bits) == values)
        #expect(upcastFP16([0x7E00])[0].isNaN)
    }

    /// Eight values at a time and single ones take different instructions.
    @Test func fp16IsTheSameAloneAndInVectors() {
        let bits = (UInt16.min...UInt16.max).filter { $0 & 0x7FFF <= 0x7C00 }
        #expect(upcastFP16(bits).map(\.bitPattern) == bits.map { upcastFP16([$0])[0].bitPattern })
    }

    @Test func roundingToFP16() {
        let values = upcastFP16((UInt16.min...UInt16.max).filter { $0 & 0x7FFF < 0x7C00 })
        #expect(values.allSatisfy { ck_rounded_to_fp16($0) == $0 })
        // Neighbors are 2⁻¹⁰ apart above 1, and 2⁻²⁴ below 2⁻¹⁴; halfway cases go to the even one.
        let rounded: [(Float, Float)] = [
            (1 + 0x1p-11, 1), (1 + 0x1.8p-10, 1 + 0x1p-9), (1 + 0x1.01p-11, 1 + 0x1p-10),
            (-1 - 0x1.01p-11, -1 - 0x1p-10),
            (0x1.8p-24, 0x1p-23), (0x1p-25, 0), (0x1.01p-25, 0x1p-24), (2047.5, 2048), (65503, 65504),
        ]
        for (value, nearest) in rounded { #expect(ck_rounded_to_fp16(value) == nearest) }
    }
}
