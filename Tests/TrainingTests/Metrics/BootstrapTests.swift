import PEFTSupport
import Testing

@testable import Training

@Suite struct BootstrapTests {
    @Test func isDeterministic() throws {
        let values = (0..<50).map { Double($0 % 7) }
        let a = try Bootstrap(seed: 1).mean(of: values)
        #expect(try Bootstrap(seed: 1).mean(of: values) == a)
        #expect(try Bootstrap(seed: 2).mean(of: values) != a)
    }

    /// For many independent values the interval of a mean is ± 1.96 standard errors.
    @Test func approachesTheNormalInterval() throws {
        var random = SeededRandom(seed: 9)
        let values = (0..<400).map { _ in Double(random.below(1_000_000)) / 1e6 }
        let result = try Bootstrap(resamples: 4_000, seed: 3).mean(of: values)
        let mean = values.reduce(0, +) / 400
        let variance = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / 400
        let error = (variance / 400).squareRoot()
        #expect(abs(result.value - mean) < 1e-12)
        #expect(abs(result.low - (mean - 1.96 * error)) < 0.1 * error)
        #expect(abs(result.high - (mean + 1.96 * error)) < 0.1 * error)
    }

    @Test func widerConfidenceIsWider() throws {
        let values = (0..<30).map { Double($0 * $0) }
        let narrow = try Bootstrap(confidence: 0.5).mean(of: values)
        let wide = try Bootstrap(confidence: 0.99).mean(of: values)
        #expect(wide.low < narrow.low && narrow.low < narrow.value)
        #expect(narrow.value < narrow.high && narrow.high < wide.high)
    }

    @Test func oneRowHasNoSpread() throws {
        let result = try Bootstrap.standard.mean(of: [0.25])
        #expect(result == MetricValue(value: 0.25, low: 0.25, high: 0.25))
    }

    @Test func quantilesInterpolate() {
        #expect(Bootstrap.quantile(0.5, ofSorted: [1, 2]) == 1.5)
        #expect(Bootstrap.quantile(0.25, ofSorted: [0, 1, 2, 3, 4]) == 1)
        #expect(Bootstrap.quantile(1, ofSorted: [0, 4]) == 4)
    }

    @Test func badSettingsAreErrors() {
        #expect(throws: PEFTError.self) { try Bootstrap(resamples: 0) }
        #expect(throws: PEFTError.self) { try Bootstrap(confidence: 1) }
        #expect(throws: PEFTError.self) { try Bootstrap(confidence: .nan) }
        #expect(throws: PEFTError.self) { try Bootstrap.standard.mean(of: []) }
    }
}
