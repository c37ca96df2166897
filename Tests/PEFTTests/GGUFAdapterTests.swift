import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchTestSupport

@testable import PEFT

/// llama.cpp's LoRA files say what Hugging Face's say (`make_gguf_adapter_fixtures.py`).
@Suite struct GGUFAdapterTests {
    private func folder() throws -> URL {
        try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/gguf-adapter")
    }

    @Test func adaptersComputeWhatPEFTComputes() throws {
        let expected = try SafetensorsFile(folder().appendingPathComponent("expected.safetensors"))
        let rows = try JSON.parse(Data(#require(expected.metadata["rows"]).utf8), name: "rows").array ?? []
        let row = (rows.first?.array ?? []).compactMap(\.int)
        let model = try Models.load("llama")
        let (configuration, tensors) = try GGUFAdapter.read(
            folder().appendingPathComponent("adapter.gguf"), on: model)
        #expect(configuration["r"] == 2)
        try withTemporaryFolder { folder in
            try JSON.object(configuration).text().write(
                to: folder.appendingPathComponent("adapter_config.json"), atomically: true, encoding: .utf8)
            try SafetensorsFile.write(tensors, to: folder.appendingPathComponent("adapter_model.safetensors"))
            _ = try AdapterFolder(folder).attach(to: model)
            let logits = try model.scores([(Array(row.prefix(8)), Array(row.dropFirst(8)) + [0])])
            let own = logits.narrowed(axis: 0, (logits.dim(0) - 4)..<logits.dim(0))
            #expect(relativeDifference(own, try expected.tensor("logits")) < 1e-4)
        }
    }

    @Test func foldersBecomeTheSameFile() throws {
        let model = try Models.load("llama")
        try withTemporaryFolder { temporary in
            let file = temporary.appendingPathComponent("a.gguf")
            try GGUFAdapter.write(AdapterFolder(folder()), on: model, to: file)
            let (own, golden) = try (GGUFFile(file), GGUFFile(folder().appendingPathComponent("adapter.gguf")))
            #expect(Set(own.entries.keys) == Set(golden.entries.keys))
            for name in golden.entries.keys {
                #expect(relativeDifference(try own.tensor(name), try golden.tensor(name)) < 1e-6, "\(name)")
            }
            for key in ["general.architecture", "general.type", "adapter.type", "adapter.lora.alpha"] {
                #expect(own.settings[key] == golden.settings[key], "\(key)")
            }
            try GGUFAdapter.write(AdapterFolder(folder()), on: model, type: .f16, to: file)
            #expect(try GGUFFile(file).type(of: "blk.0.attn_q.weight.lora_a") == .f16)
        }
    }

    /// Hugging Face stores the output layer beside a LoRA over it: a base without weights can't differ from it.
    @Test func outputLayersAreAdapted() throws {
        let model = try Models.load("llama")
        try withTemporaryFolder { temporary in
            let saved = temporary.appendingPathComponent("adapter")
            let adapter = try Adapter(
                MethodChoice(LoRA.self, LoRA.Configuration(rank: 2, alpha: 4, targets: ["lm_head", "q_proj"])),
                on: model)
            try adapter.randomize(seed: 3)
            try adapter.save(to: saved, base: "llama")
            try adapter.deactivate()
            let file = saved.appendingPathComponent("adapter_model.safetensors")
            var tensors = try SafetensorsFile(file).tensors()
            let head = try #require(model.parameters().first { $0.path == "lm_head.weight" }).parameter.tensor
            let key = "base_model.model.lm_head.base_layer.weight"
            tensors[key] = head.detached().clone()
            try SafetensorsFile.write(tensors, to: file)
            let outline = try ModelFolder(Models.folder.appendingPathComponent("llama")).outline()
            let target = temporary.appendingPathComponent("a.gguf")
            try GGUFAdapter.write(AdapterFolder(saved), on: outline, to: target)
            #expect(try GGUFFile(target).entries.keys.contains("output.weight.lora_a"))
            // Another shape is another model's.
            tensors[key] = .zeros([2, 3])
            try SafetensorsFile.write(tensors, to: file)
            #expect(throws: PEFTError.self) {
                try GGUFAdapter.write(
                    AdapterFolder(saved), on: outline, to: temporary.appendingPathComponent("b.gguf"))
            }
        }
    }

    /// What a GGUF adapter can't say is refused by name, and nothing is left behind.
    @Test(
        arguments: [
            ("dora", [:], "DoRA"), ("vera", [:], "VeRA"),
            ("lora", ["modules-to-save": "lm_head"], "lm_head"), ("lora", ["lora-bias": "true"], "lora_B.bias"),
        ] as [(String, [String: String], String)])
    func whatCannotBeSaidIsRefused(name: String, options: [String: String], word: String) throws {
        let model = try Models.load("llama")
        var choice = MethodChoice(try #require(PEFTMethods.all.first { $0.name == name }))
        for (key, value) in options { try choice.set(key, to: value) }
        try withTemporaryFolder { temporary in
            let saved = temporary.appendingPathComponent("a")
            try Adapter(choice, on: model).save(to: saved, base: "llama")
            let file = temporary.appendingPathComponent("a.gguf")
            let error = try failure {
                try GGUFAdapter.write(AdapterFolder(saved), on: Models.load("llama"), to: file)
            }
            #expect(error.problem.contains(word), "\(error.problem)")
            #expect(!FileManager.default.fileExists(atPath: file.path))
        }
    }

    @Test func otherFilesAreRefused() throws {
        let file = try folder().appendingPathComponent("adapter.gguf")
        let other = try failure { _ = try GGUFAdapter.read(file, on: Models.load("qwen2")) }
        #expect(other.problem.contains("'llama', but the model's is 'qwen2'"))
        let model = try failure {
            _ = try GGUFAdapter.read(
                Models.folder.appendingPathComponent("gguf/llama.gguf"), on: Models.load("llama"))
        }
        #expect(model.problem.contains("not a LoRA adapter"))
        let family = try failure { _ = try GGUFAdapter.read(file, on: Models.load("gpt2")) }
        #expect(family.problem.contains("gpt2"))
        let base = try failure { _ = try ModelFolder(file) }
        #expect(base.problem.contains("of the type 'adapter', not a model"))
    }
}
