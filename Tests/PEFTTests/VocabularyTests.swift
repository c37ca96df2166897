import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// Adapters of Hugging Face PEFT over the matrices of the vocabulary (`make_vocabulary_fixtures.py`): tied, resized, or some
/// of their rows.
@Suite struct VocabularyTests {
    static let names: [String] = {
        let folder = Bundle.module.resourceURL?.appendingPathComponent("Fixtures/vocabulary")
        let names = folder.flatMap { try? FileManager.default.contentsOfDirectory(atPath: $0.path) } ?? []
        return names.filter { !$0.hasPrefix(".") }.sorted()
    }()

    struct Fixture {
        let folder: AdapterFolder
        let base: String
        let isTied: Bool
        let rows: [(input: [Int], target: [Int])]
        let logits: Tensor

        init(_ name: String) throws {
            let url = try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/vocabulary/\(name)")
            folder = try AdapterFolder(url)
            let expected = try SafetensorsFile(url.appendingPathComponent("expected.safetensors"))
            base = try #require(expected.metadata["base"])
            isTied = expected.metadata["tied"] == "true"
            rows = try JSON.parse(Data(#require(expected.metadata["rows"]).utf8), name: "rows").rows
            logits = try expected.tensor("logits")
        }
    }

    @Test func thereAreFixtures() { #expect(Self.names.count >= 20) }

    @Test(arguments: names) func logitsAreEqualAndTheModelComesBack(name: String) throws {
        let fixture = try Fixture(name)
        let model = try Models.load(fixture.base)
        let (before, output, wasTied) = (model.snapshot(), try model.scores(), model.hasTiedOutput)
        let adapter = try fixture.folder.attach(to: model)
        #expect(relativeDifference(try model.scores(fixture.rows), fixture.logits) < 1e-4)
        // The loss takes another way than the scores.
        let loss = try withTorchErrors { model.loss(fixture.rows).item() }
        let targets = Tensor(fixture.rows.flatMap(\.target)).unsqueezed(1)
        let expected = try withTorchErrors { -fixture.logits.logSoftmax().gathering(axis: 1, targets).mean().item() }
        #expect(abs(loss - expected) < 1e-4 * expected)
        try adapter.deactivate()
        #expect(model.hasTiedOutput == wasTied && model.adapterCount == 0)
        #expect(model.changed(since: before).isEmpty && model.parameters().count == before.count)
        #expect(try model.scores().isIdentical(to: output))
        adapter.activate()
        #expect(relativeDifference(try model.scores(fixture.rows), fixture.logits) < 1e-4)
    }

    @Test(arguments: names) func mergedModelsAreEqualAndReadBack(name: String) throws {
        let fixture = try Fixture(name)
        guard fixture.folder.choice.isMergeable else { return }
        let model = try Models.load(fixture.base)
        let adapter = try fixture.folder.attach(to: model)
        try adapter.merge()
        #expect(relativeDifference(try model.scores(fixture.rows), fixture.logits) < 1e-4)
        try withTemporaryFolder { folder in
            try model.write(into: folder)
            let configuration = try JSON.read(folder.appendingPathComponent("config.json"))
            #expect(configuration["tie_word_embeddings"] == .bool(fixture.isTied))
            #expect(configuration["vocab_size"]?.int == model.vocabularyTable?.entries)
            let stored = try SafetensorsFile(folder.appendingPathComponent("model.safetensors")).entries.keys
            #expect(stored.contains("lm_head.weight") == !fixture.isTied)
            let again = try ModelFolder(folder).load()
            #expect(relativeDifference(try again.scores(fixture.rows), fixture.logits) < 1e-4)
        }
        try adapter.deactivate()
        #expect(model.changed(since: try Models.load(fixture.base).snapshot()).isEmpty)
    }

    @Test(arguments: names) func whatIsWrittenReadsBack(name: String) throws {
        let fixture = try Fixture(name)
        try withTemporaryFolder { folder in
            let copy = folder.appendingPathComponent("copy")
            try fixture.folder.attach(to: Models.load(fixture.base)).save(to: copy, base: fixture.base)
            let model = try Models.load(fixture.base)
            _ = try AdapterFolder(copy).attach(to: model)
            #expect(relativeDifference(try model.scores(fixture.rows), fixture.logits) < 1e-4)
        }
    }

    @Test(arguments: names) func verifyFindsThatTheyFit(name: String) throws {
        let fixture = try Fixture(name)
        let model = try Models.load(fixture.base)
        let before = model.snapshot()
        // Tokens that the base and the adapter's vocabulary both have.
        let rows = fixture.rows.map { row in
            (input: row.input.map { min($0, 80) }, target: row.target.map { min($0, 80) })
        }
        let check = try AdapterCheck(fixture.folder, on: model, batches: [model.batch(rows, device: .cpu)])
        #expect(check.fits, "\(check.problems)")
        #expect(model.changed(since: before).isEmpty)
    }

    /// Training an adapter of one's own over a tied model: either use has gradients of its own.
    @Test(arguments: [["lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head"]]) func tiedUsesAreTrainedApart(
        targets: [String]
    ) throws {
        let model = try Models.load("qwen2")
        let before = model.snapshot()
        let adapter = try Adapter(
            MethodChoice(LoRA.self, LoRA.Configuration(rank: 2, alpha: 4, targets: ["q_proj"] + targets)), on: model)
        let losses = try adapter.train(steps: 12, rate: 1e-2)
        #expect(try #require(losses.last) < losses[0])
        let trained = try model.scores()
        try adapter.merge()
        #expect(relativeDifference(try model.scores(), trained) < 1e-4)
        try adapter.deactivate()
        #expect(model.changed(since: before).isEmpty && model.hasTiedOutput)
    }

    @Test func tiedUsesThatStayTogetherLearnAsOne() throws {
        let model = try Models.load("qwen2")
        var choice = MethodChoice(LoRA.self, LoRA.Configuration(rank: 2, alpha: 4, targets: ["lm_head"]))
        try choice.set("tie-embeddings", to: "true")
        let adapter = try Adapter(choice, on: model)
        #expect(model.hasTiedOutput && adapter.attached.map(\.path) == ["model.embed_tokens"])
        let losses = try adapter.train(steps: 12, rate: 1e-2)
        #expect(try #require(losses.last) < losses[0])
        let trained = try model.scores()
        try adapter.merge()
        #expect(model.hasTiedOutput)
        #expect(relativeDifference(try model.scores(), trained) < 1e-4)
    }

    /// Adapters that need the matrices apart and such that don't share one base.
    @Test func adaptersOfOneTiedBaseAreSwitched() throws {
        let model = try Models.load("qwen2")
        let set = AdapterSet(on: model)
        let fixtures = try ["tied-both", "tied-tokens", "grown-qwen2", "tied-together"].map { ($0, try Fixture($0)) }
        for (name, fixture) in fixtures { try set.add(fixture.folder, name: name) }
        for (name, fixture) in fixtures + fixtures.reversed() {
            try set.activate(name)
            #expect(relativeDifference(try model.scores(fixture.rows), fixture.logits) < 1e-4, "\(name)")
        }
        try set.activate(nil)
        #expect(model.hasTiedOutput)
        #expect(try MixedBatch(set).obstacle("grown-qwen2") != nil)
    }

    @Test func embeddingsWithAnOutputLayerOfAnotherSizeAreRefused() throws {
        let fixture = try Fixture("grown-llama")
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("adapter")
            try FileManager.default.copyItem(at: fixture.folder.url, to: url)
            let file = url.appendingPathComponent("adapter_model.safetensors")
            var tensors = try SafetensorsFile(file).tensors().mapValues { $0.clone() }
            let key = "base_model.model.lm_head.weight"
            tensors[key] = tensors[key]?.narrowed(axis: 0, 0..<97).contiguous()
            try SafetensorsFile.write(tensors, metadata: ["format": "pt"], to: file)
            let error = try failure { _ = try AdapterFolder(url).attach(to: Models.load(fixture.base)) }
            #expect(error.problem.contains("99 tokens") && error.problem.contains("97"))
        }
    }

    /// In Hugging Face PEFT these tokens are rows of the output layer too, beneath its LoRA branch.
    @Test func trainedTokensBeneathAnAdapterOfTheTiedOutputAreRefused() throws {
        let outline = ModelOutline(try Models.load("qwen2"))
        for (option, value) in [("targets", "q_proj,lm_head"), ("modules-to-save", "lm_head")] {
            var choice = MethodChoice(LoRA.self, LoRA.Configuration(rank: 2, alpha: 4, targets: ["q_proj"]))
            try choice.set("trainable-tokens", to: "5,6")
            _ = try choice.plan(for: outline)
            try choice.set(option, to: value)
            #expect(try failure { _ = try choice.plan(for: outline) }.problem.contains("'lm_head' too"))
            _ = try choice.plan(for: ModelOutline(Models.load("llama")))
        }
    }

    @Test func namedGroupsOfPythonAreRead() {
        #expect(PythonPattern.translated(#"(?P<a_b>q)_(?P=a_b)\(?P<x>"#) == #"(?<group1>q)_\k<group1>\(?P<x>"#)
    }
}
