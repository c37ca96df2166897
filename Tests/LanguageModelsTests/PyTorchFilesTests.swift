import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN

@testable import LanguageModels

/// Models whose weights are PyTorch's own files, which `make_pytorch_fixtures.py` wrote.
@Suite struct PyTorchFilesTests {
    private static let folder = Bundle.module.bundleURL.appendingPathComponent("Fixtures/pytorch-shards")
    private static let reference = Bundle.module.bundleURL.appendingPathComponent("Fixtures/llama")

    @Test func shardsOfBothFormatsAreRead() throws {
        let folder = try ModelFolder(Self.folder)
        #expect(try folder.storedType() == .bfloat16)
        #expect(folder.weightBytes > 30_000)
        let model = try folder.load()
        let expected = try ModelFolder(Self.reference).load()
        let others = Dictionary(uniqueKeysWithValues: expected.parameters().map { ($0.path, $0.parameter.tensor) })
        #expect(model.parameters().count == others.count)
        for (path, parameter) in model.parameters() {
            let other = try #require(others[path]).to(.bfloat16).to(.float32)
            #expect(parameter.tensor.isIdentical(to: other), "\(path)")
        }
    }

    @Test func safetensorsArePreferred() throws {
        try withTemporaryCopy(of: Self.folder) { copy in
            try FileManager.default.copyItem(
                at: Self.reference.appendingPathComponent("model.safetensors"),
                to: copy.appendingPathComponent("model.safetensors"))
            let type = try ModelFolder(copy).storedType()
            #expect(type == .float32)
        }
    }

    @Test func whatIsMissingIsNamed() throws {
        let shard = "pytorch_model-00002-of-00002.bin"
        try withTemporaryCopy(of: Self.folder) { copy in
            let cut = try Data(contentsOf: copy.appendingPathComponent(shard)).dropLast(1000)
            try cut.write(to: copy.appendingPathComponent(shard))
            let damaged = try #require(throws: PEFTError.self) { try ModelFolder(copy).load() }
            #expect(damaged.problem.contains(shard))
            try FileManager.default.removeItem(at: copy.appendingPathComponent(shard))
            let missing = try #require(throws: PEFTError.self) { try ModelFolder(copy).load() }
            #expect(missing.problem.contains("lacks the shard '\(shard)'"))
            let index = copy.appendingPathComponent("pytorch_model.bin.index.json")
            for text in ["{}", #"{"weight_map": {"a": 1}}"#, #"{"weight_map": {"a": "../b.bin"}}"#, "[", ""] {
                try AtomicFile.write(text, to: index)
                let error = try #require(throws: PEFTError.self, "\(text)") { try ModelFolder(copy).load() }
                #expect(error.problem.contains("index.json"))
            }
            try FileManager.default.removeItem(at: index)
            let none = try #require(throws: PEFTError.self) { try ModelFolder(copy).load() }
            #expect(none.problem.contains("neither model.safetensors nor pytorch_model.bin"))
        }
    }
}
