import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// Combined adapters are those that Hugging Face PEFT makes (`make_combination_fixtures.py`).
@Suite struct CombinationTests {
    private static let names = [
        "linear", "negative", "cat", "svd", "ties", "ties-frequency", "ties_svd", "magnitude_prune",
        "magnitude_prune_svd", "svd-clamp", "dare_linear", "dare_ties", "dare_linear_svd", "dare_ties_svd",
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
        var combination = AdapterCombination(
            method: try #require(.init(rawValue: options["combination_type"]?.string ?? "")),
            density: options["density"]?.double ?? 1,
            electsByFrequency: options["majority_sign_method"] == "frequency", rank: options["svd_rank"]?.int,
            clamp: options["svd_clamp"]?.double)
        let density = combination.density
        combination.keeping = { tensor in
            // As in the script: a function of the position stands in for chance.
            let mask = (0..<tensor.count).map { Float(($0 * 7919 + 13) % 101) < Float(density * 101) ? Float(1) : 0 }
            return Tensor(mask, shape: tensor.shape)
        }
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

    /// Places of one adapter alone, ranks that differ by place, scales by the root of the rank, and weights that
    /// begin with a part of the model's own: the update is the weighted sum all the same.
    @Test(arguments: [AdapterCombination.Method.cat, .svd]) func updatesOfAllKindsAddUp(
        method: AdapterCombination.Method
    ) throws {
        let model = try Models.load("t5-v1.1", dtype: .float64)
        let set = AdapterSet(on: model)
        var stabilized = LoRA.Configuration(rank: 4, alpha: 6, targets: ["q", "wo"])
        stabilized.isRankStabilized = true
        stabilized.rankPattern = ["wo": 2]
        let choices = [
            MethodChoice(LoRA.self, LoRA.Configuration(rank: 3, alpha: 5, targets: ["q", "v"])),
            MethodChoice(LoRA.self, stabilized), MethodChoice(PiSSA.self),
        ]
        let weights = [0.7, -0.4, 0.5]
        var expected: [String: Tensor] = [:]
        try withTorchErrors {
            for (index, choice) in choices.enumerated() {
                let adapter = try Adapter(choice, on: model, name: "\(index)")
                try adapter.randomize(seed: UInt64(index), deviation: 0.1)
                try set.add(adapter)
                for (path, site, module) in adapter.attached {
                    let own = try #require(site as? Linear).weight.dense(as: .float64)
                    let merged = try #require(module as? any LinearAdapter).merged(into: own).detached()
                    let update = (merged - own) * weights[index]
                    expected[path] = expected[path].map { $0 + update } ?? update
                }
            }
        }
        let adapters = set.names.compactMap { set.adapters[$0] }
        let combination = AdapterCombination(method: method, rank: method == .svd ? 24 : nil)
        let result = try combination(Array(zip(adapters, weights)))
        try withTemporaryFolder { folder in
            let saved = folder.appendingPathComponent("all")
            try result.save(to: saved, base: "t5-v1.1")
            let loaded = try AdapterFolder(saved).attach(to: Models.load("t5-v1.1", dtype: .float64))
            #expect(Set(loaded.attached.map(\.path)) == Set(expected.keys))
            for (path, site, module) in loaded.attached {
                let update = try withTorchErrors { () -> Tensor in
                    let own = try #require(site as? Linear).weight.dense(as: .float64)
                    return try #require(module as? any LinearAdapter).merged(into: own).detached() - own
                }
                // Matrices are kept in single precision.
                #expect(relativeDifference(update, try #require(expected[path])) < 2e-6, "\(path)")
            }
        }
    }

    @Test func whatCannotBeCombinedSaysWhy() throws {
        let model = try Models.load("t5-v1.1")
        let small = try Adapter(MethodChoice(LoRA.self, .init(rank: 2, alpha: 4, targets: ["q"])), on: model)
        let large = try Adapter(MethodChoice(LoRA.self, .init(rank: 3, alpha: 4, targets: ["q"])), on: model)
        let other = try Adapter(MethodChoice(IA3.self), on: model)
        func problem(_ adapters: [Adapter], _ method: AdapterCombination.Method) throws -> String {
            try failure { _ = try AdapterCombination(method: method)(adapters.map { ($0, 1) }) }.description
        }
        #expect(try problem([small, large], .linear).contains("the adapters have 2, 3"))
        #expect(try problem([small, other], .svd).contains("IA³"))
        #expect(try problem([small], .cat).contains("at least 2"))
        let stored = try AdapterCombination(method: .cat)([(small, 1), (large, 1)])
        #expect(stored.attached.allSatisfy { $0.adapter.storedTensors()["lora_A.weight"]?.dim(0) == 5 })
        for (options, word) in [
            (AdapterCombination(method: .ties, density: 0), "density"),
            (AdapterCombination(method: .svd, rank: 0), "rank"),
            (AdapterCombination(method: .svd, clamp: 2), "clamp"),
        ] {
            #expect(try failure { _ = try options([(small, 1), (large, 1)]) }.problem.contains(word))
        }
        #expect(
            try failure { _ = try AdapterCombination(method: .cat)([(small, .nan), (large, 1)]) }.problem.contains(
                "weight"))
    }
}
