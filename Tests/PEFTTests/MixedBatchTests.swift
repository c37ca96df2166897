import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// Rows that use different adapters do in one batch what each does alone.
@Suite struct MixedBatchTests {
    private static let methods: [any PEFTMethod.Type] = [
        LoRA.self, DoRA.self, PiSSA.self, IA3.self, VeRA.self, LoKr.self, OFT.self, PromptTuning.self, Houlsby.self,
        ParallelAdapters.self,
    ]

    /// A set with one trained-looking adapter of each method.
    private func set(_ base: String, _ methods: [any PEFTMethod.Type]) throws -> AdapterSet {
        let set = AdapterSet(on: try Models.load(base))
        try withTemporaryFolder { folder in
            for (index, method) in methods.enumerated() {
                let adapter = try Adapter(MethodChoice(method), on: Models.load(base), seed: UInt64(index))
                try adapter.randomize(seed: UInt64(index), deviation: 0.1)
                let saved = folder.appendingPathComponent(method.name)
                try adapter.save(to: saved, base: base)
                try set.add(AdapterFolder(saved), name: method.name)
            }
        }
        return set
    }

    @Test(arguments: ["t5-v1.1", "llama", "gpt2"]) func scoresAreThoseOfEachRowAlone(base: String) throws {
        let set = try set(base, Self.methods)
        let names: [String?] = Self.methods.map { $0.name } + [nil, "lora"]
        let rows = names.indices.map { Models.rows[$0 % 3] }
        let alone = try zip(rows, names).map { row, name -> Tensor in
            try set.activate(name)
            return try set.model.scores([row])
        }
        let batch = MixedBatch(set)
        let together = try batch.run(names) { try set.model.scores(rows) }
        let expected = try withTorchErrors { Tensor.concatenated(alone) }
        #expect(relativeDifference(together, expected) < 1e-5)
    }

    /// Every method that there is, all in one batch, but for those that act on what all rows share.
    @Test(arguments: MethodLawTests.bases) func everyMethodSharesABatch(base: String) throws {
        let set = AdapterSet(on: try Models.load(base))
        for method in PEFTMethods.builtIn where method.peftType != nil {
            guard MethodLawTests.refusals["\(method.name) on \(base)"] == nil else { continue }
            // By name, so that another method leaves the draws of this one as they are.
            let seed = method.name.utf8.reduce(UInt64(0)) { $0 &* 31 &+ UInt64($1) }
            let adapter = try Adapter(
                .forTests(method, on: base), on: set.model, name: method.name, seed: seed)
            // These change the weight in full rank, and more by the same deviation.
            let isFull = ["osf", "randlora", "fourierft", "waveft", "c3a"].contains(method.name)
            try adapter.randomize(seed: seed, deviation: isFull ? 0.02 : 0.1)
            try set.add(adapter)
        }
        let batch = MixedBatch(set)
        let shared = try set.names.filter { try batch.obstacle($0) == nil }
        #expect(
            Set(set.names).subtracting(shared).isSubset(of: ["layernorm", "selective", "bitfit", "trainable_tokens"]))
        let names = shared.map(Optional.some) + [nil]
        let three = Models.rows(for: set.model)
        let rows = names.indices.map { three[$0 % 3] }
        let alone = try zip(rows, names).map { row, name -> Tensor in
            try set.activate(name)
            return try set.model.scores([row])
        }
        try set.activate(nil)
        let together = try batch.run(names) { try set.model.scores(rows) }
        var start = 0
        for (scores, name) in zip(alone, names) {
            let own = try withTorchErrors { together.narrowed(axis: 0, start..<(start + scores.dim(0))) }
            #expect(relativeDifference(own, scores) < 1e-5, "\(name ?? "base")")
            start += scores.dim(0)
        }
        #expect(start == together.dim(0))
    }

    @Test(arguments: ["t5-v1.1", "llama", "gpt2"], [1, 3]) func textsAreThoseOfEachRowAlone(base: String, beams: Int)
        throws
    {
        let set = try set(base, [LoRA.self, IA3.self, PromptTuning.self, Houlsby.self])
        let names: [String?] = ["ia3", nil, "lora", "prompt", "houlsby", "lora"]
        let prompts = names.indices.map { Models.rows[$0 % 3].input }
        let parameters = GenerateParameters(maxNewTokens: 8, beams: beams)
        let alone = try zip(prompts, names).map { prompt, name -> [Int] in
            try set.activate(name)
            return try Generator(set.model, parameters).generate([prompt])[0]
        }
        let together = try MixedBatch(set).generate(prompts, adapters: names, parameters: parameters)
        #expect(together == alone)
        #expect(Set(alone).count > 1)
    }

    /// Updates that one call adds, row by row, where nothing but LoRA is in the batch.
    @Test(arguments: ["t5-v1.1", "llama", "gpt2"]) func manyLoRAsShareAStep(base: String) throws {
        let set = AdapterSet(on: try Models.load(base))
        for rank in 1...6 {
            let lora = LoRA.Configuration(rank: rank, alpha: 8, targets: ["all-linear"])
            let adapter = try Adapter(
                MethodChoice(LoRA.self, lora), on: set.model, name: "\(rank)", seed: UInt64(rank))
            try adapter.randomize(seed: UInt64(rank), deviation: 0.2)
            try set.add(adapter)
        }
        let names: [String?] = ["1", "2", nil, "3", "4", "4", "5", nil, "6", "1"]
        let prompts = names.indices.map { Models.rows[$0 % 3].input }
        let parameters = GenerateParameters(maxNewTokens: 8)
        let alone = try zip(prompts, names).map { prompt, name -> [Int] in
            try set.activate(name)
            return try Generator(set.model, parameters).generate([prompt])[0]
        }
        try set.activate(nil)
        let together = try MixedBatch(set).generate(prompts, adapters: names, parameters: parameters)
        #expect(together == alone)
        #expect(Set(alone).count > 3)
    }

    @Test func prefixesOfDifferentMethodsShareABatch() throws {
        let set = try set("t5-v1.1", [PrefixTuning.self, LoRA.self])
        let names: [String?] = ["prefix", "lora", nil]
        let alone = try zip(Models.rows, names).map { row, name -> Tensor in
            try set.activate(name)
            return try set.model.scores([row])
        }
        let together = try MixedBatch(set).run(names) { try set.model.scores(Models.rows) }
        #expect(relativeDifference(together, try withTorchErrors { Tensor.concatenated(alone) }) < 1e-5)
    }

    @Test func afterwardsTheModelIsAsItWas() throws {
        let set = try set("t5-v1.1", [LoRA.self, IA3.self])
        let plain = try set.model.scores()
        do {
            let batch = MixedBatch(set)
            _ = try batch.run(["lora", "ia3", nil]) { try set.model.scores() }
        }
        #expect(try set.model.scores().isIdentical(to: plain))
        try set.activate("lora")
        let output = try set.model.scores()
        try set.activate("ia3")
        try set.activate("lora")
        #expect(try set.model.scores().isIdentical(to: output))
    }

    @Test func whatCannotShareABatchSaysWhy() throws {
        let own = try failure {
            try MixedBatch(set("t5-v1.1", [LoRA.self, LayerNormTuning.self])).run(["layernorm"]) {}
        }
        #expect(own.problem.contains("'layernorm'") && own.problem.contains("all rows of a batch share"))
        let unknown = try failure { try MixedBatch(set("t5-v1.1", [LoRA.self])).run(["lroa"]) {} }
        #expect(unknown.description.contains("did you mean 'lora'?"))
        let taken = try failure {
            let set = try set("t5-v1.1", [LoRA.self])
            try withTemporaryFolder { folder in
                let saved = folder.appendingPathComponent("x")
                try Adapter(MethodChoice(LoRA.self), on: Models.load("t5-v1.1")).save(to: saved, base: "t5-v1.1")
                try set.add(AdapterFolder(saved), name: "lora")
            }
        }
        #expect(taken.problem.contains("already"))
    }

    /// A classifier of its own for each adapter.
    @Test func rowsOfAnEncoderHaveClassifiersOfTheirOwn() throws {
        let methods: [any PEFTMethod.Type] = [LoRA.self, IA3.self, PromptTuning.self, Houlsby.self]
        let set = try set("bert", methods)
        let names: [String?] = methods.map { $0.name } + [nil, "lora"]
        let rows = names.indices.map { (input: Models.rows[$0 % 3].input, target: [0]) }
        let alone = try zip(rows, names).map { row, name -> Tensor in
            try set.activate(name)
            return try set.model.scores([row])
        }
        try set.activate(nil)
        let base = try set.model.scores(rows)
        let together = try MixedBatch(set).run(names) { try set.model.scores(rows) }
        #expect(relativeDifference(together, try withTorchErrors { Tensor.concatenated(alone) }) < 1e-5)
        #expect(try set.model.scores(rows).isIdentical(to: base))
        let classes: [Int] = try withTorchErrors { together.argmax(axis: -1).array() }
        let votes = try AdapterEnsemble(set).classify([rows[0].input])
        #expect(votes.count == 1 && (1...methods.count).contains(votes[0].votes))
        #expect(classes.count == names.count)
        let one = try AdapterEnsemble(set, members: ["lora"]).classify(rows.map(\.input))
        try set.activate("lora")
        let expected: [Int] = try withTorchErrors { try set.model.scores(rows).argmax(axis: -1).array() }
        #expect(one.map(\.label) == expected)
    }

    @Test func theMostFrequentAnswerCounts() {
        #expect(AdapterEnsemble.majority(["b", "a", "b"])?.answer == "b")
        #expect(AdapterEnsemble.majority(["b", "a"])?.answer == "b", "the first of equally frequent ones")
        #expect(AdapterEnsemble.majority([Int]()) == nil)
    }

    /// Adapters that some rows can't share don't keep the others from a batch.
    @Test func whatCannotShareABatchIsSwitchedTo() throws {
        let set = try set("t5-v1.1", [LoRA.self, LayerNormTuning.self, IA3.self])
        let names: [String?] = ["ia3", "layernorm", nil, "lora", "layernorm", "ia3"]
        let prompts = names.indices.map { Models.rows[$0 % 3].input }
        let parameters = GenerateParameters(maxNewTokens: 6)
        let alone = try zip(prompts, names).map { prompt, name -> [Int] in
            try set.activate(name)
            return try Generator(set.model, parameters).generate([prompt])[0]
        }
        let all = try MixedBatch(set).generateAll(prompts, adapters: names, parameters: parameters, batchSize: 4)
        #expect(all == alone)
        #expect(try MixedBatch(set).run(["lora", "ia3"]) { true })
    }

    /// Prefixes, and virtual tokens of a decoder, of different lengths.
    @Test(arguments: ["t5-v1.1", "llama", "gpt2"]) func virtualTokensOfDifferentLengths(base: String) throws {
        let set = AdapterSet(on: try Models.load(base))
        func add(_ method: any PEFTMethod.Type, _ tokens: Int) throws {
            var choice = MethodChoice(method)
            try choice.set("tokens", to: "\(tokens)")
            if set.model.architecture == .encoderDecoder, method == PromptTuning.self {
                // The method that gives an encoder-decoder's decoder virtual tokens too.
                var configuration = MultitaskPromptTuning.Configuration()
                (configuration.tokens.count, configuration.tokens.stacks) = (tokens, 2)
                choice = MethodChoice(MultitaskPromptTuning.self, configuration)
            }
            let adapter = try Adapter(choice, on: set.model, name: "\(method.name)\(tokens)")
            try adapter.randomize(seed: UInt64(tokens), deviation: 0.3)
            try set.add(adapter)
        }
        for tokens in [2, 5] {
            try add(PrefixTuning.self, tokens)
            try add(PromptTuning.self, tokens)
        }
        let parameters = [1, 2].map { GenerateParameters(maxNewTokens: 6, beams: $0) }
        func check(_ names: [String?]) throws {
            let rows = names.indices.map { Models.rows[$0 % 3] }
            let scores = try zip(rows, names).map { row, name -> Tensor in
                try set.activate(name)
                return try set.model.scores([row])
            }
            let together = try MixedBatch(set).run(names) { try set.model.scores(rows) }
            #expect(relativeDifference(together, try withTorchErrors { Tensor.concatenated(scores) }) < 1e-5)
            for parameters in parameters {
                let alone = try zip(rows, names).map { row, name -> [Int] in
                    try set.activate(name)
                    return try Generator(set.model, parameters).generate([row.input])[0]
                }
                let all = try MixedBatch(set).generateAll(rows.map(\.input), adapters: names, parameters: parameters)
                #expect(all == alone, "\(names)")
            }
        }
        try check(["prefix2", nil, "prefix5", "prefix2"])
        try check(["prompt5", "prompt2", nil, "prompt5"])
        try check(["prefix2", "prompt5", nil, "prompt2", "prefix5"])
        let prompts = [Models.rows[0].input, Models.rows[1].input]
        let isEncoderDecoder = set.model.architecture == .encoderDecoder
        do {
            _ = try MixedBatch(set).generate(prompts, adapters: ["prefix2", "prompt5"], parameters: parameters[0])
            #expect(!isEncoderDecoder)
        } catch let error as PEFTError {
            #expect(isEncoderDecoder && error.problem.contains("'prefix2'") && error.problem.contains("'prompt5'"))
        }
    }

    /// The set may change between runs, and batches of one set don't disturb each other.
    @Test func routesAreThoseOfEachRun() throws {
        let set = try set("t5-v1.1", [LoRA.self, IA3.self])
        let rows = Array(Models.rows.prefix(2))
        try set.activate("ia3")
        let output = try set.model.scores()
        let (first, second) = (MixedBatch(set), MixedBatch(set))
        let scores = try first.run(["lora", "ia3"]) { try set.model.scores(rows) }
        #expect(try second.run(["lora", "ia3"]) { try set.model.scores(rows) }.isIdentical(to: scores))
        #expect(set.active == "ia3", "what was active is so again")
        #expect(try set.model.scores().isIdentical(to: output))
        try set.remove("lora")
        #expect(try failure { try first.run(["lora"]) {} }.problem.contains("'lora'"))
        let nested = try failure { try first.run(["ia3"]) { try second.run(["ia3"]) {} } }
        #expect(nested.problem.contains("can't be nested"))
        let stranger = try Adapter(MethodChoice(LoRA.self), on: set.model)
        try set.activate(nil)
        let base = try set.model.scores()
        let other = try failure {
            try set.add(Adapter(MethodChoice(IA3.self), on: set.model, name: "second"))
            let q = try Adapter(MethodChoice(LoRA.self), on: set.model, name: "q")
            try set.add(q)
            try first.run(["q"]) {}
        }
        #expect(other.problem.contains("outside the set"))
        #expect(try set.model.scores().isIdentical(to: base))
        try stranger.deactivate()
        #expect(set.model.adapterCount == 0)
    }

    @Test func aFailedAdditionLeavesTheSetAsItWas() throws {
        let set = try set("t5-v1.1", [LoRA.self, IA3.self])
        try set.activate("lora")
        let output = try set.model.scores()
        try withTemporaryFolder { folder in
            let saved = folder.appendingPathComponent("x")
            let choice = MethodChoice(LoRA.self, LoRA.Configuration(rank: 2, alpha: 2, targets: ["wi"]))
            try Adapter(choice, on: Models.load("t5-v1.0")).save(to: saved, base: "t5-v1.0")
            #expect(throws: PEFTError.self) { try set.add(AdapterFolder(saved), name: "x") }
        }
        #expect(set.names == ["lora", "ia3"] && set.active == "lora")
        #expect(try set.model.scores().isIdentical(to: output))
        // What is merged isn't the base that all share.
        try set.adapters["lora"]?.merge()
        #expect(try failure { try MixedBatch(set).run(["ia3"]) {} }.problem.contains("is merged"))
        try set.activate("ia3")
        try set.activate("lora")
        #expect(try set.model.scores().isIdentical(to: output))
    }

    @Test func allButTheChosenOneAreForInference() throws {
        let set = try set("t5-v1.1", [LoRA.self, IA3.self, LayerNormTuning.self])
        func trainable() -> [String] {
            set.names.filter { name in
                (set.adapters[name]?.added.contains { $0.parameter.parameter.tensor.requiresGrad } ?? false)
                    || (set.adapters[name]?.trained.contains { $0.values.requiresGrad } ?? false)
            }
        }
        #expect(trainable().isEmpty)
        try set.setTrainable("layernorm")
        #expect(trainable() == ["layernorm"])
        try set.activate("layernorm")
        #expect(set.model.trainableParameters().count == set.adapters["layernorm"]?.trained.count)
        try set.setTrainable(nil)
        #expect(trainable().isEmpty && set.model.trainableParameters().isEmpty)
    }

    @Test func anEnsembleTakesTheMostFrequentAnswer() throws {
        let set = AdapterSet(on: try Models.load("t5-v1.1"))
        try withTemporaryFolder { folder in
            for (name, seed) in [("a", 1), ("b", 1), ("c", 2)] {
                let adapter = try Adapter(MethodChoice(LoRA.self), on: Models.load("t5-v1.1"))
                try adapter.randomize(seed: UInt64(seed), deviation: 0.3)
                let saved = folder.appendingPathComponent(name)
                try adapter.save(to: saved, base: "t5-v1.1")
                try set.add(AdapterFolder(saved), name: name)
            }
        }
        let parameters = GenerateParameters(maxNewTokens: 6)
        try set.activate("a")
        let expected = try Generator(set.model, parameters).generate([Models.rows[0].input])[0]
        let answer = try AdapterEnsemble(set).generate([Models.rows[0].input], parameters: parameters)[0]
        #expect(answer.tokens == expected)
        #expect(answer.votes >= 2)
    }
}
