import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import LanguageModels

/// Files store experts one by one or stacked, under names of their own; what is written has transformers' names again.
@Suite struct ExpertFileTests {
    static let fixtures = [
        "mixtral", "qwen3_moe", "qwen2_moe", "granitemoe", "deepseek_v3", "llama4_text", "gpt_oss",
        "qwen3_5_moe_text", "qwen3_next", "lfm2_moe", "granitemoehybrid", "nemotron_h",
    ]

    private func folder(_ name: String) throws -> URL {
        try DecoderFixture(name: name).file("config.json").deletingLastPathComponent()
    }

    @Test(arguments: fixtures) func writtenFilesHaveTransformersTensors(name: String) throws {
        let folder = try folder(name)
        let model = try ModelFolder(folder).load()
        try withTemporaryFolder { temporary in
            let copy = temporary.appendingPathComponent("copy")
            try model.save(to: copy)
            let original = try SafetensorsFile(folder.appendingPathComponent("model.safetensors"))
            let written = try SafetensorsFile(copy.appendingPathComponent("model.safetensors"))
            // transformers writes a tied output layer, too.
            let names = Set(original.entries.keys).subtracting(model.hasTiedOutput ? ["lm_head.weight"] : [])
            #expect(Set(written.entries.keys) == names)
            for name in names {
                #expect(try written.tensor(name).isIdentical(to: original.tensor(name)), "\(name)")
            }
        }
    }

    /// transformers writes the model's own names if it is told to keep them.
    @Test func stackedFilesAreReadToo() throws {
        let model = try ModelFolder(folder("mixtral")).load()
        try withTemporaryFolder { temporary in
            try FileManager.default.copyItem(
                at: folder("mixtral").appendingPathComponent("config.json"),
                to: temporary.appendingPathComponent("config.json"))
            let tensors = model.parameters().map { ($0.path, $0.parameter.tensor) }
            try SafetensorsFile.write(
                Dictionary(uniqueKeysWithValues: tensors), metadata: ["format": "pt"],
                to: temporary.appendingPathComponent("model.safetensors"))
            let again = try ModelFolder(temporary).load()
            #expect(
                zip(model.parameters(), again.parameters()).allSatisfy {
                    $0.parameter.tensor.isIdentical(to: $1.parameter.tensor)
                })
        }
    }

    @Test func anExpertThatIsMissingIsNamed() throws {
        let original = try SafetensorsFile(folder("mixtral").appendingPathComponent("model.safetensors"))
        var tensors = try original.tensors()
        tensors["model.layers.1.block_sparse_moe.experts.2.w3.weight"] = nil
        try withTemporaryFolder { temporary in
            try FileManager.default.copyItem(
                at: folder("mixtral").appendingPathComponent("config.json"),
                to: temporary.appendingPathComponent("config.json"))
            try SafetensorsFile.write(
                tensors, metadata: [:], to: temporary.appendingPathComponent("model.safetensors"))
            let error = try #require(throws: PEFTError.self) { try ModelFolder(temporary).load() }
            #expect(error.problem.contains("model.layers.1.mlp.experts.gate_up_proj"), "\(error.problem)")
        }
    }

    @Test func packedExpertsComputeAndAreNotWritten() throws {
        let folder = try folder("mixtral")
        let plain = try ModelFolder(folder).load()
        let model = try ModelFolder(folder).with(weights: WeightStorage("int8")).load()
        let sites = model.namedModules().compactMap { $0.module as? ExpertLinear }
        #expect(sites.count == 4 && sites.allSatisfy { $0.weight.formatName == "int8" })
        let rows = try DecoderFixture(name: "mixtral").expected().rows
        func logits(_ model: any LanguageModel) throws -> Tensor {
            try withTorchErrors { withoutGradients { model.logits(model.batch(rows, device: .cpu)) } }
        }
        let packed = try logits(model)
        #expect(relativeDifference(packed, try logits(plain)) > 1e-6)
        #expect(model.hasRoundedWeights)
        try withTemporaryFolder { temporary in
            let error = try #require(throws: PEFTError.self) {
                try model.save(to: temporary.appendingPathComponent("copy"))
            }
            #expect(error.problem.contains("stored as int8"))
        }
        try model.upcastWeights()
        #expect(sites.allSatisfy { $0.weight.precision == .full } && !model.hasRoundedWeights)
        #expect(relativeDifference(try logits(model), packed) < 1e-5)
    }

    /// gpt-oss's own format: the packed bytes are read, and written as they were.
    @Test func mxfp4FoldersStayPacked() throws {
        let text = """
            {"model_type": "gpt_oss", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
             "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 20,
             "num_local_experts": 2, "num_experts_per_tok": 1, "quantization_config": {"quant_method": "mxfp4"}}
            """
        try withTemporaryFolder { temporary in
            let source = temporary.appendingPathComponent("source")
            try FileManager.default.createDirectory(at: source, withIntermediateDirectories: true)
            try Data(text.utf8).write(to: source.appendingPathComponent("config.json"))
            let outline = try ModelFolder(source).outline()
            var tensors: [String: Tensor] = [:]
            for (index, item) in outline.parameters().enumerated() {
                let (shape, type) = (item.parameter.tensor.shape, item.parameter.tensor.dtype)
                let count = shape.reduce(1, *)
                if type == .uint8 {
                    let isScale = item.path.hasSuffix("_scales")
                    let bytes = (0..<count).map { place in
                        isScale ? UInt8(120 + place % 4) : UInt8(truncatingIfNeeded: place &* 37)
                    }
                    tensors[item.path] = Tensor(bytes).reshaped(shape)
                } else {
                    let tensor = Tensor.empty(shape)
                    tensor.fillNormal(deviation: 0.3, seed: UInt64(index))
                    tensors[item.path] = tensor
                }
            }
            #expect(tensors["model.layers.0.mlp.experts.gate_up_proj_blocks"]?.shape == [2, 64, 1, 16])
            #expect(tensors["model.layers.0.mlp.experts.down_proj_scales"]?.shape == [2, 32, 1])
            try SafetensorsFile.write(
                tensors, metadata: ["format": "pt"], to: source.appendingPathComponent("model.safetensors"))
            let model = try ModelFolder(source).load()
            let rows: [(input: [Int], target: [Int])] = [([3, 5, 7], [2, 9])]
            func logits(_ model: any LanguageModel) throws -> Tensor {
                try withTorchErrors { withoutGradients { model.logits(model.batch(rows, device: .cpu)) } }
            }
            let packed = try logits(model)
            let copy = temporary.appendingPathComponent("copy")
            try model.save(to: copy)
            let written = try SafetensorsFile(copy.appendingPathComponent("model.safetensors"))
            #expect(Set(written.entries.keys) == Set(tensors.keys))
            for (name, tensor) in tensors { #expect(try written.tensor(name).isIdentical(to: tensor), "\(name)") }
            let settings = try JSON.read(copy.appendingPathComponent("config.json"))["quantization_config"]
            #expect(settings?["quant_method"] == "mxfp4")
            // The dequantized model computes the same.
            try model.upcastWeights()
            #expect(relativeDifference(try logits(model), packed) < 1e-5)
        }
    }
}
