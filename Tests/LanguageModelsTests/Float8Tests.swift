import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import LanguageModels

/// 8-bit floats in blocks, compared with PyTorch and transformers (`make_float8_fixtures.py`).
@Suite struct Float8Tests {
    private var folder: URL { Checkout.models.appendingPathComponent("float8") }

    private func logits(_ model: any LanguageModel) throws -> Tensor {
        let ids = (try JSON.read(folder.appendingPathComponent("expected.json"))["ids"]?.array ?? []).compactMap(
            \.int)
        let row = (input: [ids[0]], target: Array(ids.dropFirst()) + [1])
        return try withTorchErrors { withoutGradients { model.logits(model.batch([row], device: .cpu)) } }
    }

    @Test func codesHavePyTorchsValues() throws {
        let expected: [Float] = try SafetensorsFile(folder.appendingPathComponent("expected.safetensors"))
            .tensor("codes").array()
        let values = try withTorchErrors { Tensor((0..<256).map { UInt8($0) }).float8Values.array(Float.self) }
        #expect(values.count == 256)
        for (mine, other) in zip(values, expected) { #expect(mine == other || mine.isNaN && other.isNaN) }
    }

    @Test func logitsEqualTransformers() throws {
        let expected = try SafetensorsFile(folder.appendingPathComponent("expected.safetensors")).tensor("logits")
        let model = try ModelFolder(folder).load()
        #expect(relativeDifference(try logits(model), expected) < 1e-4)
        #expect(model.configuration["quantization_config"] == nil)
        // They can be stored in another format.
        let small = try ModelFolder(folder).with(weights: WeightStorage("bf16")).load()
        let difference = relativeDifference(try logits(small), expected)
        #expect(difference > 1e-6 && difference < 0.1)
    }

    @Test func scalesThatDontFitAreAnError() throws {
        try withTemporaryFolder { temporary in
            for name in ["model.safetensors", "config.json"] {
                try FileManager.default.copyItem(
                    at: folder.appendingPathComponent(name), to: temporary.appendingPathComponent(name))
            }
            func change(_ key: String, to value: JSON) throws -> String {
                let file = temporary.appendingPathComponent("config.json")
                var fields = try #require(try JSON.read(folder.appendingPathComponent("config.json")).object)
                var settings = try #require(fields["quantization_config"]?.object)
                settings[key] = value
                fields["quantization_config"] = .object(settings)
                try AtomicFile.write(JSON.object(fields).text(), to: file)
                return try #require(throws: PEFTError.self) { try ModelFolder(temporary).load() }.problem
            }
            #expect(try change("weight_block_size", to: [8, 8]).contains("no scales that fit"))
            #expect(try change("weight_block_size", to: [0, 8]).contains("weight_block_size"))
            #expect(try change("fmt", to: "e5m2").contains("fmt"))
        }
        // Without a declaration, such tensors are an error as before.
        #expect(throws: PEFTError.self) {
            try SafetensorsFile(folder.appendingPathComponent("model.safetensors"))
        }
    }
}
