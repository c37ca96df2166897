import CKernels
import Testing

@Suite struct DropoutTests {
    private func mask(_ count: Int, probability: Double, seed: UInt64) -> [Float] {
        let ones = [Float](repeating: 1, count: count)
        var result = ones
        ck_drop(ones, &result, Int64(count), probability, seed)
        return result
    }

    @Test func isAFunctionOfSeedAndPosition() {
        let whole = mask(100_000, probability: 0.3, seed: 7)
        #expect(mask(100_000, probability: 0.3, seed: 7) == whole)
        #expect(mask(1_001, probability: 0.3, seed: 7) == Array(whole.prefix(1_001)))
        #expect(mask(100_000, probability: 0.3, seed: 8) != whole)
        #expect(mask(100_000, probability: 0.3, seed: 7 + 1 << 32) != whole)
    }

    @Test(arguments: [0, 0.1, 0.5, 0.9, 1]) func rateAndScale(probability: Double) {
        let values = mask(100_000, probability: probability, seed: 3)
        let rate = Double(values.count { $0 == 0 }) / 100_000
        // Five standard deviations.
        #expect(abs(rate - probability) <= 5 * (probability * (1 - probability) / 100_000).squareRoot())
        #expect(values.allSatisfy { $0 == 0 || $0 == Float(1 / (1 - probability)) })
    }
}
