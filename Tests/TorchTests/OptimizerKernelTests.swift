import Foundation
import PEFTSupport
import Testing
import TorchTestSupport

@testable import Torch

@Suite struct OptimizerKernelTests {
    private func parameters(_ gradients: [[Double]]) -> [Tensor] {
        gradients.map { gradient in
            let parameter = Tensor(gradient.map { $0 * 3 - 1 })
            parameter.requiresGrad = true
            parameter.grad = Tensor(gradient)
            return parameter
        }
    }

    @Test func gradientsAreClippedTogether() throws {
        let list = parameters([[3, 0], [0, 4]])
        let without = Tensor([1.0])
        #expect(OptimizerKernels.clipGradients(list + [without], to: 10) == 5)
        #expect(try #require(list[1].grad).array() == [0.0, 4])
        #expect(OptimizerKernels.clipGradients(list, to: 0) == 5)
        #expect(try #require(list[1].grad).array() == [0.0, 4])
        #expect(OptimizerKernels.clipGradients(list, to: 1) == 5)
        let clipped: [Double] = try #require(list[0].grad).array() + (try #require(list[1].grad)).array()
        let factor = 1 / (5 + 1e-6)
        #expect(zip(clipped, [3 * factor, 0, 0, 4 * factor]).allSatisfy { abs($0 - $1) < 1e-15 })
        #expect(OptimizerKernels.clipGradients([without], to: 1) == 0)
        #expect(OptimizerKernels.clipGradients(parameters([[.nan], [1]]), to: 1).isNaN)
    }

    /// Loshchilov & Hutter 2019, algorithm 2, written out.
    @Test func adamW() throws {
        let (beta1, beta2, epsilon, decay, rate) = (0.8, 0.95, 1e-6, 0.1, 0.05)
        let starts: [[Double]] = [[1, -2, 0.5], [3], [0, 0]]
        let tensors = starts.map { Tensor($0) }
        for tensor in tensors { tensor.requiresGrad = true }
        let first = tensors.map { Tensor.zeros(like: $0) }
        let second = tensors.map { Tensor.zeros(like: $0) }
        var values = starts
        var m = starts.map { $0.map { _ in 0.0 } }
        var v = m
        for step in 1...5 {
            for (index, tensor) in tensors.enumerated() {
                let gradient = values[index].indices.map { sin(Double(step * 7 + index * 3 + $0)) }
                tensor.grad = Tensor(gradient)
                for (i, g) in gradient.enumerated() {
                    m[index][i] = beta1 * m[index][i] + (1 - beta1) * g
                    v[index][i] = beta2 * v[index][i] + (1 - beta2) * g * g
                    let meanHat = m[index][i] / (1 - pow(beta1, Double(step)))
                    let squareHat = v[index][i] / (1 - pow(beta2, Double(step)))
                    values[index][i] -=
                        rate * (meanHat / (squareHat.squareRoot() + epsilon) + decay * values[index][i])
                }
            }
            try withTorchErrors {
                OptimizerKernels.adamW(
                    tensors, firstMoments: first, secondMoments: second, step: step, learningRate: rate, beta1: beta1,
                    beta2: beta2, weightDecay: decay, epsilon: epsilon)
            }
        }
        for (index, tensor) in tensors.enumerated() {
            #expect(relativeDifference(tensor.detached(), Tensor(values[index])) < 1e-12)
            #expect(relativeDifference(first[index], Tensor(m[index])) < 1e-12)
            #expect(relativeDifference(second[index], Tensor(v[index])) < 1e-12)
        }
        OptimizerKernels.adamW(
            [], firstMoments: [], secondMoments: [], step: 1, learningRate: 1, beta1: 0, beta2: 0, weightDecay: 0,
            epsilon: 1)
    }
}
