import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import LanguageModels

/// The gated delta rule computes the same in chunks and token by token.
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
