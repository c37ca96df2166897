import Testing
import TorchTestSupport

@testable import Torch

/// Loops over several threads give what one thread gives, bit for bit.
@Suite(.serialized) struct ThreadTests {
    @Test func resultsDoNotDependOnThreads() throws {
        let before = Runtime.threads
        defer { Runtime.threads = before }
        let x = random(300, 768, seed: 1, dtype: .float32), up = random(300, 768, seed: 2, dtype: .float32)
        let weight = random(768, seed: 3, dtype: .float32), matrix = random(500, 768, seed: 4, dtype: .float32)
        func results() throws -> [Tensor] {
            try withTorchErrors {
                [
                    Functions.rmsNorm(x, weight: weight, epsilon: 1e-6), Activation.silu.gated(x, up),
                    Functions.dropout(x, probability: 0.3, seed: 7),
                ]
            } + gradients([x]) { Functions.linear($0[0], matrix) }
                + gradients([x, up]) { Activation.silu.gated($0[0], $0[1]) }
        }
        Runtime.threads = 1
        let single = try results()
        for threads in [2, 3] {
            Runtime.threads = threads
            for (number, (a, b)) in try zip(results(), single).enumerated() {
                // A product may be cut at another place; all else is the same numbers.
                #expect(number == 3 ? relativeDifference(a, b) < 1e-6 : a.isIdentical(to: b), "\(threads), \(number)")
            }
        }
    }
}
