import LanguageModels
import Support
import Testing
import Torch
import TorchNN

@testable import PEFT

/// Several adapters on one model.
@Suite struct StackedAdapterTests {
    private func stack() throws -> (model: any LanguageModel, a: Adapter, b: Adapter) {
        let model = try Models.load("t5-v1.1", dtype: .float64)
        let a = try Adapter(
            MethodChoice(LoRA.self, LoRA.Configuration(rank: 2, alpha: 4, targets: ["q", "v"])), on: model, name: "a")
        try a.randomise(seed: 1)
        let b = try Adapter(
            MethodChoice(LoRA.self, LoRA.Configuration(rank: 3, alpha: 3, targets: ["q", "wo"])), on: model, name: "b"
        )
        try b.randomise(seed: 2)
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
}
