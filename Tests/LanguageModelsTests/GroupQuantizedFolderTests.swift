import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import LanguageModels

/// GPTQ and AWQ folders compute what transformers computes with the numbers they stand for (`make_gptq_fixtures.py`).
@Suite struct GroupQuantizedFolderTests {
    static let names = ["plain", "act-order", "second-format", "columns", "two-bits", "real-zeros", "awq"]

    private static func folder(_ name: String) throws -> URL {
        try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/gptq/\(name)")
    }

    private static func rows(_ folder: URL) throws -> [(input: [Int], target: [Int])] {
        try JSON.read(folder.appendingPathComponent("expected.json")).rows
    }

    private static func logits(_ model: any LanguageModel, _ folder: URL) throws -> Tensor {
        let rows = try rows(folder)
        return try withTorchErrors { withoutGradients { model.logits(model.batch(rows, device: .cpu)) } }
    }

    private static func weights(_ model: any LanguageModel) -> [(path: String, weight: GroupQuantizedWeight)] {
        model.namedModules().compactMap { path, module in
            ((module as? Linear)?.weight as? GroupQuantizedWeight).map { (path, $0) }
        }
    }

    @Test(arguments: names) func logitsAreThoseOfTheNumbers(name: String) throws {
        let folder = try Self.folder(name)
        let expected = try SafetensorsFile(folder.appendingPathComponent("expected.safetensors"))
        for dtype in [DType.float32, .float64] {
            let model = try ModelFolder(folder).load(dtype: dtype)
            let weights = Self.weights(model)
            #expect(weights.count == 7 * (name == "plain" ? 2 : 1))
            let k = try #require(weights.first { $0.path.hasSuffix("layers.0.self_attn.k_proj") }).weight
            #expect(relativeDifference(k.dense(as: dtype), try expected.tensor("k_proj")) < 1e-6)
            #expect(relativeDifference(try Self.logits(model, folder), try expected.tensor("logits")) < 1e-4)
        }
    }

    /// Written and read again, the bits are the same, but for AWQ's, which become GPTQ's.
    @Test(arguments: names) func foldersSurvive(name: String) throws {
        let folder = try Self.folder(name)
        let model = try ModelFolder(folder).load()
        let output = try Self.logits(model, folder)
        let copy = FileManager.default.temporaryDirectory.appendingPathComponent("gptq-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: copy) }
        try model.save(to: copy, dtype: .float16)
        let again = try ModelFolder(copy).load()
        #expect(try Self.logits(again, folder).isIdentical(to: output))
        let written = try #require(try JSON.read(copy.appendingPathComponent("config.json"))["quantization_config"])
        let own = try JSON.read(folder.appendingPathComponent("config.json"))["quantization_config"]
        #expect(written["quant_method"] == "gptq")
        guard name != "awq" else { return }
        #expect(try GPTQFormat(written).settings.bits == own?["bits"]?.int)
        #expect(written["desc_act"] == own?["desc_act"])
        let (before, after) = (
            try SafetensorsFile(folder.appendingPathComponent("model.safetensors")),
            try SafetensorsFile(copy.appendingPathComponent("model.safetensors"))
        )
        #expect(Set(before.entries.keys) == Set(after.entries.keys))
        for key in before.entries.keys {
            #expect(try before.tensor(key).isIdentical(to: after.tensor(key)), "\(key)")
        }
    }

    /// A plan counts shapes without weights.
    @Test func outlinesAreQuantized() throws {
        let folder = try Self.folder("plain")
        let outline = try ModelFolder(folder).outline()
        #expect(Self.weights(outline).count == 14)
        let configuration = try JSON.read(folder.appendingPathComponent("config.json"))
        try withModelFolder(configuration, weights: nil) { empty in
            let outline = try ModelFolder(empty).outline()
            #expect(Self.weights(outline).count == 14)
        }
    }

    @Test func whatCannotBeReadIsRefused() throws {
        let folder = try Self.folder("plain")
        let weights = folder.appendingPathComponent("model.safetensors")
        let configuration = try JSON.read(folder.appendingPathComponent("config.json"))
        let changes: [(String, JSON, String)] = [
            ("bits", 5, "'quantization_config.bits' is 5"),
            ("group_size", 0, "'quantization_config.group_size' is 0"),
            ("quant_method", "aqlm", "'aqlm', which is not supported"), ("group_size", 24, "group size 24"),
            ("group_size", 64, "group size 64"), ("bits", 8, "has shape"),
            ("checkpoint_format", "marlin", "'quantization_config.checkpoint_format'"),
            ("dynamic", ["-:.*": [:]], "'quantization_config.dynamic'"),
            ("swift_peft_zeros", "float16", "declares floating-point zero points"),
        ]
        for (key, value, words) in changes {
            var fields = try #require(configuration.object)
            var settings = try #require(fields["quantization_config"]?.object)
            settings[key] = value
            fields["quantization_config"] = .object(settings)
            let error = try #require(throws: PEFTError.self) {
                try withModelFolder(.object(fields), weights: weights) { _ = try ModelFolder($0).load() }
            }
            #expect(error.description.contains(words), "\(error)")
        }
    }
}
