import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// What the methods of PEFT 0.21 have beside the laws that every method obeys.
@Suite struct NewerMethodTests {
    /// Values that NumPy 2 prints for the same seeds.
    @Test func seededChoicesAreNumPys() {
        var generator = NumPyGenerator(seed: 42)
        #expect(generator.choice(5, below: 256) == [195, 111, 166, 22, 110])
        generator = NumPyGenerator(seed: (1 << 40) + 5)
        #expect(generator.choice(4, below: 1000) == [14, 449, 4, 372])
        generator = NumPyGenerator(seed: 0)
        #expect(generator.choice(300, below: 12001).prefix(5) == [9710, 10063, 4861, 9245, 9630])
        generator = NumPyGenerator(seed: 7)
        var values = Array(0..<10)
        generator.shuffle(&values)
        #expect(values == [8, 0, 7, 1, 3, 6, 2, 4, 5, 9])
    }

    /// A copy of a fixture's folder with other tensors or settings.
    private func attach(
        _ name: String, tensors: (inout [String: Tensor]) throws -> Void = { _ in },
        configuration: (inout [String: JSON]) throws -> Void = { _ in }
    ) throws -> PEFTError {
        let fixture = try HuggingFaceTests.Fixture(name)
        return try withTemporaryFolder { folder in
            let copy = folder.appendingPathComponent("copy")
            try FileManager.default.copyItem(at: fixture.folder, to: copy)
            try rewriteTensors(copy, tensors)
            try rewriteConfiguration(copy, configuration)
            let model = try fixture.model()
            let before = model.snapshot()
            let error = try failure { _ = try AdapterFolder(copy).attach(to: model) }
            #expect(model.changed(since: before).isEmpty && model.adapterCount == 0)
            return error
        }
    }

    @Test(arguments: [-1, 1 << 20]) func indicesOutsideTheWeightAreRefused(index: Int) throws {
        for name in ["supertuning", "unilora-indices", "frod"] {
            let error = try attach(
                name,
                tensors: { tensors in
                    let key = try #require(tensors.keys.sorted().first { $0.contains("indices") })
                    let indices = try #require(tensors[key])
                    var values: [Int] = indices.to(.int64).array()
                    values[0] = index
                    tensors[key] = Tensor(values, shape: indices.shape).to(indices.dtype)
                })
            #expect(error.problem.contains("contains the index \(index)"), "\(name)")
        }
    }

    @Test func projectionsThatCannotBeComputedAgainAreRequired() throws {
        let error = try attach("frod", configuration: { $0["save_projection"] = false })
        #expect(error.problem.contains("save_projection is false"))
    }

    @Test(arguments: [
        ("osf", "rank", "24", "singular values"), ("osf", "rank", "0.01", "singular values"),
        ("psoft", "rank", "25", "exceeds"), ("supertuning", "sparsity", "0.9999", "nothing to train"),
        ("supertuning", "alpha", "4", "r isn't"), ("frod", "save-projection", "false", "save_projection"),
        ("llama-adapter", "top-layers", "4", "has 3 layers"), ("cartridge", "frozen-tokens", "20", "are frozen"),
    ])
    func settingsThatDoNotFitSayWhy(method: String, option: String, value: String, reason: String) throws {
        var choice = MethodChoice(try PEFTMethods.named(method))
        try choice.set(option, to: value)
        let model = try Models.load("llama")
        let error = try failure { _ = try Adapter(choice, on: model) }
        #expect(error.problem.contains(reason), "\(error)")
        #expect(error.remedy != nil)
    }

    /// Decoding step by step, alone and beside sequences without the adapter, continues as whole sequences do.
    @Test func gatedPromptsAreAttendedToInDecoding() throws {
        let set = AdapterSet(on: try Models.load("llama"))
        let adapter = try Adapter(MethodChoice(AdaptionPrompt.self), on: set.model, name: "gated", seed: 1)
        try adapter.randomize(seed: 1, deviation: 1)
        try set.add(adapter)
        let parameters = GenerateParameters(maxNewTokens: 6)
        let prompts = Models.rows.map(\.input)
        let alone = try [nil, "gated", nil].enumerated().map { index, name in
            try set.activate(name)
            return try Generator(set.model, parameters).generate([prompts[index]])[0]
        }
        try set.activate("gated")
        let answer = alone[1]
        let scores = try set.model.scores([(prompts[1], answer)])
        #expect(scores.argmax(axis: 1).array() == answer)
        try set.activate(nil)
        #expect(try Generator(set.model, parameters).generate([prompts[1]])[0] != answer)
        #expect(
            try MixedBatch(set).generate(prompts, adapters: [nil, "gated", nil], parameters: parameters) == alone)
    }

    /// A file of several tasks runs the one that its configuration names.
    @Test func polyRunsItsTask() throws {
        let fixture = try HuggingFaceTests.Fixture("poly-splits")
        try withTemporaryFolder { folder in
            func scores(_ name: String, task: Int, _ change: (inout [String: Tensor]) -> Void) throws -> Tensor {
                let copy = folder.appendingPathComponent(name)
                try FileManager.default.copyItem(at: fixture.folder, to: copy)
                try rewriteTensors(copy, change)
                try rewriteConfiguration(copy) { $0["swift_peft_task"] = .integer(task) }
                let model = try fixture.model()
                let adapter = try AdapterFolder(copy).attach(to: model)
                #expect(adapter.choice.configuration.json["swift_peft_task"]?.int ?? 0 == task)
                return try model.scores()
            }
            let first = try scores("first", task: 0) { _ in }
            let last = try scores("last", task: 2) { _ in }
            #expect(relativeDifference(first, last) > 1e-3)
            // The last task's weights in the first task's place.
            let moved = try scores("moved", task: 0) { tensors in
                for (key, value) in tensors where key.hasSuffix("module_logits") {
                    tensors[key] = Tensor.concatenated([2, 1, 0].map { value.narrowed(axis: 0, $0..<($0 + 1)) })
                }
            }
            #expect(moved.isIdentical(to: last))
            let error = try failure { _ = try scores("missing", task: 3) { _ in } }
            #expect(error.problem.contains("the task is 3, but there are 3"))
        }
    }

    /// In training the weights of the skills are drawn.
    @Test func polyDrawsInTraining() throws {
        let model = try Models.load("llama")
        let adapter = try Adapter(MethodChoice(Poly.self), on: model)
        try adapter.randomize(seed: 1)
        func loss(_ seed: UInt64) throws -> Double {
            try withTorchErrors { DropoutScope.run(seed: seed, stream: 0) { model.loss().item() } }
        }
        #expect(try loss(1) != loss(2))
        #expect(try loss(1) == loss(1))
        #expect(try loss(1) != withTorchErrors { model.loss().item() })
    }
}
