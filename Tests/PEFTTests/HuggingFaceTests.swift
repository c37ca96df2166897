import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// Adapters that Hugging Face PEFT wrote (`make_*_fixtures.py`) do here what they do there.
@Suite struct HuggingFaceTests {
    /// Every folder is a case: a method's fixtures get here by themselves.
    static let variants: [String] = {
        let folder = Bundle.module.resourceURL?.appendingPathComponent("Fixtures/hugging-face")
        let names = folder.flatMap { try? FileManager.default.contentsOfDirectory(atPath: $0.path) } ?? []
        return names.filter { !$0.hasPrefix(".") }.sorted()
    }()

    @Test func thereAreFixtures() { #expect(Self.variants.count >= 6) }

    struct Fixture {
        let folder: URL
        let expected: JSON
        let tensors: SafetensorsFile
        let base: String
        var rows: [(input: [Int], target: [Int])] { expected.rows }

        init(_ name: String) throws {
            folder = try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/hugging-face/\(name)")
            expected = try JSON.read(folder.appendingPathComponent("expected.json"))
            tensors = try SafetensorsFile(folder.appendingPathComponent("expected.safetensors"))
            base = try #require(expected["base"]?.string)
        }

        /// The base model, with the weights that were changed before the adapter was made.
        func model() throws -> any LanguageModel {
            let model = try Models.load(base)
            for (path, parameter) in model.parameters() where tensors.entries["base.\(path)"] != nil {
                parameter.tensor.copy(from: try tensors.tensor("base.\(path)"))
            }
            return model
        }

        func attach() throws -> Adapter { try AdapterFolder(folder).attach(to: model(), isTrainable: true) }
    }

    @Test(arguments: variants) func logitsAndLossAreEqual(name: String) throws {
        let fixture = try Fixture(name)
        let adapter = try fixture.attach()
        let logits = try adapter.model.scores(fixture.rows)
        #expect(relativeDifference(logits, try fixture.tensors.tensor("logits")) < 1e-4)
        let unadapted = try fixture.model().scores(fixture.rows)
        #expect(relativeDifference(logits, unadapted) > 1e-2, "the adapter changes nothing")
        let loss = try withTorchErrors { adapter.model.loss(fixture.rows).item() }
        let expected = try #require(fixture.expected["loss"]?.double)
        #expect(abs(loss - expected) < 1e-5 * expected)
    }

    @Test(arguments: variants) func gradientsAreEqual(name: String) throws {
        let fixture = try Fixture(name)
        let adapter = try fixture.attach()
        try withTorchErrors { adapter.model.loss(fixture.rows).backward() }
        let keys = fixture.tensors.entries.keys.filter { $0.hasPrefix("gradient.") }
        #expect(!keys.isEmpty)
        let trained =
            adapter.added.filter(\.parameter.isTrained).map { ($0.key, $0.parameter.parameter) }
            + adapter.trained.map { ($0.key, $0.parameter) }
        // A tensor that several modules share is in the file under the names of all.
        let plan = try adapter.choice.plan(for: ModelOutline(adapter.model))
        let copies = Set(plan.flatMap { $0.tensors.flatMap(\.copies) }.map { "gradient.\($0)" })
        #expect(Set(keys).subtracting(copies) == Set(trained.map { "gradient.\($0.0)" }).subtracting(copies))
        for (key, parameter) in trained {
            let gradient = try #require(parameter.tensor.grad, "no gradient for \(key)")
            let expected = try fixture.tensors.tensor("gradient.\(key)")
            // A method may train a tensor in another shape than the file's.
            #expect(relativeDifference(gradient.array(), expected.array()) < 1e-3, "\(key)")
        }
    }

    @Test(arguments: variants) func twentyStepsAreEqual(name: String) throws {
        let fixture = try Fixture(name)
        let rate = try #require(fixture.expected["rate"]?.double)
        let losses = try fixture.attach().train(steps: 20, rate: rate, rows: fixture.rows)
        let expected = (fixture.expected["losses"]?.array ?? []).compactMap(\.double)
        #expect(relativeDifference(losses, expected) < 1e-3)
        #expect(try #require(losses.min()) < losses[0])
    }

    /// The variants whose merged weights Hugging Face PEFT wrote.
    static let mergeable = variants.filter { name in
        let file = try? Fixture(name).tensors
        return file?.entries.keys.contains { $0.hasPrefix("merged.") } == true
    }

    @Test func thereAreMergedFixtures() { #expect(Self.mergeable.count >= 20) }

    @Test(arguments: mergeable) func mergedWeightsAreEqual(name: String) throws {
        let fixture = try Fixture(name)
        let adapter = try fixture.attach()
        let keys = fixture.tensors.entries.keys.filter { $0.hasPrefix("merged.") }
        try adapter.merge()
        let parameters = Dictionary(
            adapter.model.parameters().map { ($0.path, $0.parameter) }, uniquingKeysWith: { $1 })
        for key in keys {
            let path = String(key.dropFirst("merged.".count))
            let merged = try #require(parameters[path + ".weight"] ?? parameters[path]).tensor
            #expect(relativeDifference(merged.array(), try fixture.tensors.tensor(key).array()) < 1e-6, "\(key)")
        }
        let logits = try adapter.model.scores(fixture.rows)
        #expect(relativeDifference(logits, try fixture.tensors.tensor("logits")) < 1e-4)
    }

    /// What was read from Hugging Face's file and written again says the same.
    @Test(arguments: variants) func configurationsSurvive(name: String) throws {
        let fixture = try Fixture(name)
        let adapter = try fixture.attach()
        try withTemporaryFolder { folder in
            let copy = folder.appendingPathComponent("copy")
            try adapter.save(to: copy, base: fixture.base)
            let original = try AdapterFolder(fixture.folder).configuration
            // Some are stored in another form that computes the same.
            let keepsForm =
                adapter.choice.forFile(of: adapter).configuration.json == adapter.choice.configuration.json
            let written = try AdapterFolder(copy).configuration
            for (key, value) in written where key != "peft_version" && keepsForm {
                if let list = value.array, key.hasPrefix("target_") || key.hasSuffix("_modules") {
                    #expect(Set(list) == Set(original[key]?.array ?? []), "\(key)")
                } else if let number = value.double {
                    // 0 and 0.0 are one number.
                    #expect(number == original[key]?.double, "\(key)")
                } else {
                    #expect(value == original[key] ?? .null, "\(key)")
                }
            }
            let again = try AdapterFolder(copy).attach(to: fixture.model())
            // Frozen adapters may compute in another form.
            adapter.setTrainable(false)
            let (read, own) = (try again.model.scores(fixture.rows), try adapter.model.scores(fixture.rows))
            #expect(keepsForm ? read.isIdentical(to: own) : relativeDifference(read, own) < 1e-5)
        }
    }

    /// Hugging Face stores the layer beneath the adapter, and loads it with it.
    @Test func theOutputLayerOfTheFileTakesThePlaceOfAnotherOne() throws {
        let fixture = try Fixture("output-layer")
        let model = try fixture.model()
        for (path, parameter) in model.parameters() where path == "lm_head.weight" { parameter.tensor.scale(by: 2) }
        let folder = try AdapterFolder(fixture.folder)
        #expect(try folder.vocabularyNote(on: model)?.contains("differ from the base's and replace them") == true)
        let before = model.snapshot()
        let adapter = try folder.attach(to: model)
        #expect(relativeDifference(try model.scores(fixture.rows), try fixture.tensors.tensor("logits")) < 1e-4)
        try adapter.deactivate()
        #expect(model.changed(since: before).isEmpty)
    }
}
