import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// Models whose vocabulary is enlarged for new tokens, and the files of adapters over them.
@Suite struct EnlargedVocabularyTests {
    /// 96 to 98 are new.
    static let rows: [(input: [Int], target: [Int])] = [
        ([3, 96, 17, 40, 98], [97, 11, 96]), ([96, 5, 98], [2, 97]), ([7, 98, 30], [96, 1]),
    ]

    private func source(_ base: String) throws -> ModelFolder {
        try ModelFolder(Models.folder.appendingPathComponent(base))
    }

    @Test(arguments: ["llama", "qwen2", "gpt2", "t5-v1.1", "t5-tied-gated"]) func newRowsAreNearTheMean(base: String)
        throws
    {
        let (old, folder) = (try Models.load(base), try source(base).with(tokens: 99, seed: 3))
        let (model, again) = (try folder.load(), try folder.load())
        let outline = try folder.outline()
        typealias Weight = any LinearWeight
        var matrices: [(Weight?, Weight?, Weight?)] = [
            (old.vocabularyTable?.weight, model.vocabularyTable?.weight, again.vocabularyTable?.weight)
        ]
        if let output = old.ownOutputLayer {
            matrices.append((output.weight, model.ownOutputLayer?.weight, again.ownOutputLayer?.weight))
        }
        for (before, after, repeated) in matrices {
            let values = try #require(before).dense(as: .float64)
            let grown = try #require(after).dense(as: .float64)
            #expect(grown.shape == [99, values.dim(1)])
            let same = try #require(repeated).dense(as: .float64)
            #expect(same.isIdentical(to: grown))
            #expect(grown.narrowed(axis: 0, 0..<96).isIdentical(to: values))
            let mean = values.sum(axes: [0], keep: true) * (1 / 96.0)
            let (distance, spread) = (grown.narrowed(axis: 0, 96..<99) - mean, values - mean)
            // The deviation is √10⁻⁹ of that of the old rows.
            let new = (distance * distance).sum().item() / 3
            let known = (spread * spread).sum().item() / 96
            let ratio = new / known
            #expect(ratio > 2e-10 && ratio < 4e-9, "\(ratio)")
        }
        #expect(model.vocabularySize == 99 && outline.vocabularySize == 99)
        #expect(model.hasTiedOutput == old.hasTiedOutput)
        let (scores, wanted) = (try model.scores(), try old.scores())
        #expect(relativeDifference(scores.narrowed(axis: 1, 0..<96), wanted) < 1e-5)
        // A model of full fine-tuning is written with its size.
        try withTemporaryFolder { url in
            try model.write(into: url)
            #expect(try JSON.read(url.appendingPathComponent("config.json"))["vocab_size"] == 99)
            let (read, written) = (try ModelFolder(url).load().scores(Self.rows), try model.scores(Self.rows))
            #expect(relativeDifference(read, written) < 1e-6)
        }
    }

    @Test func outputLayersWithABiasAreRefused() throws {
        let url = Models.folder.appendingPathComponent("decoders/gptj")
        let error = try failure { _ = try ModelFolder(url).with(tokens: 1000, seed: 0).outline() }
        #expect(error.problem.contains("bias"))
    }

    static let cases: [String: (options: [String: String], trainsThem: Bool)] = [
        "lora": ([:], true), "lora saved": (["modules-to-save": "embed_tokens,lm_head"], true),
        "lora saved together": (["modules-to-save": "embed_tokens", "tie-embeddings": "true"], true),
        "lora on the output": (["targets": "q_proj,lm_head"], true),
        "lora on both": (["targets": "q_proj,embed_tokens,lm_head"], true), "dora": ([:], true),
        "trainable_tokens": ([:], true), "ia3": ([:], false), "prompt": (["tokens": "3"], false),
    ]

    @Test(arguments: ["llama", "qwen2"], cases.keys.sorted()) func filesContainTheVocabulary(
        base: String, name: String
    )
        throws
    {
        let (options, trainsThem) = try #require(Self.cases[name])
        let model = try source(base).with(tokens: 99, seed: 3).load()
        var requested = MethodChoice(try PEFTMethods.named(String(name.prefix { $0 != " " })))
        for (option, value) in options { try requested.set(option, to: value) }
        let (choice, trains) = try requested.training(newTokens: [96, 97, 98], of: ModelOutline(model))
        // Tokens of a tied embedding aren't trained beside an adapter over the output layer.
        #expect(trains == (trainsThem && !(name == "lora on the output" && base == "qwen2")))
        let vocabulary = try #require(EnlargedVocabulary(of: model))
        let adapter = try Adapter(choice, on: model, tokenizer: nil)
        try adapter.train(steps: 2, rate: 1e-3, rows: Self.rows)
        try adapter.randomize(seed: 5)
        let scores = try model.scores(Self.rows)
        try withTemporaryFolder { url in
            adapter.enlargedVocabulary = vocabulary
            try adapter.write(into: url, base: base)
            let stored = try SafetensorsFile(url.appendingPathComponent("adapter_model.safetensors")).entries
            let matrices = stored.filter { $0.key.hasSuffix(".weight") && $0.value.shape == [99, 24] }.keys
            #expect(matrices.contains { $0.contains("embed_tokens") }, "\(stored.keys.sorted())")
            // The original base gets the vocabulary from the file.
            let plain = try Models.load(base)
            let read = try AdapterFolder(url).attach(to: plain)
            #expect(relativeDifference(try plain.scores(Self.rows), scores) < 1e-5)
            try read.deactivate()
            #expect(plain.vocabularySize == 96)
            // On examples without the new tokens, too.
            let batch = plain.batch(Models.rows, device: .cpu)
            let check = try AdapterCheck(AdapterFolder(url), on: plain, batches: [batch])
            #expect(check.fits && check.isEffective && plain.vocabularySize == 96, "\(check.problems)")
        }
    }

    @Test func whatAMethodTrainsAlreadyStaysAsItIs() throws {
        let outline = ModelOutline(try source("llama").with(tokens: 98, seed: 0).outline())
        var choice = MethodChoice(LoRA.self, LoRA.Configuration(rank: 2, alpha: 4, targets: ["q_proj"]))
        let both = try choice.training(newTokens: [96, 97], of: outline).choice.configuration.json
        #expect(both["trainable_token_indices"] == ["embed_tokens": [96, 97], "lm_head": [96, 97]])
        try choice.set("modules-to-save", to: "lm_head")
        let one = try choice.training(newTokens: [96, 97], of: outline).choice.configuration.json
        #expect(one["trainable_token_indices"] == ["embed_tokens": [96, 97]])
        let tied = ModelOutline(try source("qwen2").with(tokens: 98, seed: 0).outline())
        let plain = MethodChoice(LoRA.self, LoRA.Configuration(rank: 2, alpha: 4, targets: ["q_proj"]))
        #expect(
            try plain.training(newTokens: [96, 97], of: tied).choice.configuration.json["trainable_token_indices"]
                == [96, 97])
        // Chosen tokens stay the chosen ones.
        var some = plain
        try some.set("trainable-tokens", to: "97")
        #expect(
            try some.training(newTokens: [96, 97], of: outline).choice.configuration.json["trainable_token_indices"]
                == [97])
        #expect(try MethodChoice(FullFineTuning.self).training(newTokens: [96], of: tied).trainsThem)
    }
}
