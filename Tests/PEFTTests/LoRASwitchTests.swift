import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// The switches of LoRA in Hugging Face's files beside what `HuggingFaceTests` compares.
@Suite struct LoRASwitchTests {
    // MARK: Layers that are stacked anew

    @Test func stackedLayersHaveCachesOfTheirOwn() throws {
        let fixture = try HuggingFaceTests.Fixture("replication")
        let model = try fixture.attach().model
        let prompt = fixture.rows[0].input
        var parameters = GenerateParameters()
        (parameters.maxNewTokens, parameters.minNewTokens) = (6, 6)
        let text = try Generator(model, parameters).generate([prompt])[0]
        // Each token is the best one after all before it, computed without a cache.
        let scores = try model.scores([(prompt, text)])
        let best: [Int] = scores.argmax(axis: -1).array()
        #expect(text.count == 6 && best == text)
    }

    @Test func theOwnLayersComeBack() throws {
        let fixture = try HuggingFaceTests.Fixture("replication")
        let model = try fixture.model()
        let (before, output) = (model.snapshot(), try model.scores(fixture.rows))
        let adapter = try AdapterFolder(fixture.folder).attach(to: model)
        #expect(ModelOutline(model).keyValues.count == 4)
        let adapted = try model.scores(fixture.rows)
        try adapter.deactivate()
        #expect(ModelOutline(model).keyValues.count == 3)
        #expect(model.changed(since: before).isEmpty && model.adapterCount == 0)
        #expect(try model.scores(fixture.rows).isIdentical(to: output))
        adapter.activate()
        #expect(try model.scores(fixture.rows).isIdentical(to: adapted))
        #expect(try failure { try adapter.merge() }.problem.contains("share their weights"))
    }

    @Test func copiesShareTheirWeights() throws {
        let fixture = try HuggingFaceTests.Fixture("replication")
        let model = try fixture.attach().model
        let modules = Dictionary(model.namedModules().map { ($0.path, $0.module) }, uniquingKeysWith: { $1 })
        for path in ["self_attn.q_proj", "mlp.down_proj", "input_layernorm"] {
            let tensors = [1, 2].compactMap { layer in
                modules["model.layers.\(layer).\(path)"]?.ownParameters().first?.parameter.tensor
            }
            #expect(tensors.count == 2 && tensors[0] === tensors[1], "\(path)")
        }
    }

    @Test func otherAdaptersAreLeftAlone() throws {
        let fixture = try HuggingFaceTests.Fixture("replication")
        let model = try fixture.model()
        let lower = try Adapter(MethodChoice(LoRA.self, .init(rank: 2, alpha: 2, targets: ["q_proj"])), on: model)
        let error = try failure { _ = try AdapterFolder(fixture.folder).attach(to: model) }
        #expect(error.problem.contains("another adapter is active"))
        #expect(lower.isActive && model.adapterCount == 3)
        try lower.deactivate()
        let stacked = try AdapterFolder(fixture.folder).attach(to: model)
        let upper = try Adapter(
            MethodChoice(LoRA.self, .init(rank: 2, alpha: 2, targets: ["q_proj"])), on: model, name: "upper")
        #expect(upper.attached.count == 4)
        #expect(try failure { try stacked.deactivate() }.problem.contains("another adapter is active"))
        try upper.deactivate()
        try stacked.deactivate()
        #expect(model.adapterCount == 0)
    }

    @Test func stackedLayersShareNoBatch() throws {
        let fixture = try HuggingFaceTests.Fixture("replication")
        let set = AdapterSet(on: try fixture.model())
        try set.add(AdapterFolder(fixture.folder), name: "stacked")
        #expect(try MixedBatch(set).obstacle("stacked")?.problem.contains("stacks the layers anew") == true)
        // They take turns instead.
        var parameters = GenerateParameters()
        (parameters.maxNewTokens, parameters.minNewTokens) = (4, 4)
        let prompts = fixture.rows.prefix(2).map(\.input)
        let texts = try MixedBatch(set).generateAll(prompts, adapters: ["stacked", nil], parameters: parameters)
        try set.activate("stacked")
        #expect(try Generator(set.model, parameters).generate([prompts[0]])[0] == texts[0])
        try set.activate(nil)
        #expect(try Generator(set.model, parameters).generate([prompts[1]])[0] == texts[1])
    }

    @Test(arguments: [
        ("llama", "0-2,1-4", "names layer 3, but the model has 3 layers"), ("llama", "2-1", "layer_replication is"),
        ("llama", "x", "layer_replication is"), ("gpt2", "0-1", "not supported for"),
        ("decoders/gemma2", "0-1", "not supported for"), ("t5-v1.1", "0-1", "not supported for"),
    ])
    func whatCannotBeStackedIsRefused(base: String, ranges: String, reason: String) throws {
        let model = try Models.load(base)
        let before = model.snapshot()
        let error = try failure {
            var choice = MethodChoice(LoRA.self)
            try choice.set("layer-replication", to: ranges)
            _ = try Adapter(choice, on: model)
        }
        #expect(error.problem.contains(reason), "\(error)")
        #expect(model.changed(since: before).isEmpty && model.adapterCount == 0)
    }

    // MARK: Initializations that changed the base

    @Test(arguments: [
        ("corda", "path_initial_model_for_weight_conversion"), ("lora-ga", "the base that was saved with it"),
        ("monteclora", "without draws"), ("velora-average", "trained as LoRA"),
    ])
    func whatDiffersInTrainingIsTold(name: String, text: String) throws {
        let notes = try AdapterFolder(HuggingFaceTests.Fixture(name).folder).notes
        #expect(notes.count == 1 && notes.contains { $0.contains(text) }, "\(notes)")
        #expect(try AdapterFolder(HuggingFaceTests.Fixture("velora").folder).notes.isEmpty)
    }

    // MARK: Settings

    @Test func megatronsSettingsAreKept() throws {
        let fixture = try HuggingFaceTests.Fixture("llama-lora")
        let settings: JSON = ["tensor_model_parallel_size": 2]
        try withTemporaryFolder { folder in
            let copy = folder.appendingPathComponent("copy")
            try FileManager.default.copyItem(at: fixture.folder, to: copy)
            try rewriteConfiguration(copy) { $0["megatron_config"] = settings }
            let read = try AdapterFolder(copy)
            #expect(read.notes.contains { $0.contains("Megatron's parallel layers") })
            let adapter = try read.attach(to: fixture.model())
            #expect(
                relativeDifference(try adapter.model.scores(fixture.rows), try fixture.tensors.tensor("logits"))
                    < 1e-4)
            let again = folder.appendingPathComponent("again")
            try adapter.save(to: again, base: fixture.base)
            #expect(try AdapterFolder(again).configuration["megatron_config"] == settings)
            try rewriteConfiguration(copy) { $0["use_dora"] = true }
            #expect(throws: PEFTError.self) { try AdapterFolder(copy).attach(to: fixture.model()) }
        }
    }

    @Test(arguments: [
        ("kasa", "{\"alpha\": 1}", "unknown setting 'alpha'"), ("kasa", "{\"beta\": -1}", "negative"),
        ("velora", "{\"num_groups\": 0}", "'num_groups' in 'velora_config' is 0"),
        ("velora", "{\"init_type\": \"x\"}", "'init_type'"), ("velora", "[1]", "use true"),
        ("bdlora", "{\"nblocks\": 1.5}", "'nblocks'"),
        ("bdlora", "{\"target_modules_bd_a\": [\"q\"], \"target_modules_bd_b\": [\"q\"]}", "both lists"),
        ("monteclora", "{\"num_samples\": -2}", "'num_samples'"),
    ])
    func settingsOutOfRangeAreRefused(option: String, value: String, reason: String) throws {
        var choice = MethodChoice(LoRA.self)
        let error = try failure { try choice.set(option, to: value) }
        #expect(error.description.contains(reason), "\(error)")
    }

    @Test func settingsAreObjectsOnTheCommandLine() throws {
        var choice = MethodChoice(LoRA.self)
        try choice.set("velora", to: "{\"num_groups\": 4}")
        #expect(choice.configuration.json["velora_config"] == ["num_groups": 4, "scale": 1.0, "init_type": "random"])
        try choice.set("velora", to: "true")
        #expect(choice.configuration.json["velora_config"]?["num_groups"] == 64)
        try choice.set("kasa", to: "true")
        #expect(throws: PEFTError.self) { try choice.configuration.validate() }
    }

    @Test(arguments: [
        ("{\"nblocks\": 5, \"target_modules_bd_a\": [\"q_proj\"]}", "5 blocks don't divide"),
        ("{\"nblocks\": 2, \"target_modules_bd_a\": [\"o_proj\"]}", "matches no list"),
    ])
    func blocksMustFit(value: String, reason: String) throws {
        var choice = MethodChoice(LoRA.self)
        for (name, text) in [("bdlora", value), ("targets", "q_proj"), ("rank", "4")] {
            try choice.set(name, to: text)
        }
        let error = try failure { _ = try Adapter(choice, on: Models.load("llama")) }
        #expect(error.problem.contains(reason), "\(error)")
    }

    @Test(arguments: ["kasa", "velora", "bdlora", "monteclora"]) func embeddingsAreRefused(option: String) throws {
        var choice = MethodChoice(LoRA.self)
        try choice.set(
            option, to: option == "bdlora" ? "{\"target_modules_bd_a\": [\"x\"], \"match_strict\": false}" : "true")
        try choice.set("targets", to: "embed_tokens")
        let error = try failure { _ = try Adapter(choice, on: Models.load("llama")) }
        #expect(error.problem.contains("embedding 'model.embed_tokens'"), "\(error)")
    }

    /// VeLoRA's A sees compressed inputs in training, and its value is LoRA's.
    @Test func compressedInputsChangeGradientsAlone() throws {
        let fixture = try HuggingFaceTests.Fixture("velora")
        let adapter = try fixture.attach()
        let trained = try withTorchErrors { adapter.model.logits(adapter.model.batch(fixture.rows, device: .cpu)) }
        #expect(relativeDifference(trained.detached(), try adapter.model.scores(fixture.rows)) < 1e-5)
    }

    @Test func theMinorDirectionsAreOrthonormal() throws {
        var choice = MethodChoice(MiCA.self)
        for (name, text) in [("targets", "q_proj,embed_tokens"), ("rank", "3")] { try choice.set(name, to: text) }
        let model = try Models.load("llama")
        let adapter = try Adapter(choice, on: model)
        for (path, _, module) in adapter.attached {
            let b = try #require((module as? LoRAAdapter)?.b ?? (module as? LoRAEmbeddingAdapter)?.b).detached()
            let identity = Tensor([1, 0, 0, 0, 1, 0, 0, 0, 1] as [Float], shape: [3, 3])
            #expect(relativeDifference(b.T.matmul(b), identity) < 1e-5, "\(path)")
        }
        #expect(adapter.parameters.count == adapter.attached.count)
    }
}
