import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import LanguageModels

/// Folders of LLM Compressor compute what transformers computes with the numbers they stand for
/// (`make_compressed_tensors_fixtures.py`).
@Suite struct CompressedTensorsTests {
    /// Names, and the number of projections that stay packed.
    static let packed = [
        "packed": 7, "packed-zeros": 7, "packed-ordered": 7, "packed-bytes": 7, "packed-narrow": 0, "integers": 7,
        "integers-zeros": 7, "floats": 0, "floats-channels": 0, "floats-blocks": 0,
    ]

    private static func folder(_ name: String) throws -> URL {
        try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/compressed-tensors/\(name)")
    }

    private static func difference(_ model: any LanguageModel, _ name: String) throws -> Double {
        let expected = try SafetensorsFile(folder(name).appendingPathComponent("expected.safetensors"))
        let row = (input: [3], target: [9, 40, 21, 7, 7, 30, 1])
        let logits = try withTorchErrors { withoutGradients { model.logits(model.batch([row], device: .cpu)) } }
        return relativeDifference(logits, try expected.tensor("logits"))
    }

    private static func packedCount(_ model: any LanguageModel) -> Int {
        model.namedModules().count { ($0.module as? Linear)?.weight is GroupQuantizedWeight }
    }

    @Test(arguments: packed.keys.sorted()) func logitsAreThoseOfTheNumbers(name: String) throws {
        let folder = try ModelFolder(Self.folder(name))
        let model = try folder.load()
        #expect(Self.packedCount(model) == Self.packed[name])
        #expect(try Self.difference(model, name) < 1e-4)
        #expect(folder.isQuantized == !name.hasPrefix("floats"))
        // As numbers they are the same.
        let wide = try folder.with(weights: .float32).load()
        #expect(Self.packedCount(wide) == 0)
        #expect(try Self.difference(wide, name) < 1e-4)
        #expect(try folder.with(weights: WeightStorage("nf4")).load().hasRoundedWeights)
        // Saved, they are a GPTQ folder or numbers.
        try withTemporaryFolder { temporary in
            let copy = temporary.appendingPathComponent("copy")
            try model.save(to: copy, dtype: .float32)
            let again = try ModelFolder(copy).load()
            #expect(Self.packedCount(again) == Self.packed[name])
            #expect(try Self.difference(again, name) < 1e-4)
        }
    }

    /// A plan counts shapes without weights.
    @Test func outlinesAreQuantized() throws {
        let configuration = try JSON.read(Self.folder("packed").appendingPathComponent("config.json"))
        try withModelFolder(configuration, weights: nil) { empty in
            let outline = try ModelFolder(empty).outline()
            #expect(Self.packedCount(outline) == 7)
        }
    }

    @Test func whatCannotBeReadIsRefused() throws {
        func error(_ path: [String], _ value: JSON, name: String = "packed") throws -> String {
            func changed(_ json: JSON, _ path: ArraySlice<String>) -> JSON {
                guard let key = path.first else { return value }
                var fields = json.object ?? [:]
                fields[key] = changed(fields[key] ?? [:], path.dropFirst())
                return .object(fields)
            }
            let weights = try Self.folder(name).appendingPathComponent("model.safetensors")
            let file = try JSON.read(Self.folder(name).appendingPathComponent("config.json"))
            return try #require(throws: PEFTError.self) {
                try withModelFolder(changed(file, (["quantization_config"] + path)[...]), weights: weights) {
                    _ = try ModelFolder($0).load()
                }
            }.problem
        }
        let weights = ["config_groups", "group_0", "weights"]
        #expect(try error(["format"], "nvfp4-pack-quantized").contains("nvfp4-pack-quantized"))
        #expect(try error(["quantization_status"], "frozen").contains("frozen"))
        #expect(try error(["sparsity_config"], ["format": "sparse-24-bitmask"]).contains("sparsity_config"))
        #expect(try error(["transform_config"], ["config_groups": ["R1": [:]]]).contains("transform_config"))
        #expect(try error(["config_groups"], [:]).contains("config_groups"))
        #expect(try error(weights + ["num_bits"], 5).contains("num_bits"))
        #expect(try error(weights + ["num_bits"], 8).contains("no 'num_bits' explains"))
        #expect(
            try error(weights + ["block_structure"], [8, 8], name: "floats-blocks").contains(
                "scales of another shape"))
    }
}
