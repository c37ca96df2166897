import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import LanguageModels

/// Decoders with layer norms beyond what `DecoderParityTests` compares: names of published files, linear biases, limits,
/// heads, and configurations that are rejected.
@Suite struct LayerNormDecoderTests {
    struct Refusal: Sendable, CustomTestStringConvertible {
        let fixture: String
        let fields: [String: JSON]
        let words: String
        var testDescription: String { "\(fixture) with \(JSON.object(fields).text(indent: nil))" }

        init(_ fixture: String, _ fields: [String: JSON], _ words: String) {
            (self.fixture, self.fields, self.words) = (fixture, fields, words)
        }
    }

    static let refusals = [
        Refusal("gpt-neox", ["hidden_act": "mish"], "'hidden_act' is 'mish'"),
        Refusal("gpt-neox", ["num_attention_heads": 3], "isn't divisible by 3 heads"),
        Refusal("gpt-neox", ["rotary_pct": 1.5], "'rotary_pct' is 1.5"),
        Refusal("gpt-neox", ["rotary_pct": 0.4], "3 dimensions"),
        Refusal("gpt-neox", ["head_dim": 4], "'head_dim' is 4"),
        Refusal("gpt-neox", ["rope_scaling": ["type": "mrope"]], "RoPE type 'mrope'"),
        Refusal("opt", ["layerdrop": 0.1], "'layerdrop' is not 0"),
        Refusal("opt", ["activation_function": "quick_gelu"], "'activation_function' is 'quick_gelu'"),
        Refusal("bloom", ["num_attention_heads": 5], "by 5 heads ('num_attention_heads')"),
        Refusal("phi", ["tie_word_embeddings": true], "the output layer of a phi model has a bias"),
        Refusal("phi", ["num_key_value_heads": 3], "2 attention heads aren't divisible by 3"),
        Refusal("gptj", ["tie_word_embeddings": true], "the output layer of a gptj model has a bias"),
        Refusal("gptj", ["rotary_dim": .null], "'rotary_dim' is null"),
        Refusal("gptj", ["rotary_dim": 10], "'rotary_dim' is 10"),
        Refusal("gptj", ["rotary_dim": 3], "3 dimensions"),
        Refusal("stablelm", ["head_dim": 4], "'head_dim' is 4"),
        Refusal("starcoder2", ["norm_type": "rms_norm"], "'norm_type' is \"rms_norm\""),
        Refusal("starcoder2", ["mlp_type": "gated"], "'mlp_type' is \"gated\""),
        Refusal(
            "starcoder2", ["layer_types": ["full_attention", "full_attention"]], "layers of a StarCoder2 are alike"),
        Refusal("starcoder2", ["partial_rotary_factor": 0.5], "'partial_rotary_factor' is 0.5"),
        Refusal("falcon", ["activation": "laplace"], "'activation' is 'laplace'"),
        Refusal("falcon", ["num_ln_in_parallel_attn": 2], "'num_ln_in_parallel_attn' is 2"),
        Refusal("falcon", ["multi_query": false, "num_kv_heads": 2], "'num_kv_heads' is 2"),
        Refusal("falcon-new", ["parallel_attn": false], "'parallel_attn' is false"),
        Refusal("falcon-new", ["num_kv_heads": 4], "6 attention heads aren't divisible by 4"),
    ]

    @Test(arguments: refusals) func isRefusedByName(item: Refusal) throws {
        let fields = try #require(try JSON.read(DecoderFixture(name: item.fixture).file("config.json")).object)
        let error = try #require(throws: PEFTError.self) {
            try ModelRegistry.outline(.object(fields.merging(item.fields) { $1 }), file: "config.json")
        }
        #expect(error.problem.contains(item.words), "\(error.problem)")
        #expect(!error.problem.contains("\n") && error.remedy != nil)
    }

    /// Published files have older names, no prefix, and buffers.
    @Test(arguments: [
        ("gpt-neox", "gpt_neox.", ["layers.0.attention.bias", "layers.1.attention.rotary_emb.inv_freq"]),
        ("bloom", "transformer.", []), ("gptj", "transformer.", ["h.0.attn.masked_bias"]), ("opt", "model.", []),
    ])
    func publishedNamesAreUnderstood(name: String, prefix: String, buffers: [String]) throws {
        let fixture = DecoderFixture(name: name)
        let file = try SafetensorsFile(fixture.file("model.safetensors"))
        #expect(name != "gpt-neox" || file.entries["embed_out.weight"] != nil)
        var tensors: [String: Tensor] = [:]
        for key in file.entries.keys { tensors[String(key.trimmingPrefix(prefix))] = try file.tensor(key) }
        for buffer in buffers { tensors[buffer] = .ones([2]) }
        let expected = try fixture.expected()
        try withModelFolder(JSON.read(fixture.file("config.json")), weights: nil) { folder in
            try SafetensorsFile.write(tensors, metadata: [:], to: folder.appendingPathComponent("model.safetensors"))
            let model = try ModelFolder(folder).load()
            let batch = model.batch(expected.rows, device: .cpu)
            let logits = try withTorchErrors { withoutGradients { model.logits(batch) } }
            #expect(relativeDifference(logits, try fixture.tensors().tensor("logits")) < 1e-4)
        }
    }

    /// Slopes and biases of transformers' BLOOM and Falcon.
    @Test func linearBiasesEqualTransformers() {
        func values(_ biases: LinearBiases, head: Int, _ positions: [Int]) -> [Float] {
            biases(positions: 1003, device: .cpu)[head].selecting(Tensor(positions)).array()
        }
        let bloom = LinearBiases(heads: 12)
        let slopes: [Float] = [
            0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625, 0.70710677, 0.35355338, 0.17677668,
            0.088388346,
        ]
        #expect(zip(bloom.slopes, slopes).allSatisfy { abs($0 - $1) < 1e-6 * $1 } && bloom.slopes.count == 12)
        #expect(values(bloom, head: 0, [0, 1, 301]) == [0, 0.5, 150.5])
        let falcon = LinearBiases(heads: 12, areRounded: true)
        #expect(values(falcon, head: 8, [0, 1, 3, 7, 301, 1002]) == [0, 0.70703125, 2.125, 4.9375, 212, 708])
        #expect(values(falcon, head: 9, [1, 3, 301, 1002]) == [0.353515625, 1.0625, 106, 354])
        #expect(values(LinearBiases(heads: 12, scale: 0.5, areRounded: true), head: 8, [301]) == [106])
        #expect(LinearBiases(heads: 1).slopes == [0.00390625])
        // With Hugging Face PEFT's mask of virtual tokens only the slopes are rounded.
        let unrounded: [Float] = falcon(positions: 8, hasVirtualTokens: true, device: .cpu)[8].array()
        #expect(unrounded == (0..<8).map { 0.70703125 * Float($0) })
    }

    /// In a batch each sequence has its own positions, and the shorter ones' rounding is that of them alone.
    @Test(arguments: ["bloom", "falcon-alibi", "falcon-multi-query-alibi", "gptj"])
    func rowsOfABatchAreIndependent(name: String) throws {
        let model = try DecoderFixture(name: name).load()
        let rows: [(input: [Int], target: [Int])] = [
            (Array(3..<43), [5, 6]), ([7, 8, 9], [10, 11, 12, 13]), ([20], [21]),
        ]
        let together = try withTorchErrors { withoutGradients { model.logits(model.batch(rows, device: .cpu)) } }
        let separate = try withTorchErrors {
            withoutGradients { Tensor.concatenated(rows.map { model.logits(model.batch([$0], device: .cpu)) }) }
        }
        #expect(relativeDifference(together, separate) < 1e-6)
    }

    /// Prompts of one token leave nothing to prefill, and shorter prompts of a batch a gap.
    @Test(arguments: ["bloom", "falcon-alibi", "opt", "gptj"], [1, 2]) func promptsOfABatchAreIndependent(
        name: String, beams: Int
    ) throws {
        let model = try DecoderFixture(name: name).load()
        let generator = try Generator(model, GenerateParameters(maxNewTokens: 6, beams: beams))
        let prompts = [[5], Array(3..<33), [7, 8, 9]]
        #expect(try generator.generate(prompts) == prompts.map { try generator.generate([$0])[0] })
    }

    /// The tables of OPT's positions and of GPT-J's angles end.
    @Test(arguments: ["opt", "gptj"]) func generationEndsAtTheLastPosition(name: String) throws {
        let model = try DecoderFixture(name: name).load()
        #expect(model.positionLimit == 64)
        let generator = try Generator(model, GenerateParameters(maxNewTokens: 20, minNewTokens: 20))
        let made = try generator.generate([Array(repeating: 5, count: 60), [7, 8]])
        #expect(made.map(\.count) == [5, 20])
    }

    @Test(arguments: ["gpt-neox", "opt-projected", "bloom", "phi", "stablelm", "starcoder2", "falcon", "gptj"])
    func classifiersHaveTheStackAndTheirHead(name: String) throws {
        let folder = try ModelFolder(DecoderFixture(name: name).file("config.json").deletingLastPathComponent())
        let model = try folder.classifying(["a", "b", "c"]).load()
        let base = try DecoderFixture(name: name).load()
        let paths = Set(base.parameters().map(\.path).filter { !$0.hasPrefix("lm_head.") })
        #expect(Set(model.parameters().map(\.path)) == paths.union(["score.weight"]))
        let batch = model.batch([TrainingRow(input: [5, 6, 7], target: [1])], device: .cpu)
        #expect(try withTorchErrors { withoutGradients { model.logits(batch).shape } } == [1, 3])
    }

    /// OPT without a last norm, and without scales and shifts of norms, has no such tensors.
    @Test func absentNormsHaveNoTensors() throws {
        func norms(_ name: String) throws -> [String] {
            try DecoderFixture(name: name).load().parameters().map(\.path).filter { $0.contains("norm") }
        }
        #expect(try norms("opt-plain").isEmpty)
        #expect(try norms("opt").contains("model.decoder.final_layer_norm.weight"))
        #expect(try !norms("opt-unnormed").contains("model.decoder.final_layer_norm.weight"))
        #expect(try !norms("opt-projected").contains("model.decoder.final_layer_norm.weight"))
    }

    /// The parts of a fused projection are named where they are contiguous.
    @Test func fusedPartsAreThoseOfMultiQueryAttention() throws {
        let path = "transformer.h.0.self_attention.query_key_value"
        let parts = try DecoderFixture(name: "falcon").load().fusedParts(of: path)
        #expect(parts?.map(\.name) == ["q", "k", "v"] && parts?.map(\.size) == [12, 2, 2])
        #expect(try DecoderFixture(name: "falcon-new").load().fusedParts(of: path) == nil)
        #expect(try DecoderFixture(name: "bloom").load().fusedParts(of: path) == nil)
    }
}
