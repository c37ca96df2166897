import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch

@testable import LanguageModels

/// The error for an unsupported family names the nearest one and what is missing.
@Suite struct NearestFamilyTests {
    private func problem(_ type: String, _ change: (URL) throws -> Void = { _ in }) throws -> String {
        try withTemporaryCopy(of: Checkout.model("decoders").appendingPathComponent("llama")) { folder in
            try JSON.rewrite(folder.appendingPathComponent("config.json")) {
                $0["model_type"] = .string(type)
                $0["mystery_factor"] = 3
            }
            try change(folder)
            let error = try #require(throws: PEFTError.self) { try ModelFolder(folder).outline() }
            return error.problem
        }
    }

    @Test func keysAndTensorsAreCompared() throws {
        let text = try problem("llama9") { folder in
            let file = folder.appendingPathComponent("model.safetensors")
            var tensors = try SafetensorsFile(file).tensors().mapValues { $0.clone() }
            tensors["model.layers.0.self_attn.sink.weight"] = .zeros([4])
            tensors["model.layers.1.mlp.up_proj.weight"] = nil
            try SafetensorsFile.write(tensors, metadata: [:], to: file)
        }
        #expect(
            text.hasSuffix(
                "; the nearest is 'llama', which doesn't read 'mystery_factor' and lacks the tensors"
                    + " 'model.layers.0.self_attn.sink.weight' and needs the tensors"
                    + " 'model.layers.1.mlp.up_proj.weight'"), "\(text)")
    }

    /// Without weights, names are compared.
    @Test func configurationsAloneAreCompared() throws {
        let text = try problem("llama_next") { folder in
            try FileManager.default.removeItem(at: folder.appendingPathComponent("model.safetensors"))
        }
        #expect(text.hasSuffix("; the nearest is 'llama', which doesn't read 'mystery_factor'"), "\(text)")
        let other = try problem("zamba") { folder in
            try FileManager.default.removeItem(at: folder.appendingPathComponent("model.safetensors"))
        }
        #expect(other.hasSuffix("'zamba', which is not supported"), "\(other)")
    }
}
