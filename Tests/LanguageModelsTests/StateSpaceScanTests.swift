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

    @Test(arguments: [false, true]) func chunksEqualSingleSteps(continues: Bool) throws {
        let inputs = Inputs(tokens: 207, seed: 3)
        try ChunkedScans.compare(memory: [2, 3, 2, 2], continues: continues) { chunks, memory in
            Inputs.scan(inputs.all).scan(chunks, memory: memory, keepsMemory: true)
        } step: { tokens, memory in
            Inputs.scan(inputs.all, tokens).step(memory)
        }
    }

    @Test func gradientsDoNotDependOnTheChunks() throws {
        let weights = Tensor.empty([207, 4, 2])
        weights.fillNormal(seed: 12)
        func gradients(most: Int) throws -> [Tensor] {
            let leaves = Inputs(tokens: 207, seed: 5).all.map { $0.detached() }
            for leaf in leaves { leaf.requiresGrad = true }
            let chunks = SequenceChunks(ChunkedScans.offsets, device: .cpu, most: most)
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
