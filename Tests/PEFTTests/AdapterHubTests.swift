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
        let error = try failure { _ = try AdapterHubAdapter.read(try folder("llama-pfeiffer"), on: model) }
        #expect(error.problem.contains("'original_ln_before'"))
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

    @Test func foldersAreRecognized() throws {
        #expect(AdapterHubAdapter.isOne(try folder("llama-lora")))
        #expect(!AdapterHubAdapter.isOne(Checkout.model("llama")))
    }
}
