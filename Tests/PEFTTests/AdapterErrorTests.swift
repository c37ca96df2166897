import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN

@testable import PEFT

/// What can be wrong with an adapter's folder: the error names it, and the model stays as it was.
@Suite struct AdapterErrorTests {
    private static let base = "t5-v1.0"
    private static let key = "base_model.model.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight"

    /// Writes a sound adapter, damages it, and checks what attaching it to a model does.
    private func damaged(
        sourceLocation: SourceLocation = #_sourceLocation, _ damage: (URL) throws -> Void
    ) throws -> PEFTError {
        try withTemporaryFolder { folder in
            let model = try Models.load(Self.base)
            let adapter = try Adapter(
                MethodChoice(LoRA.self, LoRA.Configuration(rank: 4, alpha: 8, targets: ["q", "v"])), on: model)
            try adapter.randomize(seed: 1)
            let url = folder.appendingPathComponent("adapter")
            try adapter.save(to: url, base: Self.base)
            try adapter.deactivate()
            let (before, output) = (model.snapshot(), try model.scores())
            try damage(url)
            let error = try failure(sourceLocation: sourceLocation) { _ = try AdapterFolder(url).attach(to: model) }
            #expect(model.adapterCount == 0, sourceLocation: sourceLocation)
            #expect(model.changed(since: before).isEmpty, sourceLocation: sourceLocation)
            #expect(try model.scores().isIdentical(to: output), sourceLocation: sourceLocation)
            return error
        }
    }

    @Test(arguments: [Double.nan, .infinity, -.infinity]) func valuesThatAreNotFiniteAreRefused(value: Double) throws
    {
        let error = try damaged { folder in
            try rewriteTensors(folder) { tensors in
                tensors[Self.key]?.narrowed(axis: 0, 0..<1).narrowed(axis: 1, 0..<2).fill(value)
            }
        }
        #expect(error.problem.contains("'\(Self.key)' contains 2 NaN or infinite values"))
    }

    @Test func missingTensor() throws {
        let error = try damaged { try rewriteTensors($0) { $0[Self.key] = nil } }
        #expect(error.problem.contains(Self.key))
    }

    @Test func unknownTensor() throws {
        let wrong = Self.key.replacingOccurrences(of: "lora_A", with: "lora_C")
        let error = try damaged { try rewriteTensors($0) { $0[wrong] = .zeros([4, 24]) } }
        #expect(error.problem.contains(wrong))
        #expect(try #require(error.remedy).contains("SelfAttention.q.lora_"))
    }

    @Test func tensorWithoutThePrefix() throws {
        let error = try damaged {
            try rewriteTensors($0) {
                $0[String(Self.key.dropFirst("base_model.model.".count))] = $0[Self.key]
                $0[Self.key] = nil
            }
        }
        #expect(error.remedy?.contains(Self.key) == true)
    }

    @Test func misshapenTensor() throws {
        let error = try damaged { try rewriteTensors($0) { $0[Self.key] = .zeros([4, 25]) } }
        #expect(error.problem.contains(Self.key))
        #expect(error.problem.contains("[4, 25]"))
        #expect(error.problem.contains("[4, 24]"))
    }

    @Test func transposedTensor() throws {
        let error = try damaged { try rewriteTensors($0) { $0[Self.key] = .zeros([24, 4]) } }
        #expect(error.problem.contains("[24, 4]"))
    }

    @Test func tensorOfIntegers() throws {
        let error = try damaged { try rewriteTensors($0) { $0[Self.key] = .zeros([4, 24], dtype: .int64) } }
        #expect(error.problem.contains(Self.key) && error.problem.contains("int64"))
    }

    @Test func anotherRank() throws {
        let error = try damaged { try rewriteConfiguration($0) { $0["r"] = 5 } }
        #expect(error.problem.contains("[5, 24]"))
    }

    @Test func moreTargetsThanTensors() throws {
        let error = try damaged { try rewriteConfiguration($0) { $0["target_modules"] = ["q", "v", "k"] } }
        #expect(error.problem.contains(".k.lora_A.weight"))
    }

    @Test(arguments: [0.0, 0.01, 0.5, 0.999]) func truncatedWeights(share: Double) throws {
        let error = try damaged {
            let url = $0.appendingPathComponent("adapter_model.safetensors")
            let data = try Data(contentsOf: url)
            try data.prefix(Int(Double(data.count) * share)).write(to: url)
        }
        #expect(error.problem.contains("adapter_model.safetensors"))
    }

    @Test func truncatedConfiguration() throws {
        let error = try damaged {
            let url = $0.appendingPathComponent("adapter_config.json")
            let data = try Data(contentsOf: url)
            try data.prefix(data.count / 2).write(to: url)
        }
        #expect(error.problem.contains("adapter_config.json"))
    }

    @Test(arguments: ["adapter_config.json", "adapter_model.safetensors"]) func missingFile(name: String) throws {
        let error = try damaged { try FileManager.default.removeItem(at: $0.appendingPathComponent(name)) }
        #expect(error.problem.contains(name))
    }

    @Test func aFileThatIsNoPickleIsRefused() throws {
        let error = try damaged {
            try FileManager.default.moveItem(
                at: $0.appendingPathComponent("adapter_model.safetensors"),
                to: $0.appendingPathComponent("adapter_model.bin"))
        }
        #expect(try #require(error.remedy).contains("safetensors"))
    }

    static let impossible: [(String, JSON)] = [
        ("r", 0), ("r", -3), ("r", 1.5), ("r", "8"), ("r", .integer(.max)), ("lora_alpha", 0), ("lora_dropout", 1),
        ("lora_dropout", -0.1), ("target_modules", 7), ("target_modules", ["qq"]), ("target_modules", "(unclosed"),
        ("bias", "some"), ("layer_replication", [[0, 1]]),
        ("target_parameters", ["x"]), ("alora_invocation_tokens", [1]),
        ("use_bdlora", ["target_modules_bd_a": []]), ("kasa_config", ["beta": -1]), ("velora_config", ["groups": 3]),
        ("megatron_config", 3),
        ("alora_invocation_tokens", [-1]), ("monteclora_config", [1]), ("arrow_config", ["top_k": 2]),
        ("layer_replication", [[2, 1]]), ("rank_pattern", ["q": 0]),
        ("rank_pattern", ["q": 2.5]), ("rank_pattern", ["q(": 2]), ("alpha_pattern", ["q": -1]),
        ("layers_pattern", ["block"]), ("layers_to_transform", [99]), ("exclude_modules", ["q", "v"]),
        ("exclude_modules", ".*"), ("use_rslora", "yes"),
    ]

    @Test(arguments: impossible) func impossibleSetting(key: String, value: JSON) throws {
        let error = try damaged { try rewriteConfiguration($0) { $0[key] = value } }
        // The message names the field, or the value that fits nothing.
        let named = [key, "rank", "alpha", "dropout", "layers", "'qq'", "'(unclosed'", "target"]
        #expect(named.contains { error.description.contains($0) }, "\(error)")
    }

    @Test func unknownMethods() throws {
        let error = try damaged { try rewriteConfiguration($0) { $0["peft_type"] = "TELEPATHY" } }
        #expect(error.problem.contains("TELEPATHY") && error.remedy?.contains("LORA") == true)
        #expect(try failure { _ = try PEFTMethods.named("lorra") }.remedy?.contains("'lora'") == true)
        #expect(try PEFTMethods.named("LoRA").name == "lora")
    }

    @Test func anUnknownTargetNamesTheNearestOne() throws {
        let model = try Models.load(Self.base)
        let (before, output) = (model.snapshot(), try model.scores())
        let choice = MethodChoice(LoRA.self, LoRA.Configuration(rank: 4, alpha: 8, targets: ["q", "w1"]))
        let error = try failure { _ = try Adapter(choice, on: model) }
        #expect(error.problem.contains("'w1'"))
        let remedy = try #require(error.remedy)
        #expect(remedy.contains("did you mean 'wi'") && remedy.contains("q, k, v, o"))
        #expect(model.adapterCount == 0)
        #expect(model.changed(since: before).isEmpty)
        #expect(try model.scores().isIdentical(to: output))
    }

    @Test func anotherModelIsRefused() throws {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("adapter")
            let choice = MethodChoice(LoRA.self, LoRA.Configuration(rank: 2, alpha: 2, targets: ["wi_0"]))
            try Adapter(choice, on: Models.load("t5-v1.1")).save(to: url, base: "t5-v1.1")
            let model = try Models.load(Self.base)
            let error = try failure { _ = try AdapterFolder(url).attach(to: model) }
            #expect(error.problem.contains("'wi_0'"))
            #expect(error.remedy?.contains("'wi'") == true)
            #expect(model.adapterCount == 0)
        }
    }

    @Test func savingReplacesAFolderAsAWhole() throws {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("adapter")
            let adapter = try Adapter(MethodChoice(LoRA.self), on: Models.load(Self.base))
            try adapter.save(to: url, base: Self.base)
            try Data("old".utf8).write(to: url.appendingPathComponent("left over"))
            try adapter.save(to: url, base: Self.base)
            #expect(
                try FileManager.default.contentsOfDirectory(atPath: url.path).sorted() == [
                    "adapter_config.json", "adapter_model.safetensors",
                ])
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["adapter"])
        }
    }
}
