import Foundation
import PEFTSupport
import Testing
import Torch

@testable import LanguageModels

/// T5's relative position bias: that of each pair of positions, and an error where it is larger than the memory.
@Suite struct PositionBiasTests {
    private func model() throws -> T5 {
        let folder = try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/t5-v1.1")
        return try #require(try ModelFolder(folder).load() as? T5)
    }

    @Test func everyPairHasItsBucket() throws {
        let model = try model()
        for (stack, queries, keys) in [
            (model.encoder, 0..<40, 40), (model.decoder, 3..<20, 20), (model.decoder, 9..<10, 10),
        ] {
            let bias = try #require(stack.positionBiases(queries: queries, keys: keys).first)
            let table = try #require(stack.blocks.first?.attention.relativeBias)
            let buckets = RelativeBuckets(model.settings, isBidirectional: !stack.isDecoder)
            let ids = queries.flatMap { query in (0..<keys).map { buckets.bucket($0 - query) } }
            let expected = table(Tensor(ids, shape: [queries.count, keys])).permuted(2, 0, 1).contiguous()
            #expect(bias.isIdentical(to: expected))
        }
    }

    @Test func textsBeyondTheMemoryAreRejected() throws {
        let model = try model()
        let error = #expect(throws: PEFTError.self) {
            try withTorchErrors { _ = model.decoder.positionBiases(queries: 0..<1_000_000, keys: 1_000_000) }
        }
        #expect(error?.description.contains("relative position bias") == true)
    }
}
