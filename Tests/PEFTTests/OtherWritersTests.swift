import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// Files that other programs leave compute what they did there, and nothing in them is passed over.
@Suite struct OtherWritersTests {
    /// Writes an adapter's folder anew with other names or files.
    private func rewritten<Result>(
        _ name: String, _ change: (URL, inout [String: Tensor]) throws -> Void, _ body: (URL) throws -> Result
    ) throws -> Result {
        try withTemporaryFolder { folder in
            let copy = folder.appendingPathComponent("adapter")
            try FileManager.default.copyItem(at: HuggingFaceTests.Fixture(name).folder, to: copy)
            let file = copy.appendingPathComponent("adapter_model.safetensors")
            var tensors = try SafetensorsFile(file).tensors().mapValues { $0.clone() }
            try FileManager.default.removeItem(at: file)
            try change(copy, &tensors)
            if !tensors.isEmpty { try SafetensorsFile.write(tensors, metadata: ["format": "pt"], to: file) }
            return try body(copy)
        }
    }

    private static let wrappers: [String: @Sendable (String) -> String] = [
        "torch.compile": { "_orig_mod." + $0 },
        "compiled base": { $0.replacing("base_model.model.", with: "base_model.model._orig_mod.") },
        "FSDP": { $0.replacing(".layers.", with: "._fsdp_wrapped_module.layers.") },
        "DistributedDataParallel": { "module." + $0 },
        "a state dictionary": { $0.replacing(".weight", with: ".default.weight") },
        "no prefix": { $0.replacing("base_model.model.", with: "") },
        "AutoModel": { $0.replacing("base_model.model.model.", with: "base_model.model.") },
    ]

    @Test(arguments: wrappers.keys.sorted()) func namesOfWrappersAreRead(wrapper: String) throws {
        let fixture = try HuggingFaceTests.Fixture("llama-lora")
        let rename = try #require(Self.wrappers[wrapper])
        try rewritten("llama-lora") { _, tensors in
            tensors = Dictionary(uniqueKeysWithValues: tensors.map { (rename($0.key), $0.value) })
        } _: { copy in
            let folder = try AdapterFolder(copy)
            let adapter = try folder.attach(to: Models.load(fixture.base))
            let scores = try adapter.model.scores(fixture.rows)
            #expect(relativeDifference(scores, try fixture.tensors.tensor("logits")) < 1e-4)
            let names = try folder.canonicalTensors(on: Models.load(fixture.base)).keys
            #expect(Set(names) == Set(try AdapterFolder(fixture.folder).tensors.entries.keys))
        }
    }

    @Test func shardsAreReadByTheirIndex() throws {
        let fixture = try HuggingFaceTests.Fixture("query-value")
        try rewritten("query-value") { copy, tensors in
            let names = tensors.keys.sorted()
            let parts = [names.prefix(3), names.dropFirst(3)].map(Array.init)
            var map: [String: JSON] = [:]
            for (number, part) in parts.enumerated() {
                let shard = "adapter_model-0000\(number + 1)-of-00002.safetensors"
                try SafetensorsFile.write(
                    tensors.filter { part.contains($0.key) }, metadata: ["format": "pt"],
                    to: copy.appendingPathComponent(shard))
                for name in part { map[name] = .string(shard) }
            }
            try AtomicFile.write(
                JSON.object(["weight_map": .object(map)]).text(),
                to: copy.appendingPathComponent("adapter_model.safetensors.index.json"))
            tensors = [:]
        } _: { copy in
            let adapter = try AdapterFolder(copy).attach(to: Models.load(fixture.base))
            let scores = try adapter.model.scores(fixture.rows)
            #expect(relativeDifference(scores, try fixture.tensors.tensor("logits")) < 1e-4)
            try FileManager.default.removeItem(
                at: copy.appendingPathComponent("adapter_model-00002-of-00002.safetensors"))
            #expect(try failure { _ = try AdapterFolder(copy) }.problem.contains("00002-of-00002"))
        }
    }

    @Test func theNewestCheckpointOfARunIsTaken() throws {
        try withTemporaryFolder { folder in
            let source = try HuggingFaceTests.Fixture("query-value").folder
            for step in [9, 100, 20] {
                try FileManager.default.copyItem(at: source, to: folder.appendingPathComponent("checkpoint-\(step)"))
            }
            let found = AdapterFiles.locate(folder)
            #expect(found.folder.lastPathComponent == "checkpoint-100")
            #expect(found.note?.contains("newest of 3") == true)
            #expect(AdapterFiles.locate(source).note == nil)
            let direct = try failure { _ = try AdapterFolder(folder) }
            #expect(direct.remedy?.hasSuffix("checkpoint-100") == true)
            let other = folder.appendingPathComponent("other")
            for name in ["first", "second"] {
                try FileManager.default.createDirectory(at: other, withIntermediateDirectories: true)
                try FileManager.default.copyItem(at: source, to: other.appendingPathComponent(name))
            }
            let error = try failure { _ = try AdapterFolder(AdapterFiles.locate(other).folder) }
            #expect(error.problem.contains("first, second") && error.remedy?.contains("other/second") == true)
        }
    }

    // MARK: MLX

    /// As mlx-lm writes them: the factors transposed, their scale, and settings of its own.
    private func mlx(_ copy: URL, _ tensors: [String: Tensor], kind: String = "lora") throws {
        let renamed = tensors.map { name, tensor -> (String, Tensor) in
            let name = name.replacing("base_model.model.", with: "").replacing("lora_A.weight", with: "lora_a")
                .replacing("lora_B.weight", with: "lora_b").replacing("lora_embedding_A", with: "lora_a")
                .replacing("lora_embedding_B", with: "lora_b").replacing("lora_magnitude_vector", with: "m")
            return (name, tensor.rank == 2 ? tensor.T.contiguous() : tensor)
        }
        try SafetensorsFile.write(
            Dictionary(uniqueKeysWithValues: renamed), metadata: ["format": "mlx"],
            to: copy.appendingPathComponent("adapters.safetensors"))
        let own = try #require(JSON.read(copy.appendingPathComponent("adapter_config.json")).object)
        let scale = (own["lora_alpha"]?.double ?? 0) / (own["r"]?.double ?? 1)
        let settings: JSON = [
            "fine_tune_type": .string(kind), "num_layers": 2, "model": "base",
            "lora_parameters": ["rank": own["r"] ?? 0, "scale": .number(scale), "dropout": 0.0],
        ]
        try AtomicFile.write(settings.text(), to: copy.appendingPathComponent("adapter_config.json"))
    }

    @Test(arguments: ["llama-lora", "dora"]) func mlxAdaptersComputeTheSame(name: String) throws {
        let fixture = try HuggingFaceTests.Fixture(name)
        try rewritten(name) { copy, tensors in
            try mlx(copy, tensors, kind: name == "dora" ? "dora" : "lora")
            tensors = [:]
        } _: { copy in
            let (configuration, tensors) = try MLXAdapter.read(copy, on: Models.load(fixture.base))
            let adapter = try attach(configuration, tensors, to: Models.load(fixture.base))
            let scores = try adapter.model.scores(fixture.rows)
            #expect(relativeDifference(scores, try fixture.tensors.tensor("logits")) < 1e-4)
            let error = try failure { _ = try AdapterFolder(copy) }
            #expect(error.problem.contains("MLX") && error.remedy?.contains("peft convert") == true)
        }
    }

    /// What is converted to MLX is read as what it was.
    @Test(arguments: ["llama-lora", "scales", "tied-together"]) func adaptersAreConvertedToMLX(name: String) throws {
        let tied = try name == "tied-together" ? VocabularyTests.Fixture(name) : nil
        let source = try tied?.folder.url ?? HuggingFaceTests.Fixture("llama-lora").folder
        let base = try tied?.base ?? HuggingFaceTests.Fixture("llama-lora").base
        try withTemporaryFolder { folder in
            let copy = folder.appendingPathComponent("adapter")
            try FileManager.default.copyItem(at: source, to: copy)
            if name == "scales" {
                try rewriteConfiguration(copy) {
                    $0["alpha_pattern"] = ["layers.1.self_attn.q_proj": 5]
                    $0["use_rslora"] = true
                }
            }
            let original = try AdapterFolder(copy)
            let wanted = try original.attach(to: Models.load(base)).model.scores(tied?.rows)
            let (configuration, tensors) = try MLXAdapter.converted(original, on: Models.load(base))
            #expect(configuration["fine_tune_type"] == "lora" && configuration["num_layers"] == -1)
            let lora = try #require(configuration["lora_parameters"])
            let rank = try #require(lora["rank"]?.int)
            let keys = lora["keys"]?.array?.compactMap(\.string) ?? []
            #expect(keys.contains("self_attn.q_proj") && keys.contains("model.embed_tokens") == (tied != nil))
            let factors = try #require(tensors["model.layers.0.self_attn.q_proj.lora_a"])
            #expect(factors.dim(1) == rank && factors.dim(0) == 24)
            let mlx = folder.appendingPathComponent("mlx")
            try FileManager.default.createDirectory(at: mlx, withIntermediateDirectories: true)
            try AtomicFile.write(
                JSON.object(configuration).text(), to: mlx.appendingPathComponent("adapter_config.json"))
            try SafetensorsFile.write(
                tensors, metadata: ["format": "mlx"], to: mlx.appendingPathComponent("adapters.safetensors"))
            let back = try MLXAdapter.read(mlx, on: Models.load(base))
            let model = try Models.load(base)
            _ = try attach(back.configuration, back.tensors, to: model)
            #expect(relativeDifference(try model.scores(tied?.rows), wanted) < 1e-5)
        }
    }

    @Test(
        arguments: [
            ("query-value", "another name in mlx-lm"), ("ia3", "LoRA or DoRA"),
            ("modules-to-save", "mlx-lm's adapters"),
        ]) func whatMLXCannotStoreIsRefused(name: String, told: String) throws
    {
        let fixture = try HuggingFaceTests.Fixture(name)
        let error = try failure {
            _ = try MLXAdapter.converted(AdapterFolder(fixture.folder), on: Models.load(fixture.base))
        }
        #expect(error.problem.contains(told) && error.remedy?.contains("peft merge") == true, "\(error)")
        let apart = try VocabularyTests.Fixture("tied-both")
        #expect(
            try failure { _ = try MLXAdapter.converted(apart.folder, on: Models.load(apart.base)) }.problem.contains(
                "output layer"))
    }

    /// An embedding that is the output layer too uses its update there in MLX.
    @Test func tiedEmbeddingsOfMLXStayTogether() throws {
        let fixture = try VocabularyTests.Fixture("tied-together")
        try withTemporaryFolder { copy in
            try FileManager.default.copyItem(
                at: fixture.folder.url.appendingPathComponent("adapter_config.json"),
                to: copy.appendingPathComponent("adapter_config.json"))
            let own = try fixture.folder.tensors.tensors().filter {
                !$0.key.contains("lm_head") && !$0.key.contains("base_layer")
            }
            try mlx(copy, own)
            let (configuration, tensors) = try MLXAdapter.read(copy, on: Models.load(fixture.base))
            let adapter = try attach(configuration, tensors, to: Models.load(fixture.base))
            #expect(relativeDifference(try adapter.model.scores(fixture.rows), fixture.logits) < 1e-4)
        }
    }

    @Test func whatIsNoLoRAOfMLXIsRefusedByName() throws {
        try rewritten("llama-lora") { copy, tensors in
            tensors["base_model.model.model.norm.weight"] = .ones([4])
            try mlx(copy, tensors)
            tensors = [:]
        } _: { copy in
            let error = try failure { _ = try MLXAdapter.read(copy, on: Models.load("llama")) }
            #expect(error.problem.contains("'model.norm.weight'"))
            let full: JSON = ["fine_tune_type": "full", "num_layers": 2]
            try AtomicFile.write(full.text(), to: copy.appendingPathComponent("adapter_config.json"))
            #expect(
                try failure { _ = try MLXAdapter.read(copy, on: Models.load("llama")) }.problem.contains("'full'"))
        }
    }

    private func attach(_ configuration: [String: JSON], _ tensors: [String: Tensor], to model: any LanguageModel)
        throws
        -> Adapter
    {
        try withTemporaryFolder { folder in
            try AtomicFile.write(
                JSON.object(configuration).text(), to: folder.appendingPathComponent("adapter_config.json"))
            try SafetensorsFile.write(
                tensors, metadata: ["format": "pt"], to: folder.appendingPathComponent("adapter_model.safetensors"))
            return try AdapterFolder(folder).attach(to: model)
        }
    }

    // MARK: loralib

    private func loralib(_ more: [String: Tensor], _ body: (URL, any LanguageModel) throws -> Void) throws {
        let model = try Models.load("roberta:classification")
        let path = try #require(ModelOutline(model).linears.map(\.path).first { $0.hasSuffix("query") })
        let linear = try #require(model.namedModules().first { $0.path == path }?.module as? Linear)
        var tensors = more
        tensors["module.\(path).lora_A"] = .ones([2, linear.inputs])
        tensors["module.\(path).lora_B"] = .ones([linear.outputs, 2])
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("lora.safetensors")
            try SafetensorsFile.write(tensors, metadata: [:], to: file)
            try body(file, model)
        }
    }

    @Test func headsAndNormsOfLoralibComeAlong() throws {
        let model = try Models.load("roberta:classification")
        let all = Dictionary(model.parameters().map { ($0.path, $0.parameter.tensor) }, uniquingKeysWith: { $1 })
        let norm = try #require(all.keys.sorted().first { $0.hasSuffix("LayerNorm.weight") })
        var changed = all.filter { $0.key.hasPrefix("classifier.") || $0.key == norm }.mapValues {
            $0.detached() + 0.5
        }
        let copied = try #require(all.keys.sorted().first { $0.hasSuffix("key.weight") })
        changed[copied] = all[copied]?.detached().clone()
        try loralib(changed) { file, model in
            let (adapter, notes) = try AdapterConversion.loralib(file, on: model, alpha: 4, enabled: nil)
            let stored = adapter.storedTensors()
            for (path, value) in changed where path != copied {
                #expect(stored["base_model.model." + path]?.isIdentical(to: value) == true, "\(path)")
            }
            #expect(stored["base_model.model." + copied] == nil)
            #expect(notes.contains { $0.contains("1 tensors are identical to the base model's") })
            #expect(notes.contains { $0.contains("head") })
            let configuration = adapter.choice.configuration.json
            #expect(configuration["bias"] == "none")
            #expect(configuration["modules_to_save"] == [.string(String(norm.dropLast(".weight".count)))])
        }
    }

    @Test func noTensorOfLoralibIsPassedOver() throws {
        try loralib(["roberta.encoder.somewhere": .ones([2])]) { file, model in
            let error = try failure { _ = try AdapterConversion.loralib(file, on: model, alpha: 4, enabled: nil) }
            #expect(error.problem.contains("roberta.encoder.somewhere"))
            #expect(model.adapterCount == 0)
        }
        try loralib(["classifier.out_proj.weight": .ones([9, 2])]) { file, model in
            let error = try failure { _ = try AdapterConversion.loralib(file, on: model, alpha: 4, enabled: nil) }
            #expect(error.problem.contains("classifier.out_proj.weight") && error.problem.contains("[9, 2]"))
        }
    }

    // MARK: Soft prompts

    /// What `numpy.save` writes.
    private func array(_ bytes: Data, _ shape: String, type: String = "<f4", order: String = "False") -> Data {
        var header = "{'descr': '\(type)', 'fortran_order': \(order), 'shape': (\(shape)), }"
        header += String(repeating: " ", count: 63 - (10 + header.utf8.count) % 64) + "\n"
        let count = header.utf8.count
        return Data([0x93] + Array("NUMPY".utf8) + [1, 0, UInt8(count & 255), UInt8(count >> 8)]) + Data(header.utf8)
            + bytes
    }

    private func data(_ values: [Float]) -> Data { values.withUnsafeBytes { Data($0) } }

    @Test func arraysOfNumpyAreRead() throws {
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("a.npy")
            try array(data([1, 2, 3, 4, 5, 6]), "2, 3").write(to: file)
            let tensor = try NumpyFile.read(file)
            #expect(tensor.shape == [2, 3] && tensor.array(Float.self) == [1, 2, 3, 4, 5, 6])
            try array(data([1, 4, 2, 5, 3, 6]), "2, 3", order: "True").write(to: file)
            #expect(try NumpyFile.read(file).array(Float.self) == [1, 2, 3, 4, 5, 6])
            try array(Data([0, 0x3C, 0, 0xC0]), "2,", type: "<f2").write(to: file)
            #expect(try NumpyFile.read(file).array(Float.self) == [1, -2])
            for broken in [
                array(data([1, 2]), "3,"), array(data([1]), "1,", type: "<i4"), Data("no array at all".utf8), Data(),
                array(data([1, 2]), "2,").prefix(20), array(data([]), "9999999999, 9999999999"),
            ] {
                try broken.write(to: file)
                #expect(try failure { _ = try NumpyFile.read(file) }.problem.contains("a.npy"))
            }
        }
    }

    @Test func softPromptsOfNumpyBecomeAdapters() throws {
        let fixture = try HuggingFaceTests.Fixture("prompt-encoder")
        let prompt = try AdapterFolder(fixture.folder).tensors.tensor("prompt_embeddings")
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("prompt.npy")
            let values: [Float] = prompt.array()
            try array(data(values), "\(prompt.dim(0)), \(prompt.dim(1))").write(to: file)
            let adapter = try SoftPromptFile.read(file, on: Models.load(fixture.base))
            let scores = try adapter.model.scores(fixture.rows)
            #expect(relativeDifference(scores, try fixture.tensors.tensor("logits")) < 1e-4)
            let error = try failure { _ = try SoftPromptFile.read(file, on: Models.load("decoders/llama")) }
            #expect(error.problem.contains("\(prompt.shape)"))
        }
    }
}
