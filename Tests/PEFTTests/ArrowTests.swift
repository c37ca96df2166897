import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// LoRA adapters with Arrow's routing among them (`make_arrow_fixtures.py`).
@Suite struct ArrowTests {
    private static let names = ["two-of-three", "general"]

    private func folder(_ name: String) throws -> URL {
        try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/arrow/\(name)")
    }

    private func rows() throws -> [(input: [Int], target: [Int])] {
        try JSON.read(Checkout.model("llama").appendingPathComponent("expected.json")).rows
    }

    private func expected(_ name: String) throws -> Tensor {
        try SafetensorsFile(folder(name).appendingPathComponent("expected.safetensors")).tensor("logits")
    }

    @Test(arguments: names) func logitsAreThoseOfHuggingFace(name: String) throws {
        let model = try Models.load("llama")
        // The folder of all adapters stands for its router.
        let (router, note) = AdapterFiles.locate(try folder(name))
        #expect(note?.contains("arrow_router") == true)
        let source = try AdapterFolder(router)
        #expect(source.choice.method.name == "arrow")
        let adapter = try source.attach(to: model)
        let scores = try model.scores(rows())
        #expect(relativeDifference(scores, try expected(name)) < 1e-4)
        #expect(adapter.parameters.isEmpty)
        #expect(try failure { try adapter.merge() }.problem.contains("can't be merged"))
        // One file holds all of it.
        try withTemporaryFolder { copy in
            let saved = copy.appendingPathComponent("saved")
            try adapter.save(to: saved, base: "llama")
            let other = try Models.load("llama")
            let loaded = try AdapterFolder(saved)
            #expect(loaded.notes.isEmpty)
            _ = try loaded.attach(to: other)
            #expect(try other.scores(rows()).isIdentical(to: scores))
        }
    }

    @Test func combiningIsWhatHuggingFaceReads() throws {
        let source = try folder("general")
        func member(_ name: String) throws -> (name: String, folder: AdapterFolder) {
            (name, try AdapterFolder(source.appendingPathComponent(name)))
        }
        let (configuration, tensors) = try ArrowFolder.combined(
            [member("task_0"), member("task_1")], general: [member("gks_0"), member("gks_1")], topK: 1,
            temperature: 1, seed: 5)
        try withTemporaryFolder { folder in
            try AtomicFile.write(
                JSON.object(configuration).text(), to: folder.appendingPathComponent("adapter_config.json"))
            try SafetensorsFile.write(tensors, to: folder.appendingPathComponent("adapter_model.safetensors"))
            let model = try Models.load("llama")
            _ = try AdapterFolder(folder).attach(to: model)
            #expect(relativeDifference(try model.scores(rows()), try expected("general")) < 1e-4)
        }
    }

    /// Without a seed the directions start from that of 0.
    @Test func theSeedMayBeMissing() throws {
        try withTemporaryCopy(of: folder("two-of-three")) { copy in
            let router = copy.appendingPathComponent("arrow_router")
            func scores(_ seed: JSON) throws -> Tensor {
                try rewriteConfiguration(router) { json in
                    json["arrow_config"] = .object(
                        (json["arrow_config"]?.object ?? [:]).merging(["rng_seed": seed]) { $1 })
                }
                let model = try Models.load("llama")
                _ = try AdapterFolder(router).attach(to: model)
                return try model.scores()
            }
            let (without, zero) = (try scores(.null), try scores(0))
            #expect(without.isIdentical(to: zero))
        }
    }

    @Test func routedRowsShareABatch() throws {
        let set = AdapterSet(on: try Models.load("llama"))
        try set.add(AdapterFolder(folder("two-of-three/arrow_router")), name: "routed")
        try set.add(AdapterFolder(folder("two-of-three/task_0")), name: "task")
        let names: [String?] = ["routed", "task", nil]
        let alone = try zip(Models.rows, names).map { row, name -> Tensor in
            try set.activate(name)
            return try set.model.scores([row])
        }
        try set.activate(nil)
        let together = try MixedBatch(set).run(names) { try set.model.scores(Models.rows) }
        #expect(relativeDifference(together, try withTorchErrors { Tensor.concatenated(alone) }) < 1e-5)
    }

    @Test func whatIsMissingOrWrongIsNamed() throws {
        try withTemporaryCopy(of: folder("two-of-three")) { copy in
            let router = copy.appendingPathComponent("arrow_router")
            func problem(_ change: (inout [String: JSON]) -> Void) throws -> String {
                try withTemporaryCopy(of: copy) { changed in
                    let folder = changed.appendingPathComponent("arrow_router")
                    try rewriteConfiguration(folder) { json in
                        var settings = json["arrow_config"]?.object ?? [:]
                        change(&settings)
                        json["arrow_config"] = .object(settings)
                    }
                    return try failure { _ = try AdapterFolder(folder) }.problem
                }
            }
            #expect(try problem { $0["top_k"] = 4 }.contains("top_k is 4, but the routing has 3 adapters"))
            #expect(try problem { $0["router_temperature"] = 0 }.contains("temperature"))
            #expect(try problem { $0["task_adapter_names"] = .null }.contains("names no adapters"))
            #expect(try problem { $0["task_adapter_names"] = ["../task_0"] }.contains("../task_0"))
            #expect(try problem { $0["expert_dropout"] = 1 }.contains("expert_dropout"))
            try rewriteConfiguration(copy.appendingPathComponent("task_2")) { $0["use_dora"] = true }
            #expect(try failure { _ = try AdapterFolder(router) }.problem.contains("plain LoRA"))
            try FileManager.default.removeItem(at: copy.appendingPathComponent("task_2"))
            #expect(try failure { _ = try AdapterFolder(router) }.problem.contains("has no 'task_2'"))
        }
    }
}
