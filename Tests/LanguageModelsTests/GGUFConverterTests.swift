import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchTestSupport

@testable import LanguageModels

/// Written files have the names, settings and values of llama.cpp's converter (`make_gguf_names.py`), and are read back as
/// the same model.
@Suite struct GGUFConverterTests {
    private static let expected = Bundle.module.resourceURL.map {
        $0.appendingPathComponent("Fixtures/gguf/names.json")
    }

    /// Settings that the converter writes of some families only, and that llama.cpp reads of all.
    private static let others: Set<String> = [
        "attention.key_length", "attention.value_length", "attention.head_count_kv", "vocab_size", "rope.freq_base",
        "rope.dimension_count", "context_length", "expert_group_count", "expert_group_used_count",
    ]

    /// Σ (1 + i mod 97) xᵢ.
    private static func weightedSum(_ tensor: Tensor) -> Double {
        tensor.array(Double.self).enumerated().reduce(0) { $0 + Double($1.offset % 97 + 1) * $1.element }
    }

    private static func logits(_ model: any LanguageModel) throws -> Tensor {
        let batch = model.batch([((0..<9).map { 2 + ($0 * 37) % 80 }, [5, 33, 12, 1])], device: .cpu)
        return try withTorchErrors { withoutGradients { model.logits(batch) } }
    }

    @Test(arguments: [
        "phi", "starcoder2", "falcon", "falcon-new", "gpt-neox", "bloom", "stablelm", "stablelm-parallel", "olmo3",
        "gpt_oss", "deepseek_v2", "deepseek_v3", "lfm2", "lfm2_moe",
        "granitemoehybrid",
    ]) func filesEqualTheConverters(name: String) throws {
        let file = try #require(Self.expected)
        let expected = try #require(try JSON.read(file)[name])
        let fixture = DecoderFixture(name: name)
        let fields = (try JSON.read(fixture.file("config.json")).object ?? [:])
            .merging(expected["changes"]?.object ?? [:]) { $1 }
        try withModelFolder(.object(fields), weights: fixture.file("model.safetensors")) { folder in
            let model = try ModelFolder(folder).load()
            let file = folder.appendingPathComponent("a.gguf")
            try model.writeGGUF(to: file, type: .f32, tokenizer: [], name: "a")
            try Self.compare(GGUFFile(file), with: expected)
            let original = try Self.logits(model)
            let again = try ModelFolder(file).load()
            #expect(again.family == model.family)
            #expect(try relativeDifference(Self.logits(again), original) < 1e-5)
            try model.writeGGUF(to: file, type: .f16, tokenizer: [], name: "a")
            #expect(try relativeDifference(Self.logits(ModelFolder(file).load()), original) < 1e-2)
        }
    }

    private static func compare(_ file: GGUFFile, with expected: JSON) throws {
        let tensors = try #require(expected["tensors"]?.object)
        #expect(Set(file.entries.keys) == Set(tensors.keys))
        for (name, value) in tensors where file.entries[name] != nil {
            let tensor = try file.tensor(name)
            #expect(tensor.shape == value.array?.first?.array?.compactMap(\.int), "\(name)")
            let sum = try #require(value.array?.last?.double)
            #expect(abs(weightedSum(tensor) - sum) < 1e-6 * (1 + abs(sum)), "\(name)")
        }
        let prefix = try #require(expected["architecture"]?.string)
        #expect(file.settings["general.architecture"]?.string == prefix)
        let settings = try #require(expected["settings"]?.object)
        for (key, value) in settings {
            let own = file.settings[key]
            switch value {
            case .string(let text): #expect(own?.string == text, "\(key)")
            case .bool(let flag): #expect(own?.flag == flag, "\(key)")
            case .array(let list):
                #expect(own?.list?.numbers == list.map { $0 == true ? 1 : $0.double ?? 0 }, "\(key)")
            default:
                let number = try #require(value.double)
                #expect(abs((own?.number ?? .nan) - number) <= 1e-6 * abs(number), "\(key)")
            }
        }
        let more = file.settings.keys.filter { $0.hasPrefix(prefix + ".") && settings[$0] == nil }
        #expect(Set(more.map { String($0.dropFirst(prefix.count + 1)) }).isSubset(of: others))
    }
}
