import Testing
import Torch
import TorchTestSupport

@testable import LanguageModels

/// Scans of packed sequences in chunks against the same token by token.
enum ChunkedScans {
    /// Sequences of many lengths, with an empty one, one of a whole chunk, and one of several.
    static let offsets = [0, 5, 5, 69, 70, 205, 207]

    /// - Parameters:
    ///   - shape: of a sequence's memory.
    ///   - continues: whether the sequences have memories before.
    ///   - scan: all tokens, from the memories of all sequences.
    ///   - step: one token, from its sequence's memory.
    static func compare(
        memory shape: [Int], continues: Bool,
        scan: (SequenceChunks, Tensor?) -> (outputs: Tensor, memory: Tensor?),
        step: (Range<Int>, Tensor) -> (outputs: Tensor, memory: Tensor)
    ) throws {
        let rows = offsets.count - 1
        let before = Tensor.empty([rows] + shape)
        before.fillNormal(seed: 9)
        try withTorchErrors {
            try withoutGradients {
                let chunks = SequenceChunks(offsets, device: .cpu)
                #expect(chunks.length == 64 && chunks.steps.count == 3)
                let all = scan(chunks, continues ? before : nil)
                for row in 0..<rows {
                    var memory =
                        continues ? before.narrowed(axis: 0, row..<row + 1) : Tensor.zeros([1] + shape)
                    var outputs: [Tensor] = []
                    for token in offsets[row]..<offsets[row + 1] {
                        let next = step(token..<token + 1, memory)
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
}
