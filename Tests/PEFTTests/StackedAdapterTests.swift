import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// Several adapters on one model.
@Suite struct StackedAdapterTests {
    private func stack() throws -> (model: any LanguageModel, a: Adapter, b: Adapter) {
        let model = try Models.load("t5-v1.1", dtype: .float64)
        let a = try Adapter(
            MethodChoice(LoRA.self, LoRA.Configuration(rank: 2, alpha: 4, targets: ["q", "v"])), on: model, name: "a")
        try a.randomize(seed: 1)
        let b = try Adapter(
            MethodChoice(LoRA.self, LoRA.Configuration(rank: 3, alpha: 3, targets: ["q", "wo"])), on: model, name: "b"
        )
        try b.randomize(seed: 2)
        return (model, a, b)
    }

    @Test func theLowerOneIsMergedFirst() throws {
        let (model, a, b) = try stack()
        let output = try model.scores()
        let error = try failure { try b.merge() }
        #expect(error.problem.contains("'b'"))
        #expect(!b.isMerged)
        try a.merge()
        #expect(relativeDifference(try model.scores(), output) < 1e-12)
        try b.merge()
        #expect(relativeDifference(try model.scores(), output) < 1e-12)
        #expect(model.adapterCount == 0)
    }

    @Test func mergesAreUndoneInReverse() throws {
        let (model, a, b) = try stack()
        let before = model.snapshot()
        let output = try model.scores()
        try a.merge()
        try b.merge()
        let merged = try model.scores()
        // Taking the lower one away first would bring back a weight without the upper one.
        let error = try failure { try a.unmerge() }
        #expect(error.problem.contains("after 'a'"))
        #expect(throws: PEFTError.self) { try a.deactivate() }
        #expect(a.isMerged && a.isActive && b.isMerged)
        #expect(try model.scores().isIdentical(to: merged))
        try b.unmerge()
        try a.unmerge()
        #expect(model.changed(since: before).isEmpty)
        #expect(try model.scores().isIdentical(to: output))
    }

    @Test func mergingTwiceAndUnmergingTwiceIsMergingOnce() throws {
        let (model, a, b) = try stack()
        try b.deactivate()
        let output = try model.scores()
        try a.merge()
        let merged = try model.scores()
        try a.merge()
        #expect(try model.scores().isIdentical(to: merged))
        try a.unmerge()
        try a.unmerge()
        #expect(try model.scores().isIdentical(to: output))
        try a.merge()
        try a.deactivate()
        #expect(!a.isMerged && !a.isActive)
        #expect(model.adapterCount == 0)
        // Merging what isn't on the model would change it behind the user's back.
        try a.merge()
        #expect(!a.isMerged)
    }

    @Test func anyOfThemCanBeTakenOff() throws {
        let (model, a, b) = try stack()
        let both = try model.scores()
        try a.deactivate()
        let onlyB = try model.scores()
        b.activate()
        #expect(try model.scores().isIdentical(to: onlyB), "activating twice adds nothing")
        a.activate()
        // The sum is the same in another order.
        #expect(relativeDifference(try model.scores(), both) < 1e-12)
        try b.deactivate()
        try b.deactivate()
        try a.deactivate()
        #expect(try model.scores().isIdentical(to: Models.load("t5-v1.1", dtype: .float64).scores()))
    }

    @Test func aSecondAdapterLeavesTheFirstAlone() throws {
        let (model, a, b) = try stack()
        #expect(a.parameters.allSatisfy { $0.tensor.requiresGrad })
        #expect(b.parameters.allSatisfy { $0.tensor.requiresGrad })
        #expect(model.trainableParameters().isEmpty)
        let before = model.snapshot()
        let valuesOfA = a.parameters.map { $0.tensor.detached().clone() }
        a.setTrainable(false)
        try b.train(steps: 2, rate: 1e-2)
        #expect(a.parameters.allSatisfy { $0.tensor.grad == nil })
        #expect(zip(a.parameters, valuesOfA).allSatisfy { $0.tensor.isIdentical(to: $1) })
        #expect(model.changed(since: before).isEmpty)
        let valuesOfB = b.parameters.map { $0.tensor.detached().clone() }
        a.setTrainable(true)
        b.setTrainable(false)
        try a.train(steps: 2, rate: 1e-2)
        #expect(zip(b.parameters, valuesOfB).allSatisfy { $0.tensor.isIdentical(to: $1) })
        #expect(!zip(a.parameters, valuesOfA).contains { $0.tensor.isIdentical(to: $1) })
    }

    @Test func fullFineTuningOverAnAdapterTrainsTheBase() throws {
        let (model, a, _) = try stack()
        let full = try Adapter(MethodChoice(FullFineTuning.self), on: model, name: "full")
        #expect(model.trainableParameters().count == model.parameters().count)
        #expect(full.addedCount == 0)
        #expect(a.parameters.allSatisfy { $0.tensor.requiresGrad })
    }

    /// Adapters that put values in place of the model's own, taken off in any order.
    @Test(arguments: [[0, 1], [1, 0]]) func valuesInPlaceOfTheModelsOwnComeOffInAnyOrder(order: [Int]) throws {
        let model = try Models.load("t5-v1.1")
        let before = model.snapshot()
        let plain = try model.scores()
        let both = try ["a", "b"].enumerated().map { index, name in
            let adapter = try Adapter(MethodChoice(LayerNormTuning.self), on: model, name: name)
            try adapter.randomize(seed: UInt64(index))
            return adapter
        }
        let output = try model.scores()
        try both[order[0]].deactivate()
        if order[0] == 0 {
            #expect(try model.scores().isIdentical(to: output), "the last one's values count")
        } else {
            #expect(!(try model.scores().isIdentical(to: output)))
        }
        try both[order[1]].deactivate()
        #expect(try model.scores().isIdentical(to: plain))
        #expect(model.changed(since: before).isEmpty)
    }

    /// A second adapter's beginning doesn't end what an earlier one trains.
    @Test func aSecondAdapterLeavesTrainedTensorsTrainable() throws {
        let model = try Models.load("t5-v1.1")
        let a = try Adapter(MethodChoice(LayerNormTuning.self), on: model, name: "a")
        let b = try Adapter(MethodChoice(LoRA.self), on: model, name: "b")
        #expect(a.parameters.allSatisfy { $0.tensor.requiresGrad })
        #expect(model.trainableParameters().count == a.trained.count)
        let values = a.trained.map { $0.values.detached().clone() }
        try b.train(steps: 1, rate: 1e-2)
        #expect(zip(a.trained, values).allSatisfy { $0.values.isIdentical(to: $1) })
        try a.train(steps: 1, rate: 1e-2)
        #expect(!zip(a.trained, values).contains { $0.values.isIdentical(to: $1) })
        let error = try failure { _ = try Adapter(MethodChoice(FullFineTuning.self), on: model) }
        #expect(error.problem.contains("another active adapter replaces"))
    }

    /// A weight in whose place another adapter's values are can't be merged into, nor given back from under them.
    @Test func mergingAndReplacingTheSameWeight() throws {
        let model = try Models.load("t5-v1.1")
        let plain = try model.scores()
        func selective(_ name: String) throws -> Adapter {
            var choice = MethodChoice(Selective.self)
            try choice.set("components", to: "attention")
            let adapter = try Adapter(choice, on: model, name: name)
            try adapter.randomize(seed: 3)
            return adapter
        }
        let lora = try Adapter(MethodChoice(LoRA.self), on: model, name: "lora")
        try lora.randomize(seed: 1)
        let own = try selective("own")
        let both = try model.scores()
        let refused = try failure { try lora.merge() }
        #expect(refused.problem.contains("another adapter replaces the weight"))
        #expect(try model.scores().isIdentical(to: both))
        try own.deactivate()
        try lora.merge()
        let above = try selective("above")
        let output = try model.scores()
        #expect(try failure { try lora.unmerge() }.problem.contains("or replaces its weights"))
        #expect(try model.scores().isIdentical(to: output))
        try above.deactivate()
        try lora.deactivate()
        #expect(try model.scores().isIdentical(to: plain))
    }

    static let mergeable = PEFTMethods.builtIn.filter { $0.isMergeable && $0.peftType != nil }.map { $0.name }.filter
    {
        // A T5 has neither biases nor a new head.
        ![BitFit.name, BEFT.name, HeadTraining.name].contains($0)
    }

    /// Two adapters, whatever their methods: merged from the lowest up they do what they did beside the weights, and
    /// all of it can be undone.
    @Test(arguments: mergeable, [true, false]) func anyTwoAreMergedInForwardOrder(name: String, isLower: Bool) throws
    {
        // Residuals and bases of random projections are kept in single precision.
        let tolerance = 1e-6
        let method = try PEFTMethods.named(name)
        let model = try Models.load("t5-v1.1", dtype: .float64)
        let before = model.snapshot()
        let plain = try model.scores()
        let lora = MethodChoice(LoRA.self, LoRA.Configuration(rank: 2, alpha: 4, targets: ["q", "k", "wo"]))
        let choice = MethodChoice.forTests(method)
        let choices = isLower ? [choice, lora] : [lora, choice]
        let both = try choices.enumerated().map { index, choice in
            let adapter = try Adapter(choice, on: model, name: "\(index)", seed: UInt64(index))
            try adapter.randomize(seed: UInt64(index), deviation: 0.1)
            return adapter
        }
        let output = try model.scores()
        // What computes with another weight lies next to it, whenever it came.
        let isResidual = both[1].attached.contains { ($0.adapter as? any WeightAdapter)?.replacementWeight != nil }
        let order = isResidual ? [both[1], both[0]] : both
        if !order.contains(where: { !$0.trained.isEmpty }) {
            try order[0].merge()
            #expect(relativeDifference(try model.scores(), output) < tolerance)
            try order[1].merge()
            #expect(relativeDifference(try model.scores(), output) < tolerance)
            try order[1].unmerge()
            try order[0].unmerge()
            #expect(try model.scores().isIdentical(to: output))
        }
        try order[0].deactivate()
        try order[1].deactivate()
        #expect(try model.scores().isIdentical(to: plain))
        #expect(model.changed(since: before).isEmpty)
        #expect(model.adapterCount == 0)
    }

    /// Adapters that begin with a part of the weight add up like others.
    @Test func severalThatTakeAPartOfTheWeight() throws {
        let model = try Models.load("t5-v1.1", dtype: .float64)
        let plain = try model.scores()
        let path = "encoder.block.0.layer.0.SelfAttention.q"
        let linear = try #require(model.namedModules().first { $0.path == path }?.module as? Linear)
        let weight = linear.weight.dense(as: .float64)
        func update(_ adapter: Adapter) throws -> Tensor {
            let module = try #require(adapter.attached.first { $0.path == path }?.adapter as? any LinearAdapter)
            return try withTorchErrors { try withoutGradients { try module.merged(into: weight) - weight } }
        }
        let all = try [MethodChoice(PiSSA.self), MethodChoice(LoRA.self), MethodChoice(OLoRA.self)].enumerated().map {
            let adapter = try Adapter($1, on: model, name: "\($0)", seed: UInt64($0))
            try adapter.randomize(seed: UInt64($0), deviation: 0.1)
            return adapter
        }
        let sum = try all.reduce(weight) { $0 + (try update($1)) }
        let x = Tensor.identity(weight.dim(1), dtype: .float64)
        let together = try withTorchErrors { withoutGradients { linear(x).T } }
        #expect(relativeDifference(together, sum) < 1e-6)
        // One of them comes back over a weight that another one was merged into.
        try all[0].deactivate()
        try all[2].deactivate()
        try all[1].merge()
        all[0].activate()
        let pair = try weight + update(all[0]) + update(all[1])
        #expect(relativeDifference(try withTorchErrors { withoutGradients { linear(x).T } }, pair) < 1e-6)
        try all[0].merge()
        #expect(relativeDifference(linear.weight.dense(as: .float64), pair) < 1e-6)
        try all[0].deactivate()
        try all[1].deactivate()
        #expect(try model.scores().isIdentical(to: plain))
    }
}
