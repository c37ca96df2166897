import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing

@testable import PEFT

/// No setting of an adapter's configuration is passed over in silence.
@Suite struct ConfigurationCheckTests {
    private func configuration(_ more: [String: JSON], of fixture: String = "query-value") throws -> AdapterFolder {
        try withTemporaryFolder { folder in
            let source = try HuggingFaceTests.Fixture(fixture).folder
            for name in ["adapter_config.json", "adapter_model.safetensors"] {
                try FileManager.default.copyItem(
                    at: source.appendingPathComponent(name), to: folder.appendingPathComponent(name))
            }
            let file = folder.appendingPathComponent("adapter_config.json")
            let fields = try #require(JSON.read(file).object).merging(more) { $1 }
            // Some editors put a mark before the text.
            try Data([0xEF, 0xBB, 0xBF] + Array(JSON.object(fields).text().utf8)).write(to: file)
            return try AdapterFolder(folder)
        }
    }

    /// `make_configuration_defaults.py` writes what Hugging Face PEFT says.
    @Test func defaultsAreHuggingFaces() throws {
        let file = try #require(Bundle.module.resourceURL).appendingPathComponent(
            "Fixtures/configuration-defaults.json")
        let expected = try #require(JSON.read(file).object)
        #expect(Set(expected.keys) == Set(HuggingFaceDefaults.fields.keys))
        for (type, fields) in HuggingFaceDefaults.fields {
            let own = fields.filter { $0.key != "runtime_config" }
            #expect(JSON.object(own) == expected[type], "\(type)")
        }
    }

    /// Whatever a configuration of Hugging Face's may say is read, or has a default that changes nothing.
    @Test func adaptersWithDefaultsHaveNoNotes() throws {
        // What these say of training is told (LoRASwitchTests).
        let noted: Set = ["corda", "lora-ga", "monteclora", "velora-average"]
        for name in HuggingFaceTests.variants where !noted.contains(name) {
            let folder = try AdapterFolder(HuggingFaceTests.Fixture(name).folder)
            #expect(folder.notes.isEmpty, "\(name): \(folder.notes)")
        }
    }

    @Test(
        arguments: [
            ("use_telepathy", true), ("telepathy_config", ["depth": 2]), ("extra_modules", ["q"]),
        ] as [(String, JSON)]) func unknownSettingsThatMayChangeTheResultAreRefused(key: String, value: JSON) throws
    {
        let error = try failure { _ = try configuration([key: value]) }
        #expect(error.problem.contains("'\(key)'"))
    }

    @Test func settingsOfTrainingAreTold() throws {
        let folder = try configuration([
            "megatron_core": "other.core", "seen_by": "a program", "steps": 7, "use_nothing": false, "empty": [:],
        ])
        #expect(folder.notes.count == 3)
        for key in ["megatron_core", "seen_by", "steps"] {
            #expect(folder.notes.contains { $0.contains("'\(key)'") }, "\(key)")
        }
    }

    /// As in Hugging Face PEFT, which writes its version since 0.18.
    @Test func versionsWithAnotherSeriesOfOFTAreTold() throws {
        for (version, isTold) in [(.null, true), ("0.17.1", true), ("0.18.0", false), ("0.21.3.dev0@abc", false)]
            as [(JSON, Bool)]
        {
            let notes = try configuration(["peft_version": version], of: "oft").notes
            #expect(notes.contains { $0.contains("series") } == isTold, "\(version): \(notes)")
        }
        #expect(try configuration(["peft_version": "0.17.1"], of: "oft-exact").notes.isEmpty)
    }

    @Test func aRandomizedStartIsTold() throws {
        let folder = try configuration(["init_lora_weights": "pissa_niter_4"])
        #expect(folder.notes.contains { $0.contains("pissa_niter_4") })
    }

    @Test func anEmptyPatternOfLayersIsNone() throws {
        #expect(try configuration(["layers_pattern": ""]).notes.isEmpty)
    }
}
