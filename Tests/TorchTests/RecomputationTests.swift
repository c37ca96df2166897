import PEFTSupport
import Testing

@testable import Torch

/// Parts of a forward pass that are computed again in the backward pass.
@Suite struct RecomputationTests {
    private final class Counter { var count = 0 }

    private static var x: Tensor { Tensor([0.3, -0.7, 1.1, 0.2].map(Float.init), shape: [2, 2]) }

    private func weight() -> Tensor {
        let weight = Tensor([0.5, -0.25, 0.75, 1.5].map(Float.init), shape: [2, 2])
        weight.requiresGrad = true
        return weight
    }

    private func part(_ weight: Tensor, _ x: Tensor = Self.x, _ runs: Counter? = nil) -> Tensor {
        runs?.count += 1
        return Activation.gelu(Functions.linear(x, weight)).matmul(weight)
    }

    @Test func gradientsAreTheSameBits() throws {
        try withTorchErrors {
            let plain = weight()
            part(plain, part(plain)).squared().sum().backward()
            let again = weight()
            let runs = Counter()
            let middle = Recomputation.run({ part(again, Self.x, runs) }, again: { _ = part(again, Self.x, runs) })
            let input = middle.detached()
            input.requiresGrad = true
            let end = Recomputation.run({ part(again, middle, runs) }, again: { _ = part(again, input, runs) })
            #expect(runs.count == 2)
            end.squared().sum().backward()
            #expect(runs.count == 4)
            let expected = try #require(plain.grad)
            #expect(try #require(again.grad).isIdentical(to: expected))
        }
    }

    @Test func whatIsNotTrainedRunsOnce() throws {
        try withTorchErrors {
            let (frozen, trained, runs) = (weight().detached(), weight(), Counter())
            let below = Recomputation.run({ part(frozen, Self.x, runs) }, again: { _ = part(frozen, Self.x, runs) })
            part(trained, below).sum().backward()
            #expect(runs.count == 1)
            withoutGradients {
                _ = Recomputation.run({ part(trained, Self.x, runs) }, again: { _ = part(trained, Self.x, runs) })
            }
            #expect(runs.count == 2)
        }
    }

    /// What the second run holds on to goes with the graph, used or not.
    @Test func partsAreReleased() throws {
        weak var held: Counter?
        try withTorchErrors {
            for isUsed in [true, false] {
                let trained = weight()
                do {
                    let runs = Counter()
                    held = runs
                    let y = Recomputation.run({ part(trained) }, again: { _ = part(trained, Self.x, runs) })
                    if isUsed { y.sum().backward() }
                }
                #expect(held == nil)
            }
        }
    }

    @Test func anotherSecondRunIsAnError() throws {
        let other = try #require(throws: PEFTError.self) {
            try withTorchErrors {
                let trained = weight()
                Recomputation.run({ part(trained) }, again: { _ = part(trained, part(trained)) }).sum().backward()
            }
        }
        #expect(other.problem.contains("recomputed layer saved"))
        let error = try #require(throws: PEFTError.self) {
            try withTorchErrors {
                let trained = weight()
                Recomputation.run({ part(trained) }, again: { reportFailure(PEFTError("no more")) }).sum().backward()
            }
        }
        #expect(error.problem.contains("no more"))
    }
}
