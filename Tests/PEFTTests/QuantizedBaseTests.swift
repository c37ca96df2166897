import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// Adapters over bases whose projections are kept in fewer bits.
@Suite struct QuantizedBaseTests {
    static let storages = ["bf16", "nf4", "nf4-double", "fp4", "int8"]

    private static func base(_ storage: String?, _ name: String = "llama") throws -> any LanguageModel {
        try ModelFolder(Models.folder.appendingPathComponent(name))
            .with(weights: storage.map { try WeightStorage($0) }).load()
    }

    /// A model of the numbers that the kept weights mean.
    private static func widened(_ storage: String, _ name: String = "llama") throws -> any LanguageModel {
        let model = try base(storage, name)
        try withTorchErrors { try model.upcastWeights() }
        return model
    }

    private static func loss(_ model: any LanguageModel) -> Tensor {
        model.lossSum(model.batch(Models.rows(for: model), device: .cpu), labelSmoothing: 0)
    }

    private static func choice(_ name: String = "lora") throws -> MethodChoice {
        var choice = MethodChoice(try PEFTMethods.named(name))
        if choice.configuration is LoRA.Configuration {
            try choice.set("rank", to: "2")
            try choice.set("targets", to: "all-linear")
        }
        return choice
    }

    /// The forward pass, and the gradients of the adapter, are those over the dense numbers.
    @Test(arguments: storages, ["llama", "gpt2", "t5-v1.1"])
    func gradientsAreThoseOverTheNumbers(storage: String, name: String) throws {
        guard storage != "bf16" || name != "gpt2" else {
            // Its files have projections the other way round.
            let refusal = try failure { _ = try Self.base(storage, name) }
            #expect(refusal.problem == "no projection of a gpt2 can be stored as bf16")
            return
        }
        let (kept, dense) = (try Self.base(storage, name), try Self.widened(storage, name))
        let adapters = try [kept, dense].map { try Adapter(Self.choice(), on: $0, seed: 3) }
        var random = SeededRandom(seed: 5)
        for (a, b) in zip(adapters[0].parameters, adapters[1].parameters) {
            withoutGradients {
                a.tensor.fillNormal(deviation: 0.05, from: &random)
                b.tensor.copy(from: a.tensor)
            }
        }
        let losses = try withTorchErrors {
            try [kept, dense].map { model -> Double in
                let loss = Self.loss(model)
                loss.backward()
                try checkTorchErrors()
                return loss.item()
            }
        }
        #expect(abs(losses[0] - losses[1]) <= 1e-4 * abs(losses[1]))
        #expect(try relativeDifference(kept.scores(), dense.scores()) < 1e-4)
        for (a, b) in zip(adapters[0].parameters, adapters[1].parameters) {
            #expect(relativeDifference(try #require(a.tensor.grad), try #require(b.tensor.grad)) < 1e-3)
        }
    }

    /// Training leaves the base's bits, saving and loading and switching give the same numbers.
    @Test(
        arguments: storages,
        ["lora", "dora", "ia3", "pissa", "vera", "oft", "lokr", "houlsby", "qlora", "hira", "hra"])
    func adaptersTrainOverIt(storage: String, method: String) throws {
        let model = try Self.base(storage)
        let before = model.parameters().map { ($0.path, $0.parameter.tensor.clone()) }
        let bare = try model.scores()
        let adapter = try Adapter(Self.choice(method), on: model, seed: 1)
        let start = try model.scores()
        if adapter.choice.method.start == .unchanged { #expect(relativeDifference(start, bare) < 1e-4) }
        let optimizer = AdamW(adapter.parameters, weightDecay: 0)
        var losses: [Double] = []
        try withTorchErrors {
            for _ in 0..<6 {
                let loss = Self.loss(model)
                losses.append(loss.item())
                loss.backward()
                optimizer.update(learningRate: 5e-3)
                optimizer.clearGradients()
            }
        }
        #expect(try #require(losses.last) < losses[0])
        let trained = try model.scores()
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("kept-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        try adapter.save(to: folder, base: "llama")
        try adapter.deactivate()
        for (path, tensor) in before {
            let now = try #require(model.parameters().first { $0.path == path }).parameter.tensor
            #expect(now.isIdentical(to: tensor), "\(path)")
        }
        #expect(try model.scores().isIdentical(to: bare))
        adapter.activate()
        #expect(try model.scores().isIdentical(to: trained))
        let other = try Self.base(storage)
        _ = try AdapterFolder(folder).attach(to: other)
        #expect(try relativeDifference(other.scores(), trained) < 1e-5)
    }

    /// The column "quantized base" of the table in `docs/methods.md`: each method on the first model that it fits.
    @Test func everyMethodTrainsOverNF4AsTheTableSays() throws {
        let models =
            try ["llama", "gpt2"].map { ($0, try Self.base("nf4", $0)) } + [
                ("bert:classification", try Models.load("bert:classification"))
            ]
        try WeightStorage("nf4").apply(to: models[2].1)
        for traits in MethodTraits.all(PEFTMethods.builtIn) {
            let name = traits.method.name
            guard traits.isForQuantized else {
                for (_, model) in models {
                    #expect(throws: PEFTError.self, "\(name)") { try Adapter(MethodChoice(traits.method), on: model) }
                }
                continue
            }
            let found = models.lazy.compactMap { base, model in
                try? Adapter(MethodChoice.forTests(traits.method, on: base), on: model, seed: 1)
            }.first
            let adapter = try #require(found, "\(name)")
            try adapter.train(steps: 2, rate: 5e-3)
            let loss = try withTorchErrors { adapter.model.loss().item() }
            #expect(loss.isFinite, "\(name)")
            try adapter.deactivate()
            #expect(try withTorchErrors { adapter.model.loss().item() } != loss, "\(name)")
        }
    }

    /// Merged into the numbers nothing is lost; merged into codes, what rounding loses.
    @Test(arguments: ["nf4", "int8"]) func mergingIsIntoNumbers(storage: String) throws {
        let model = try Self.base(storage)
        let adapter = try Adapter(Self.choice(), on: model, seed: 1)
        var random = SeededRandom(seed: 6)
        for parameter in adapter.parameters {
            withoutGradients { parameter.tensor.fillNormal(deviation: 0.1, from: &random) }
        }
        let adapted = try model.scores()
        try adapter.merge()
        #expect(model.hasRoundedWeights)
        let rounded = try relativeDifference(model.scores(), adapted)
        #expect(rounded > 1e-4)
        try adapter.unmerge()
        #expect(try model.scores().isIdentical(to: adapted))
        try withTorchErrors { try model.upcastWeights() }
        let batches = [model.batch(Models.rows(for: model), device: .cpu)]
        let drifts = try MergeDrift.merging(
            adapter, on: batches, types: [.float32], storages: [WeightStorage(storage)])
        #expect(try relativeDifference(model.scores(), adapted) < 1e-5)
        #expect(drifts.map(\.dtype) == ["float32", storage])
        #expect(drifts[0].mean < drifts[1].mean / 10)
    }

    @Test(arguments: ["full", "selective"]) func weightsThatCantChangeAreNotTrained(method: String) throws {
        var choice = MethodChoice(try PEFTMethods.named(method))
        if method == "selective" { try choice.set("components", to: "attention") }
        for storage in method == "full" ? ["bf16", "nf4", "int8"] : ["nf4", "int8"] {
            #expect(throws: PEFTError.self) { try Adapter(choice, on: Self.base(storage)) }
        }
        guard method == "selective" else { return }
        // fp32 copies of 16-bit weights are trained, which have their values at first.
        let narrow = try Self.base("bf16")
        let before = try narrow.scores()
        let adapter = try Adapter(choice, on: narrow)
        #expect(adapter.parameters.allSatisfy { $0.tensor.dtype == .float32 })
        #expect(try relativeDifference(narrow.scores(), before) < 1e-5)
        try choice.set("components", to: "norms")
        _ = try Adapter(choice, on: Self.base("nf4"))
    }

    /// Kept packed or as numbers, LoftQ finds the same weight, A and B.
    @Test(arguments: ["nf4", "nf4-double", "bf16"], [1, 3]) func loftqOverAPackedBase(
        storage: String, iterations: Int
    )
        throws
    {
        for name in storage == "bf16" ? ["llama"] : ["llama", "gpt2", "t5-v1.1"] {
            var choice = try Self.choice("loftq")
            try choice.set("alpha", to: "2")
            try choice.set("loftq-iterations", to: String(iterations))
            let (kept, dense) = (try Self.base(storage, name), try Self.base(nil, name))
            let bare = try kept.scores()
            let adapters = try [kept, dense].map { try Adapter(choice, on: $0, seed: 2) }
            let scores = try [kept, dense].map { try $0.scores() }
            // Scales that are rounded too, or a base in bf16, are another base.
            if storage == "nf4" {
                #expect(relativeDifference(scores[0], scores[1]) < 1e-5, "\(name)")
                for (a, b) in zip(adapters[0].attached, adapters[1].attached) {
                    let (packed, numbers) = (
                        try #require(a.adapter as? any WeightAdapter).replacementWeight,
                        try #require(b.adapter as? any WeightAdapter).replacementWeight
                    )
                    // Some projections of a T5 stay numbers.
                    #expect((a.site as? Linear)?.weight.isQuantized != true || packed is BlockQuantizedWeight)
                    let (x, y) = (
                        try #require(packed).dense(as: .float32), try #require(numbers).dense(as: .float32)
                    )
                    #expect(relativeDifference(x, y) < 1e-5, "\(a.path)")
                }
            }
            // What rounding lost of each weight comes back in part.
            if storage != "bf16" {
                for (site, exact) in zip(adapters[0].attached, adapters[1].attached) {
                    guard let linear = site.site as? Linear, let own = exact.site as? Linear else { continue }
                    let rounded = linear.weight.dense(as: .float32), weight = own.weight.dense(as: .float32)
                    guard linear.weight.isQuantized else { continue }
                    let adapter = try #require(site.adapter as? any LinearAdapter)
                    let merged = try adapter.merged(into: rounded)
                    #expect(
                        (merged - weight).squared().sum().item() < (rounded - weight).squared().sum().item(),
                        "\(site.path)")
                }
            }

            var random = SeededRandom(seed: 4)
            for parameter in adapters[0].parameters {
                withoutGradients { parameter.tensor.fillNormal(deviation: 0.05, from: &random) }
            }
            let trained = try kept.scores()
            let folder = FileManager.default.temporaryDirectory.appendingPathComponent("loftq-\(UUID().uuidString)")
            defer { try? FileManager.default.removeItem(at: folder) }
            try adapters[0].save(to: folder, base: name)
            let other = try Self.base(storage, name)
            _ = try AdapterFolder(folder).attach(to: other)
            #expect(try other.scores().isIdentical(to: trained), "\(name)")
            try adapters[0].deactivate()
            #expect(try kept.scores().isIdentical(to: bare), "\(name)")
        }
    }

    /// Where rounding threw the numbers away there is nothing to begin with, and the message says so.
    @Test func loftqNeedsTheNumbers() throws {
        let model = try Self.base("nf4")
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("loftq-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        try model.save(to: folder)
        let refusal = try failure { _ = try Adapter(Self.choice("loftq"), on: ModelFolder(folder).load()) }
        #expect(refusal.problem.contains("the original weights, which this quantized base doesn't contain"))
        #expect(refusal.remedy?.contains("--weights nf4") == true)
        for storage in ["int8", "fp4"] {
            let refusal = try failure { _ = try Adapter(Self.choice("loftq"), on: Self.base(storage)) }
            #expect(refusal.problem.contains("LoftQ needs an NF4 base"))
        }
        // Another adapter that was merged into the base is in its codes and not in the file.
        let lora = try Adapter(Self.choice(), on: model, seed: 1)
        try lora.merge()
        #expect(throws: PEFTError.self) { try Adapter(Self.choice("loftq"), on: model) }
    }
}
