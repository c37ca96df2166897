import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import LanguageModels

/// Gated delta nets compute the same in chunks, token by token, and beside other sequences.
@Suite struct GatedDeltaNetTests {
    /// Random inputs of the rule: two key heads of size 3, four value heads of size 2.
    private struct Inputs {
        let all: [Tensor]

        init(tokens: Int, seed: UInt64) {
            all = [[2, 3], [2, 3], [4, 2], [4], [4]].enumerated().map { index, shape in
                let x = Tensor.empty([tokens] + shape)
                x.fillNormal(seed: seed + UInt64(index))
                return index == 3 ? x.sigmoid() : index == 4 ? -(x.softplus() * 0.2) : x
            }
        }

        func rule(_ tokens: Range<Int>? = nil) -> GatedDeltaRule {
            let own = tokens.map { range in all.map { $0.narrowed(axis: 0, range) } } ?? all
            return GatedDeltaRule(queries: own[0], keys: own[1], values: own[2], rates: own[3], decays: own[4])
        }
    }

    /// Sequences of many lengths, with an empty one, one of a whole chunk, and one of several.
    private static let offsets = [0, 5, 5, 69, 70, 205, 207]

    @Test(arguments: [false, true]) func chunksEqualSingleSteps(continues: Bool) throws {
        let (offsets, inputs) = (Self.offsets, Inputs(tokens: 207, seed: 3))
        let before = Tensor.empty([6, 4, 3, 2])
        before.fillNormal(seed: 9)
        try withTorchErrors {
            try withoutGradients {
                let chunks = SequenceChunks(offsets, device: .cpu)
                #expect(chunks.length == 64 && chunks.steps.count == 3)
                let all = inputs.rule().scan(chunks, memory: continues ? before : nil, keepsMemory: true)
                for row in 0..<6 {
                    var memory =
                        continues ? before.narrowed(axis: 0, row..<row + 1) : Tensor.zeros([1, 4, 3, 2])
                    var outputs: [Tensor] = []
                    for token in offsets[row]..<offsets[row + 1] {
                        let next = inputs.rule(token..<token + 1).step(memory)
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
            let inputs = Inputs(tokens: 207, seed: 5)
            let leaves = inputs.all.map { $0.detached() }
            for leaf in leaves { leaf.requiresGrad = true }
            let rule = GatedDeltaRule(
                queries: leaves[0], keys: leaves[1], values: leaves[2], rates: leaves[3], decays: leaves[4])
            let chunks = SequenceChunks(Self.offsets, device: .cpu, most: most)
            return try withTorchErrors {
                (rule.scan(chunks, memory: nil, keepsMemory: false).outputs * weights).sum().backward()
                return leaves.compactMap(\.grad)
            }
        }
        let (whole, small) = (try gradients(most: 64), try gradients(most: 7))
        #expect(whole.count == 5)
        for (a, b) in zip(whole, small) { #expect(relativeDifference(a, b) < 1e-4) }
    }

    static let models = ["qwen3_5_text", "qwen3_5_text-types", "qwen3_next"]
    private static let texts = [[5, 8, 13, 21, 34, 55, 89, 3], [7, 9], [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]]

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
        let model = try #require(try DecoderFixture(name: name).load() as? Llama)
        let layer = try #require(model.layers[0].attention as? GatedDeltaNet)
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
    @Test(arguments: models) func sequencesOfManyLengthsShareASteps(name: String) throws {
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

    /// Layers that predict further tokens are left out of a text model, and written back with a multimodal one.
    @Test func furtherLayersAreKnown() throws {
        for (name, isKept) in [("qwen3_5_text", false), ("qwen3_5", true)] {
            let fixture = DecoderFixture(name: name)
            let configuration = try JSON.read(fixture.file("config.json"))
            var tensors = try SafetensorsFile(fixture.file("model.safetensors")).tensors()
            tensors["mtp.fc.weight"] = .ones([2, 2])
            try withModelFolder(configuration, weights: nil) { folder in
                try SafetensorsFile.write(
                    tensors, metadata: ["format": "pt"], to: folder.appendingPathComponent("model.safetensors"))
                let copy = folder.appendingPathComponent("copy")
                try ModelFolder(folder).load().save(to: copy)
                let written = try SafetensorsFile(copy.appendingPathComponent("model.safetensors"))
                #expect((written.entries["mtp.fc.weight"] != nil) == isKept, "\(name)")
            }
        }
    }
}
