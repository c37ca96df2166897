import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// Adapters in older formats (`make_conversion_fixtures.py`) do after conversion what they did.
@Suite struct ConversionTests {
    private func folder() throws -> URL {
        try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/conversions")
    }

    @Test func loralibsFusedProjectionsComputeTheSame() throws {
        let expected = try SafetensorsFile(folder().appendingPathComponent("loralib.safetensors"))
        let rows = try JSON.parse(Data(#require(expected.metadata["rows"]).utf8), name: "rows").rows
        let (adapter, notes) = try AdapterConversion.loralib(
            folder().appendingPathComponent("loralib.pt"), on: Models.load("gpt2"), alpha: 8,
            enabled: [true, false, true])
        #expect(notes.isEmpty && !adapter.trained.isEmpty)
        let logits = try adapter.model.scores(rows)
        #expect(relativeDifference(logits, try expected.tensor("logits")) < 1e-4)
        try withTemporaryFolder { folder in
            let saved = folder.appendingPathComponent("converted")
            try adapter.save(to: saved, base: "gpt2")
            let again = try AdapterFolder(saved).attach(to: Models.load("gpt2"))
            #expect(try again.model.scores(rows).isIdentical(to: logits))
        }
    }

    @Test func fusedProjectionsNeedToKnowTheirParts() throws {
        for enabled in [nil, [true, true, true], [true, false], [false, false, false]] as [[Bool]?] {
            let error = try failure {
                _ = try AdapterConversion.loralib(
                    folder().appendingPathComponent("loralib.pt"), on: Models.load("gpt2"), alpha: 8, enabled: enabled
                )
            }
            #expect(error.remedy?.contains("--enable-lora") == true)
        }
        let other = try failure {
            _ = try AdapterConversion.loralib(
                folder().appendingPathComponent("loralib.pt"), on: Models.load("t5-v1.1"), alpha: 8, enabled: nil)
        }
        #expect(other.problem.contains("has no projection 'transformer.h."))
    }

    @Test func olderFoldersAreRead() throws {
        let (configuration, tensors) = try AdapterConversion.olderFolder(folder().appendingPathComponent("older"))
        #expect(configuration["peft_type"] == "LORA")
        #expect(configuration["enable_lora"] == nil && configuration["merge_weights"] == nil)
        let expected = try SafetensorsFile(folder().appendingPathComponent("older.safetensors"))
        #expect(Set(tensors.keys) == Set(expected.entries.keys))
        for (name, tensor) in tensors { #expect(try tensor.isIdentical(to: expected.tensor(name)), "\(name)") }
    }

    @Test func pickledAdaptersAreReadAsTheyAre() throws {
        let fixture = try HuggingFaceTests.Fixture("query-value")
        try withTemporaryFolder { copy in
            for (from, name) in [
                (fixture.folder.appendingPathComponent("adapter_config.json"), "adapter_config.json"),
                (try folder().appendingPathComponent("pickled.bin"), "adapter_model.bin"),
            ] { try FileManager.default.copyItem(at: from, to: copy.appendingPathComponent(name)) }
            let adapter = try AdapterFolder(copy).attach(to: Models.load(fixture.base))
            let scores = try adapter.model.scores(fixture.rows)
            #expect(relativeDifference(scores, try fixture.tensors.tensor("logits")) < 1e-4)
        }
    }

    @Test(arguments: ["evil.bin", "global.bin", "number.bin", "cut.bin"]) func whatIsNoStateDictionaryIsRefused(
        name: String
    ) throws {
        let error = try failure { _ = try TorchFile(folder().appendingPathComponent(name)) }
        #expect(error.problem.contains(name))
        if name == "evil.bin" { #expect(error.problem.contains("system") && error.problem.contains("rejected")) }
        if name == "global.bin" { #expect(error.problem.contains("zipfile.ZipFile")) }
    }

    /// Whatever happens to the bytes, the answer is a value or an error.
    @Test func damagedArchivesAreErrors() throws {
        let data = try Data(contentsOf: folder().appendingPathComponent("loralib.pt"))
        var random = SeededRandom(seed: 3)
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("damaged.pt")
            for round in 0..<150 {
                var copy = data
                if round % 3 == 0 {
                    copy = copy.prefix(random.below(copy.count))
                } else {
                    for _ in 0..<(1 + round % 8) {
                        copy[random.below(copy.count)] = UInt8(truncatingIfNeeded: random.next())
                    }
                }
                try copy.write(to: file)
                _ = try? TorchFile(file)
            }
        }
    }
}
