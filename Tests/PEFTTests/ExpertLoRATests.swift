import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// LoRA of experts beyond what `HuggingFaceTests` compares.
@Suite struct ExpertLoRATests {
    private func plan(_ base: String, _ change: (inout LoRA.Configuration) -> Void) throws -> [PEFT.Attachment] {
        var configuration = LoRA.Configuration()
        change(&configuration)
        let model = try Models.load(base)
        return try MethodChoice(LoRA.Implementation.self, configuration).plan(for: ModelOutline(model))
    }

    private func problem(_ base: String, _ change: (inout LoRA.Configuration) -> Void) throws -> String {
        try #require(throws: PEFTError.self) { try plan(base, change) }.problem
    }

    @Test func settingsThatPEFTRejectsAreRejected() throws {
        let both = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
        #expect(
            try problem("decoders/mixtral") { ($0.parameters, $0.dropout) = (both, 0.1) }.contains("a dropout"))
        #expect(
            try problem("decoders/mixtral") {
                $0.parameters = both
                $0.variants[DoRA.self].isEnabled = true
            }.contains("DoRA"))
        #expect(
            try problem("decoders/mixtral") { $0.parameters = ["experts.w1"] }
                .contains("'experts.w1' matches no"))
        #expect(
            try problem("decoders/mixtral") { $0.parameters = ["input_layernorm.weight"] }
                .contains("is not the matrix"))
        #expect(
            try problem("decoders/mixtral") { $0.selection.targets = ["w1", "w2"] }
                .contains("'w1' is one tensor with 'w3'"))
        #expect(
            try problem("decoders/mixtral") {
                ($0.selection.targets, $0.parameters) = (["q_proj"], ["q_proj.weight"])
            }
            .contains("is among --targets and --target-parameters"))
    }

    /// PEFT nests its wrappers: the last tensor of a layer is outermost.
    @Test func namesFollowPEFTsNesting() throws {
        let attachments = try plan("decoders/mixtral") { $0.parameters = ["gate_up_proj", "down_proj"] }
        var keys: [String] = []
        for attachment in attachments {
            for tensor in attachment.tensors { keys.append(attachment.fileKey(tensor.key)) }
        }
        let prefix = "base_model.model.model.layers.0.mlp.experts."
        let expected = ["base_layer.lora_A", "base_layer.lora_B", "lora_A", "lora_B"].map { prefix + $0 + ".weight" }
        #expect(keys.filter { $0.hasPrefix(prefix) } == expected)
    }

    @Test func mergingAndUnmergingRestoresTheBits() throws {
        let folder = try HuggingFaceTests.Fixture("mixtral-experts").folder
        let model = try Models.load("decoders/mixtral")
        let before = model.snapshot()
        let adapter = try AdapterFolder(folder).attach(to: model)
        try adapter.merge()
        #expect(!model.changed(since: before).isEmpty)
        try adapter.unmerge()
        try adapter.deactivate()
        #expect(model.changed(since: before).isEmpty)
    }

    /// `peft verify` has a line for each expert.
    @Test func verifyingListsTheExpertsThatChanged() throws {
        let folder = try HuggingFaceTests.Fixture("mixtral-experts").folder
        let model = try Models.load("decoders/mixtral")
        try withTemporaryFolder { temporary in
            let copy = temporary.appendingPathComponent("copy")
            let adapter = try AdapterFolder(folder).attach(to: model)
            // Expert 1 of the first layer's down projections is left alone.
            for (path, module) in adapter.modules where path == "model.layers.0.mlp.experts.down_proj" {
                let update = try #require(module as? ExpertLoRA)
                for column in stride(from: 1, to: update.b.dim(1), by: 4) {
                    update.b.detached().narrowed(axis: 1, column..<column + 1).fill(0)
                }
            }
            try adapter.save(to: copy, base: "mixtral")
            try adapter.deactivate()
            let rows = try HuggingFaceTests.Fixture("mixtral-experts").rows
            let check = try AdapterCheck(AdapterFolder(copy), on: model, batches: [model.batch(rows, device: .cpu)])
            #expect(check.problems.isEmpty, "\(check.problems)")
            let experts = check.sites.filter { $0.path.hasPrefix("model.layers.0.mlp.experts.down_proj.") }
            #expect(experts.map(\.expert) == [0, 1, 2, 3])
            #expect(experts.map { $0.strength > 0 } == [true, false, true, true])
            #expect(experts.allSatisfy { $0.rank == 2 && $0.scale == 2 })
            let changes = check.changedExperts
            #expect(changes.count == 4 && changes.allSatisfy { $0.count == 4 })
            #expect(changes.first { $0.path == "model.layers.0.mlp.experts.down_proj" }?.changed == [0, 2, 3])
        }
    }

    @Test func expertsAreAdaptedInBatchesOfTheirOwn() throws {
        let folder = try HuggingFaceTests.Fixture("mixtral-experts").folder
        let model = try Models.load("decoders/mixtral")
        let set = AdapterSet(on: model)
        _ = try set.add(AdapterFolder(folder), name: "a")
        let obstacle = try MixedBatch(set).obstacle("a")
        #expect(obstacle?.problem.contains("adapts the experts") == true)
    }

    // MARK: Files of transformers before version 5

    /// A copy of a fixture whose experts have tensors of their own, with changes.
    private func separate(
        _ name: String, configuration change: (inout [String: JSON]) -> Void = { _ in },
        tensors keeps: (String) -> Bool = { _ in true }, body: (AdapterFolder) throws -> Void
    ) throws {
        let folder = try HuggingFaceTests.Fixture(name).folder
        try withTemporaryFolder { copy in
            var fields = try #require(
                try JSON.read(folder.appendingPathComponent("adapter_config.json")).object)
            change(&fields)
            try AtomicFile.write(JSON.object(fields).text(), to: copy.appendingPathComponent("adapter_config.json"))
            let file = try SafetensorsFile(folder.appendingPathComponent("adapter_model.safetensors"))
            try SafetensorsFile.write(
                file.tensors().filter { keeps($0.key) }, metadata: [:],
                to: copy.appendingPathComponent("adapter_model.safetensors"))
            try body(try AdapterFolder(copy))
        }
    }

    @Test func separateExpertsKeepTheirScale() throws {
        try separate("olmoe-separate") {
            $0["use_rslora"] = true
            $0["lora_dropout"] = 0.1
        } body: { folder in
            #expect(folder.notes.contains { $0.contains("'lora_dropout' is 0.1") })
            let adapter = try folder.attach(to: Models.load("decoders/olmoe"))
            let scales = adapter.modules.compactMap { ($0.module as? any ScaledDelta)?.deltaScale }
            #expect(scales.count == 6 && scales.allSatisfy { abs($0 - 4 / 2.0.squareRoot()) < 1e-12 })
        }
    }

    @Test func oneOfTheTensorsOfSeparateExpertsIsEnough() throws {
        try separate(
            "olmoe-separate", tensors: { !$0.contains("down_proj") },
            body: { folder in
                let adapter = try folder.attach(to: Models.load("decoders/olmoe"))
                #expect(adapter.modules.count == 4)
                #expect(adapter.added.contains { $0.key.hasSuffix("layers.0.mlp.experts.lora_A.weight") })
            })
        try separate(
            "mixtral-separate", tensors: { !$0.contains("experts") },
            body: { folder in
                #expect(throws: PEFTError.self) { try folder.attach(to: Models.load("decoders/mixtral")) }
            })
        try separate("mixtral-separate") {
            $0["target_modules"] = ["q_proj", "gate"]
        } tensors: {
            !$0.contains("experts")
        } body: { folder in
            let adapter = try folder.attach(to: Models.load("decoders/mixtral"))
            #expect(adapter.modules.count == 4)
        }
    }

    /// A network beside the experts has the names of their projections.
    @Test func sharedNetworksStayTargets() throws {
        try separate("olmoe-separate") {
            $0["target_modules"] = "all-linear"
        } body: { folder in
            #expect(folder.configuration["target_modules"]?.array?.count == 2)
            let adapter = try folder.attach(to: Models.load("decoders/olmoe"))
            #expect(adapter.modules.count == 6)
        }
    }

    @Test func incompleteSeparateExpertsAreErrors() throws {
        let whole = try HuggingFaceTests.Fixture("olmoe-separate").folder
        let count = try AdapterFolder(whole).tensorShapes.count
        #expect(count == 12)
        for part in ["experts.1.up_proj", "experts.2.down_proj.lora_B"] {
            let error = try #require(throws: PEFTError.self) {
                try separate("olmoe-separate", tensors: { !$0.contains(part) }, body: { _ in })
            }
            #expect(error.problem.contains(part.replacingOccurrences(of: ".lora_B", with: "")))
        }
        let error = try #require(throws: PEFTError.self) {
            try separate("olmoe-separate", configuration: { $0["alpha_pattern"] = ["up_proj": 8] }) { _ in }
        }
        #expect(error.problem.contains("'alpha_pattern' that names"))
    }
}
