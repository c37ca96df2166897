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

    @Test(arguments: [false, true]) func chunksEqualSingleSteps(continues: Bool) throws {
        let inputs = Inputs(tokens: 207, seed: 3)
        try ChunkedScans.compare(memory: [4, 3, 2], continues: continues) { chunks, memory in
            inputs.rule().scan(chunks, memory: memory, keepsMemory: true)
        } step: { tokens, memory in
            inputs.rule(tokens).step(memory)
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
            let chunks = SequenceChunks(ChunkedScans.offsets, device: .cpu, most: most)
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
