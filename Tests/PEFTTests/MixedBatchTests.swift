import Foundation
import LanguageModels
import Support
import Testing
import Torch
import TorchNN

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
                try adapter.randomise(seed: UInt64(index), deviation: 0.1)
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
        let batch = try MixedBatch(set)
        let together = try batch.run(names) { try set.model.scores(rows) }
        let expected = try withTorchErrors { Tensor.concatenated(alone) }
        #expect(relativeDifference(together, expected) < 1e-5)
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
            let batch = try MixedBatch(set)
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
        let own = try failure { _ = try MixedBatch(set("t5-v1.1", [LoRA.self, LayerNormTuning.self])) }
        #expect(own.problem.contains("'layernorm'") && own.problem.contains("all rows share"))
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

    @Test func anEnsembleTakesTheMostFrequentAnswer() throws {
        let set = AdapterSet(on: try Models.load("t5-v1.1"))
        try withTemporaryFolder { folder in
            for (name, seed) in [("a", 1), ("b", 1), ("c", 2)] {
                let adapter = try Adapter(MethodChoice(LoRA.self), on: Models.load("t5-v1.1"))
                try adapter.randomise(seed: UInt64(seed), deviation: 0.3)
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
