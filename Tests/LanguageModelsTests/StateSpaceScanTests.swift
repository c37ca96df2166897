import Testing
import Torch
import TorchTestSupport

@testable import LanguageModels

/// The state space of Mamba-2 computes the same in chunks and token by token.
@Suite struct StateSpaceScanTests {
    /// Random inputs: four heads of size 2 in two groups with three states.
    private struct Inputs {
        let all: [Tensor]
        static let shapes = [[4, 2], [2, 3], [2, 3], [4]]

        init(tokens: Int, seed: UInt64) {
            all = Self.shapes.enumerated().map { index, shape in
                let x = Tensor.empty([tokens] + shape)
                x.fillNormal(seed: seed + UInt64(index))
                return index == 3 ? x.softplus() : x
            }
        }

        static func scan(_ all: [Tensor], _ tokens: Range<Int>? = nil) -> StateSpaceScan {
            let own = tokens.map { range in all.map { $0.narrowed(axis: 0, range) } } ?? all
            let decays = Tensor([Float(-0.1), -0.5, -1, -3], shape: [4])
            return StateSpaceScan(
                values: own[0], writers: own[1], readers: own[2], steps: own[3], decays: decays)
        }
    }

    /// Sequences of many lengths, with an empty one, one of a whole chunk, and one of several.
    private static let offsets = [0, 5, 5, 69, 70, 205, 207]

    @Test(arguments: [false, true]) func chunksEqualSingleSteps(continues: Bool) throws {
        let (offsets, inputs) = (Self.offsets, Inputs(tokens: 207, seed: 3))
        let before = Tensor.empty([6, 2, 3, 2, 2])
        before.fillNormal(seed: 9)
        try withTorchErrors {
            try withoutGradients {
                let chunks = SequenceChunks(offsets, device: .cpu)
                let all = Inputs.scan(inputs.all).scan(
                    chunks, memory: continues ? before : nil, keepsMemory: true)
                for row in 0..<6 {
                    var memory =
                        continues ? before.narrowed(axis: 0, row..<row + 1) : Tensor.zeros([1, 2, 3, 2, 2])
                    var outputs: [Tensor] = []
                    for token in offsets[row]..<offsets[row + 1] {
                        let next = Inputs.scan(inputs.all, token..<token + 1).step(memory)
                        memory = next.memory
                        outputs.append(next.outputs)
                    }
                    let kept = try #require(all.memory).narrowed(axis: 0, row..<row + 1)
                    #expect(relativeDifference(kept, memory) < 1e-5 || !continues && outputs.isEmpty, "\(row)")
                    guard !outputs.isEmpty else { continue }
                    let own = all.outputs.narrowed(axis: 0, offsets[row]..<offsets[row + 1])
                    #expect(relativeDifference(own, Tensor.concatenated(outputs)) < 1e-5, "\(row)")
                }
            }
        }
    }

    @Test func gradientsDoNotDependOnTheChunks() throws {
        let weights = Tensor.empty([207, 4, 2])
        weights.fillNormal(seed: 12)
        func gradients(most: Int) throws -> [Tensor] {
            let leaves = Inputs(tokens: 207, seed: 5).all.map { $0.detached() }
            for leaf in leaves { leaf.requiresGrad = true }
            let chunks = SequenceChunks(Self.offsets, device: .cpu, most: most)
            return try withTorchErrors {
                let outputs = Inputs.scan(leaves).scan(chunks, memory: nil, keepsMemory: false).outputs
                (outputs * weights).sum().backward()
                return leaves.compactMap(\.grad)
            }
        }
        let (whole, small) = (try gradients(most: 64), try gradients(most: 7))
        #expect(whole.count == 4)
        for (a, b) in zip(whole, small) { #expect(relativeDifference(a, b) < 1e-4) }
    }
}
