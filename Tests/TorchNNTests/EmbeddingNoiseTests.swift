import Testing
import Torch

@testable import TorchNN

@Suite struct EmbeddingNoiseTests {
    private let embedded = Tensor.ones([50, 8])
    private let offsets = [0, 40, 50]

    private func noise(alpha: Double, seed: UInt64 = 1, stream: UInt64 = 0) -> [Float] {
        DropoutScope.run(seed: seed, stream: stream) {
            EmbeddingNoise.run(alpha: alpha) { EmbeddingNoise.added(to: embedded, offsets: offsets) - embedded }
        }.array()
    }

    /// Uniform in ±α / √(L d): sequences of 40 and of 10 tokens, d = 8.
    @Test func magnitudeDependsOnTheLength() throws {
        let values = noise(alpha: 5)
        for (range, tokens) in [(0..<320, 40.0), (320..<400, 10.0)] {
            let bound = Float(5 / (tokens * 8).squareRoot())
            let part = values[range]
            let largest = part.map { abs($0) }.max() ?? 0
            #expect(largest <= bound * 1.0001 && largest > 0.9 * bound)
            // The variance of a uniform variable in ±b is b² / 3.
            let variance = part.reduce(0) { $0 + $1 * $1 } / Float(part.count)
            #expect(abs(variance / (bound * bound) - 1 / 3) < 0.1)
        }
    }

    @Test func noiseIsAFunctionOfSeedAndStep() {
        #expect(noise(alpha: 5) == noise(alpha: 5))
        #expect(noise(alpha: 5) != noise(alpha: 5, stream: 1))
        #expect(noise(alpha: 5) != noise(alpha: 5, seed: 2))
    }

    @Test func thereIsNoneInEvaluation() {
        let same = EmbeddingNoise.run(alpha: 5) { EmbeddingNoise.added(to: embedded, offsets: offsets) }
        #expect(same.isIdentical(to: embedded))
        #expect(noise(alpha: 0).allSatisfy { $0 == 0 })
    }
}
