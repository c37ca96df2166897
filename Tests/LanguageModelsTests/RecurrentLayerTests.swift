import Foundation
import PEFTSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import LanguageModels

/// Layers with states compute the same in batches, token by token, and beside other sequences.
@Suite struct RecurrentLayerTests {
    static let models = [
        "qwen3_5_text", "qwen3_5_text-types", "qwen3_next", "lfm2-biases", "lfm2_moe", "granitemoehybrid",
        "granitemoehybrid-dense", "falcon_h1", "falcon_h1-biases", "nemotron_h", "nemotron_h-dense",
    ]
    private static let texts = [[5, 8, 13, 21, 34, 55, 89, 3], [7, 9], [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]]

    /// Sequences of many lengths, with an empty one, one of a whole chunk, and one of several.
    private static let offsets = [0, 5, 5, 69, 70, 205, 207]

    private func logits(_ model: any LanguageModel, _ rows: [(input: [Int], target: [Int])]) throws -> Tensor {
        try withTorchErrors { withoutGradients { model.logits(model.batch(rows, device: .cpu)) } }
    }

    /// No state passes from one packed sequence to the next.
    @Test(arguments: models) func sequencesOfABatchAreIndependent(name: String) throws {
        let model = try DecoderFixture(name: name).load()
        let rows = Self.texts.map { (input: Array($0.prefix(1)), target: Array($0.dropFirst())) }
        let together = try logits(model, rows)
        let alone = try Tensor.concatenated(rows.map { try logits(model, [$0]) })
        #expect(relativeDifference(together, alone) < 1e-5)
        var other = rows
        other[0].target[2] = 60
        let changed = try logits(model, other)
        let rest = 7..<together.dim(0)
        let (before, after) = (together.narrowed(axis: 0, rest), changed.narrowed(axis: 0, rest))
        if model.modelFamily.modules.experts == nil {
            #expect(after.isIdentical(to: before))
        } else {
            // Other tokens of an expert change the number of rows of its matmuls, and so the order of their sums.
            #expect(relativeDifference(after, before) < 1e-5)
        }
        #expect(!changed.narrowed(axis: 0, 0..<7).isIdentical(to: together.narrowed(axis: 0, 0..<7)))
    }

    private final class Sequences: AttentionContext {
        private let offsets: [Int]
        init(_ offsets: [Int]) {
            self.offsets = offsets
            super.init(positions: Tensor.arange(0, offsets.last ?? 0), longest: offsets.last ?? 0)
        }
        override var sequenceOffsets: [Int] { offsets }
    }

    /// The outputs of a layer are the same to the bit, whatever the sequences beside a sequence are.
    @Test(arguments: models) func statesAreThoseOfOneSequence(name: String) throws {
        let model = try DecoderFixture(name: name).load()
        let layer = try #require(
            model.namedModules().lazy.compactMap { $0.module as? any RecurrentLayer & SelfAttention }.first)
        let x = Tensor.empty([207, 16])
        x.fillNormal(seed: 4)
        let other = Tensor.empty([69, 16])
        other.fillNormal(seed: 6)
        try withTorchErrors {
            withoutGradients {
                let context = Sequences(Self.offsets)
                let output = layer(x, context)
                let changed = layer(Tensor.concatenated([other, x.narrowed(axis: 0, 69..<207)]), context)
                func rest(_ x: Tensor) -> Tensor { x.narrowed(axis: 0, 69..<207) }
                #expect(rest(changed).isIdentical(to: rest(output)))
                let firsts = 0..<69
                #expect(
                    relativeDifference(changed.narrowed(axis: 0, firsts), output.narrowed(axis: 0, firsts)) > 0.1)
            }
        }
    }

    /// As the server does: prompts in chunks beside sequences that decode, which leave and join.
    @Test(arguments: models) func sequencesOfManyLengthsShareSteps(name: String) throws {
        let model = try DecoderFixture(name: name).load()
        let batch = try SequenceBatch(model)
        #expect(batch.isShared && batch.bytesPerSequence > 0)
        let sequences = Self.texts.map { CachedSequence(capacity: $0.count) }
        let chunks = [3, 1, 4]
        var last = [Tensor?](repeating: nil, count: 3)
        while let most = zip(sequences, Self.texts).map({ $1.count - $0.length }).max(), most > 0 {
            let active = sequences.indices.filter { sequences[$0].length < Self.texts[$0].count }
            let output = try #require(
                try batch.step(
                    active.map { row in
                        let rest = Self.texts[row].dropFirst(sequences[row].length)
                        return SequenceBatch.Input(sequences[row], tokens: Array(rest.prefix(chunks[row])))
                    }))
            for (index, row) in active.enumerated() { last[row] = output.narrowed(axis: 0, index..<index + 1) }
        }
        for (row, text) in Self.texts.enumerated() {
            let whole = try logits(model, [(input: text, target: [1])])
            #expect(relativeDifference(try #require(last[row]), whole) < 1e-4, "\(row)")
        }
        // A state is that of all tokens, so a part of them can't be shared.
        #expect(try batch.prefix(of: sequences[0], length: 4, capacity: 20) == nil)
        let next = try [
            #require(try batch.prefix(of: sequences[0], length: 8, capacity: 20)),
            #require(try batch.copy(of: sequences[0])),
        ]
        let output = try #require(try batch.step(next.map { SequenceBatch.Input($0, tokens: [17, 30]) }))
        let whole = try logits(model, [(input: Self.texts[0] + [17, 30], target: [1])])
        for row in 0..<2 {
            #expect(relativeDifference(output.narrowed(axis: 0, row..<row + 1), whole) < 1e-4)
        }
    }

    /// Beams and prompts that end before others take their states with them.
    @Test(arguments: models) func beamsOfSeveralPromptsEqualThoseOfEach(name: String) throws {
        let model = try DecoderFixture(name: name).load()
        let generator = try Generator(model, GenerateParameters(maxNewTokens: 8, beams: 3))
        let together = try generator.generate(Self.texts)
        #expect(try together == Self.texts.map { try generator.generate([$0])[0] })
    }
}
