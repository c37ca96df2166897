import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import LanguageModels

/// Layers that attend to keys and values of earlier ones, and per-layer embeddings (Gemma 3n and 4). That they compute what
/// transformers computes is tested by `DecoderParityTests`.
@Suite struct SharedKeyTests {
    static let names = ["gemma4", "gemma3n"]

    private func logits(_ model: any LanguageModel, _ rows: [(input: [Int], target: [Int])]) throws -> Tensor {
        let batch = model.batch(rows, device: .cpu)
        return try withTorchErrors { withoutGradients { model.logits(batch) } }
    }

    /// Sequences of a packed batch see nothing of each other.
    @Test(arguments: names) func packedSequencesAreIndependent(name: String) throws {
        let fixture = DecoderFixture(name: name)
        let (model, rows) = (try fixture.load(), try fixture.expected().rows)
        let alone = try rows.map { try logits(model, [$0]) }
        #expect(relativeDifference(try logits(model, rows), Tensor.concatenated(alone)) < 1e-5)
    }

    /// Chunks of prompts and single tokens of sequences that share steps give the logits of whole texts.
    @Test(arguments: names) func sequencesOfAServerShareSteps(name: String) throws {
        let fixture = DecoderFixture(name: name)
        let (model, rows) = (try fixture.load(), try fixture.expected().rows)
        let texts = [Array(rows[2].input.prefix(12)), Array(rows[0].input.prefix(9))]
        let batch = try SequenceBatch(model)
        #expect(batch.isShared)
        let sequences = texts.map { _ in CachedSequence(capacity: 16) }
        func step(_ ranges: [Range<Int>]) throws -> Tensor {
            let inputs = ranges.enumerated().map {
                SequenceBatch.Input(sequences[$0.offset], tokens: Array(texts[$0.offset][$0.element]))
            }
            return try #require(try batch.step(inputs))
        }
        _ = try step([0..<7, 0..<8])
        let last = try step([7..<12, 8..<9])
        let expected = try logits(model, texts.map { ($0, [3]) })
        #expect(relativeDifference(last, expected) < 1e-4)
    }

    /// With activation checkpointing, layers are computed again after the layers that use their keys.
    @Test(arguments: names) func gradientsAreThoseWithoutRecomputation(name: String) throws {
        let fixture = DecoderFixture(name: name)
        let rows = try fixture.expected().rows
        func gradients(_ mode: ActivationCheckpointing.Mode) throws -> [Tensor] {
            let model = try fixture.load()
            let parameters = model.parameters().filter { !model.buffers.contains($0.path) }.map(\.parameter)
            for parameter in parameters { parameter.tensor = parameter.tensor.detached().clone() }
            for parameter in parameters { parameter.tensor.requiresGrad = true }
            let batch = model.batch(rows, device: .cpu)
            try withTorchErrors {
                ActivationCheckpointing.run(mode) { model.lossSum(batch, labelSmoothing: 0) }.backward()
            }
            return try parameters.map { try #require($0.tensor.grad) }
        }
        for (plain, again) in zip(try gradients(.off), try gradients(.keepingInputs)) {
            #expect(plain.isIdentical(to: again))
        }
    }

    /// Files have keys and values of layers that don't use them, and transformers ignores them.
    @Test func unusedKeysAreIgnored() throws {
        let model = try DecoderFixture(name: "gemma4").load()
        for layer in [3, 5] {
            for name in ["k_proj", "v_proj", "k_norm", "v_norm"] {
                #expect(model.isIgnorable("model.layers.\(layer).self_attn.\(name).weight"), "\(name)")
            }
        }
        #expect(!model.isIgnorable("model.layers.2.self_attn.k_proj.weight"))
        #expect(!model.isIgnorable("model.layers.3.self_attn.q_proj.weight"))
    }

    /// Virtual tokens have no ids to look up.
    @Test(arguments: names) func promptsAndNewTokensAreRefused(name: String) throws {
        let model = try DecoderFixture(name: name).load()
        let causal = try #require(model as? any CausalModel)
        #expect(!causal.inputSite.takesPrompts)
        #expect(causal.prefixSites.count == (name == "gemma4" ? 3 : 2))
        #expect(causal.prefixSites.allSatisfy { !$0.takesPrefixes })
        guard name == "gemma4" else { return }
        let error = try #require(throws: PEFTError.self) { try model.growVocabulary(to: 100, seed: 1) }
        #expect(error.problem.contains("per-layer embeddings"))
    }

    /// The text part of a Gemma 3n in the multimodal model's file.
    @Test func theTextPartOfAGemma3nIsRead() throws {
        let fixture = DecoderFixture(name: "gemma3n")
        let (plain, rows) = (try fixture.load(), try fixture.expected().rows)
        let source = try SafetensorsFile(fixture.file("model.safetensors"))
        var tensors = try Dictionary(
            uniqueKeysWithValues: source.entries.keys.map { name in
                (
                    name.replacingOccurrences(of: "model.", with: "model.language_model."),
                    try source.tensor(name)
                )
            })
        for part in ["vision_tower", "audio_tower", "embed_vision", "embed_audio"] {
            tensors["model.\(part).weight"] = .zeros([2])
        }
        let text = try JSON.read(fixture.file("config.json"))
        let configuration: JSON = [
            "model_type": "gemma3n", "text_config": text, "vision_config": ["hidden_size": 8],
            "audio_config": ["hidden_size": 8], "eos_token_id": 1,
        ]
        try withModelFolder(configuration, weights: nil) { folder in
            try SafetensorsFile.write(tensors, metadata: [:], to: folder.appendingPathComponent("model.safetensors"))
            let model = try ModelFolder(folder).load()
            #expect(try logits(model, rows).isIdentical(to: logits(plain, rows)))
        }
    }

    @Test func quantilesAreThoseOfTheNormalDistribution() {
        #expect(SparselyGatedFeedForward.quantile(0.5).magnitude < 1e-12)
        #expect(abs(SparselyGatedFeedForward.quantile(0.95) - 1.6448536269514722) < 1e-12)
        #expect(abs(SparselyGatedFeedForward.quantile(0.01) + 2.3263478740408408) < 1e-12)
    }
}
