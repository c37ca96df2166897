import Foundation
import LanguageModels
import Support
import Testing
import Torch
import TorchNN

@testable import PEFT

/// Combined adapters are those that Hugging Face PEFT makes (`make_combination_fixtures.py`).
@Suite struct CombinationTests {
    private static let names = [
        "linear", "negative", "cat", "svd", "ties", "ties-frequency", "ties_svd", "magnitude_prune",
    ]

    private func folder() throws -> URL {
        try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/combinations")
    }

    private func loaded() throws -> [Adapter] {
        let set = AdapterSet(on: try Models.load("t5-v1.1"))
        return try ["a", "b"].map { try set.add(AdapterFolder(folder().appendingPathComponent($0)), name: $0) }
    }

    @Test(arguments: names) func updatesAreEqual(name: String) throws {
        let expected = try SafetensorsFile(folder().appendingPathComponent("\(name).safetensors"))
        let options = try JSON.parse(Data(#require(expected.metadata["options"]).utf8), name: name)
        let combination = AdapterCombination(
            method: try #require(.init(rawValue: options["combination_type"]?.string ?? "")),
            density: options["density"]?.double ?? 1,
            electsByFrequency: options["majority_sign_method"] == "frequency", rank: options["svd_rank"]?.int)
        let weights = (options["weights"]?.array ?? []).compactMap(\.double)
        let result = try combination(zip(loaded(), weights).map { (adapter: $0, weight: $1) })
        #expect(result.attached.count == expected.entries.count)
        for (path, _, module) in result.attached {
            let update = try #require(module as? LoRAAdapter)
            let product = try withTorchErrors { withoutGradients { update.b.matmul(update.a) * update.scale } }
            #expect(relativeDifference(product, try expected.tensor("base_model.model.\(path)")) < 1e-5, "\(path)")
        }
    }

    @Test func theResultIsAnAdapterOfItsOwn() throws {
        let adapters = try loaded()
        let result = try AdapterCombination(method: .cat)([(adapters[0], 0.5), (adapters[1], 0.5)])
        let output = try result.model.scores()
        try withTemporaryFolder { folder in
            let saved = folder.appendingPathComponent("both")
            try result.save(to: saved, base: "t5-v1.1")
            let again = try AdapterFolder(saved).attach(to: Models.load("t5-v1.1"))
            #expect(try again.model.scores().isIdentical(to: output))
        }
    }

    @Test func whatDropsAtRandomIsAFunctionOfTheSeed() throws {
        func updates(_ seed: UInt64) throws -> [[Float]] {
            let adapters = try loaded()
            let combination = AdapterCombination(method: .dareTIES, density: 0.5, seed: seed)
            return try combination(adapters.map { ($0, 0.5) }).added.map { $0.parameter.parameter.tensor.array() }
        }
        #expect(try updates(1) == updates(1))
        #expect(try updates(1) != updates(2))
    }

    @Test func whatCannotBeCombinedSaysWhy() throws {
        let model = try Models.load("t5-v1.1")
        let small = try Adapter(MethodChoice(LoRA.self, .init(rank: 2, alpha: 4, targets: ["q"])), on: model)
        let large = try Adapter(MethodChoice(LoRA.self, .init(rank: 3, alpha: 4, targets: ["q"])), on: model)
        let other = try Adapter(MethodChoice(IA3.self), on: model)
        func problem(_ adapters: [Adapter], _ method: AdapterCombination.Method) throws -> String {
            try failure { _ = try AdapterCombination(method: method)(adapters.map { ($0, 1) }) }.description
        }
        #expect(try problem([small, large], .linear).contains("ranks 2, 3"))
        #expect(try problem([small, other], .svd).contains("IA³"))
        #expect(try problem([small], .cat).contains("at least 2"))
    }
}
