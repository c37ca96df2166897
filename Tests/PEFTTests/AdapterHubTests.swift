import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// Adapters of AdapterHub's program (`make_adapterhub_fixtures.py`) compute after conversion what they compute there.
@Suite struct AdapterHubTests {
    private func folder(_ name: String) throws -> URL {
        try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/adapterhub/\(name)")
    }

    /// Writes a converted adapter and attaches it.
    private func converted(_ source: URL, on model: any LanguageModel) throws -> Adapter {
        let (configuration, tensors) = try AdapterHubAdapter.read(source, on: model)
        return try withTemporaryFolder { folder in
            try AtomicFile.write(
                JSON.object(configuration).text(), to: folder.appendingPathComponent("adapter_config.json"))
            try SafetensorsFile.write(tensors, to: folder.appendingPathComponent("adapter_model.safetensors"))
            let written = try AdapterFolder(folder)
            #expect(written.notes.isEmpty)
            return try written.attach(to: model)
        }
    }

    @Test(arguments: [
        ("llama-lora", "lora"), ("llama-ia3", "ia3"), ("llama-houlsby", "houlsby"), ("bert-lora", "lora"),
        ("bert-ia3", "ia3"), ("bert-houlsby", "houlsby"), ("bert-parallel", "parallel"),
        ("llama-pfeiffer", "pfeiffer"), ("bert-pfeiffer", "pfeiffer"), ("bert-compacter", "houlsby"),
        ("llama-parallel", "parallel"), ("llama-channel", "pfeiffer"), ("llama-learned", "houlsby"),
        ("llama-prefix", "prefix"), ("llama-prefix-flat", "prefix"),
    ]) func convertedAdaptersComputeTheSame(name: String, method: String) throws {
        let source = try folder(name)
        let isGenerator = name.hasPrefix("llama")
        let model = try Models.load(isGenerator ? "llama" : "bert")
        let before = try model.scores([([5, 17, 33, 60, 7, 21], [0])])
        let adapter = try converted(source, on: model)
        #expect(adapter.choice.method.name == method)
        let expected = try SafetensorsFile(source.appendingPathComponent("expected.safetensors")).tensor("logits")
        if isGenerator {
            // The scores that predict the last three tokens.
            let logits = try model.scores([([5, 17, 33], [60, 7, 21])])
            #expect(relativeDifference(logits, expected.narrowed(axis: 0, 2..<5)) < 1e-4)
        } else {
            let logits = try model.scores([([5, 17, 33, 60, 7, 21], [0])])
            #expect(relativeDifference(logits, expected.reshaped(logits.shape)) < 1e-4)
            #expect(relativeDifference(logits, before) > 1e-2)
        }
    }

    @Test func whatComputesOtherwiseIsRejected() throws {
        let model = try Models.load("llama")
        let error = try failure { _ = try AdapterHubAdapter.read(try folder("bert-prefix"), on: Models.load("bert")) }
        #expect(error.problem.contains("positions"))
        try withTemporaryFolder { setup in
            let json: JSON = ["adapter_setup": ["type": "Parallel", "children": []], "version": "adapters.1.3.0"]
            try AtomicFile.write(json.text(), to: setup.appendingPathComponent("adapter_setup.json"))
            #expect(AdapterHubAdapter.isOne(setup))
            let error = try failure { _ = try AdapterHubAdapter.read(setup, on: model) }
            #expect(error.problem.contains("'Parallel'") && error.remedy?.contains("an adapter in it") == true)
        }
        let other = try failure { _ = try AdapterHubAdapter.read(try folder("bert-lora"), on: model) }
        #expect(other.problem.contains("not a projection of this llama model"))
        try withTemporaryCopy(of: folder("llama-lora")) { copy in
            for (key, value) in [("use_gating", JSON.bool(true)), ("architecture", "reft"), ("r", 3)] {
                try withTemporaryCopy(of: copy) { changed in
                    let file = changed.appendingPathComponent("adapter_config.json")
                    try JSON.rewrite(file) { json in
                        var settings = json["config"]?.object ?? [:]
                        settings[key] = value
                        json["config"] = .object(settings)
                    }
                    #expect(throws: PEFTError.self, "\(key)") { try AdapterHubAdapter.read(changed, on: model) }
                }
            }
        }
    }

    /// Before version 1.1, α was divided by itself.
    @Test func oldFilesHaveNoScale() throws {
        let model = try Models.load("llama")
        try withTemporaryCopy(of: folder("llama-lora")) { copy in
            let json = try AdapterHubAdapter.read(copy, on: model).configuration
            #expect(json["r"] == 4 && json["lora_alpha"]?.double == 8)
            try JSON.rewrite(copy.appendingPathComponent("adapter_config.json")) { $0["version"] = "adapters.1.0.1" }
            #expect(try AdapterHubAdapter.read(copy, on: model).configuration["lora_alpha"]?.double == 4)
        }
    }

    /// Writing what was read gives the same tensors under the same names.
    @Test(arguments: [
        "llama-lora", "bert-lora", "llama-houlsby", "llama-pfeiffer", "llama-learned", "bert-houlsby",
        "bert-pfeiffer",
        "bert-parallel",
    ]) func foldersAreWritten(name: String) throws {
        let source = try folder(name)
        let model = try Models.load(name.hasPrefix("llama") ? "llama" : "bert")
        try withTemporaryFolder { folder in
            let (configuration, tensors) = try AdapterHubAdapter.read(source, on: model)
            try AtomicFile.write(
                JSON.object(configuration).text(), to: folder.appendingPathComponent("adapter_config.json"))
            try SafetensorsFile.write(tensors, to: folder.appendingPathComponent("adapter_model.safetensors"))
            let written = try AdapterHubAdapter.converted(AdapterFolder(folder), named: "task", on: model)
            let original = try TorchFile(source.appendingPathComponent("pytorch_adapter.bin"))
            #expect(Set(written.tensors.keys) == Set(original.entries.keys))
            let settings = try #require(JSON.read(source.appendingPathComponent("adapter_config.json"))["config"])
            // A constant scale is U's.
            let scale = settings["scaling"]?.double ?? 1
            for (key, tensor) in written.tensors {
                let factor = key.contains("adapter_up") ? scale : 1
                #expect(relativeDifference(tensor, try original.tensor(key) * factor) < 1e-6, "\(key)")
            }
            for (key, value) in written.configuration["config"]?.object ?? [:]
            where !["init_weights", "reduction_factor"].contains(key) {
                #expect(settings[key] == value, "\(key)")
            }
        }
    }

    @Test func whatCannotBeWrittenIsNamed() throws {
        let model = try Models.load("llama")
        for (method, options, word) in [
            ("lora", [("targets", "o_proj")], "o_proj"), ("ia3", [], "IA³"),
            ("parallel", [("rank", "4")], "--reads-stream"),
        ] {
            var choice = MethodChoice(try PEFTMethods.named(method))
            for (option, value) in options { try choice.set(option, to: value) }
            let adapter = try Adapter(choice, on: model)
            try withTemporaryFolder { folder in
                let copy = folder.appendingPathComponent("adapter")
                try adapter.save(to: copy, base: "llama")
                let error = try failure {
                    _ = try AdapterHubAdapter.converted(AdapterFolder(copy), named: "task", on: model)
                }
                #expect(error.problem.contains(word) || error.remedy?.contains(word) == true, "\(error)")
            }
            try adapter.deactivate()
        }
    }

    @Test func foldersAreRecognized() throws {
        #expect(AdapterHubAdapter.isOne(try folder("llama-lora")))
        #expect(!AdapterHubAdapter.isOne(Checkout.model("llama")))
    }
}
