import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers
import TestSupport
import Testing
import Torch

@testable import Training

/// Examples that don't fit a model are named before training.
@Suite struct InputLimitTests {
    private func tokenizer(_ vocabulary: Int) throws -> Tokenizer {
        try withTemporaryFolder { folder in
            try WordTokenizer.write(WordTokenizer.words(vocabulary), to: folder)
            return try Tokenizer.load(folder: folder)
        }
    }

    private func example(_ prompt: Int, _ target: Int, line: Int = 7) -> Example {
        func text(_ count: Int) -> String { Array(repeating: "w2", count: count).joined(separator: " ") }
        return Example(
            prompt: text(prompt), target: text(target), row: .init(file: "rows.jsonl", number: line))
    }

    @Test func longExamplesAreNamed() throws {
        let model = try ModelFolder(Checkout.model("gpt2")).load()
        let encoder = try RowEncoder(tokenizer(50), for: model, maxInputTokens: 512)
        #expect(encoder.maxInputTokens == 128)
        // The end token follows the target and isn't read.
        _ = try encoder.encode([example(100, 28)])
        let error = try #require(throws: PEFTError.self) { try encoder.encode([example(2, 2), example(100, 29)]) }
        #expect(error.problem.contains("rows.jsonl line 7"))
        #expect(error.problem.contains("130 tokens") && error.problem.contains("128 positions"))
        // Virtual tokens take up positions.
        let prompted = try RowEncoder(tokenizer(50), for: model, maxInputTokens: 512, virtualTokens: 20)
        #expect(prompted.maxInputTokens == 108)
        let other = try #require(throws: PEFTError.self) { try prompted.encode([example(100, 10)]) }
        #expect(other.problem.contains("20 virtual ones"))
        #expect(throws: PEFTError.self) {
            try RowEncoder(tokenizer(50), for: model, maxInputTokens: 512, virtualTokens: 127)
        }
    }

    @Test func attachedVirtualTokensCount() throws {
        let model = try ModelFolder(Checkout.model("gpt2")).load()
        for method in [PromptTuning.self, PrefixTuning.self] as [any PEFTMethod.Type] {
            let choice = MethodChoice(method)
            #expect(choice.virtualTokens == 20)
            let adapter = try Adapter(choice, on: model)
            #expect(model.positionRoom() == 108)
            #expect(try RowEncoder(tokenizer(50), for: model, maxInputTokens: 512).maxInputTokens == 108)
            let rows = [
                EncodedExample(input: [3], target: [4, 1]),
                EncodedExample(input: Array(repeating: 3, count: 108), target: [4, 1]),
            ]
            let error = try #require(throws: PEFTError.self) {
                try Trainer(adapter, training: rows, validation: [], configuration: TrainingConfiguration())
            }
            #expect(error.problem.contains("training example 2 has 109 tokens"))
            #expect(error.problem.contains("128 positions besides 20 virtual tokens"))
            let generator = try Generator(model, GenerateParameters(maxNewTokens: 40, minNewTokens: 40))
            #expect(try generator.generate([Array(repeating: 3, count: 100)])[0].count == 9)
            let long = try #require(throws: PEFTError.self) {
                try generator.generate([Array(repeating: 3, count: 109)])
            }
            #expect(long.problem.contains("109 tokens and 20 virtual ones"))
            try adapter.deactivate()
        }
        #expect(model.positionRoom() == 128)
    }

    @Test func encodersTruncate() throws {
        let base = try ModelFolder(Checkout.model("bert"))
        let model = try base.with(ModelHead(task: .classification, labels: ["x", "y"])).outline()
        let limit = try #require(model.positionLimit)
        let encoder = try RowEncoder(tokenizer(50), for: model, maxInputTokens: limit + 100)
        #expect(encoder.maxInputTokens == limit)
        #expect(encoder.prompt(example(limit + 5, 1).prompt).ids.count == limit)
        let note = try InputLimits(model, tokenizer(50)).note(maxInputTokens: limit + 100)
        #expect(
            note?.contains("--max-input is \(limit + 100)") == true && note?.contains("\(limit) positions") == true)
        #expect(try InputLimits(model, tokenizer(50)).note(maxInputTokens: limit) == nil)
    }

    @Test func unknownTokensAreNamed() throws {
        let model = try ModelFolder(Checkout.model("llama")).outline()
        let encoder = try RowEncoder(tokenizer(120), for: model, maxInputTokens: 512)
        let row = Example(prompt: "w2 w100", target: "w3", row: .init(file: "rows.jsonl", number: 3))
        let error = try #require(throws: PEFTError.self) { try encoder.encode([row]) }
        #expect(error.problem.contains("rows.jsonl") && error.problem.contains("token id 100"))
        #expect(error.problem.contains("vocabulary of 96"))
    }

    /// sentence-transformers reads as many tokens as `sentence_bert_config.json` says.
    @Test func sentenceBERTLimitsEmbeddings() throws {
        var model = try ModelFolder(Checkout.model("bert")).with(ModelHead(task: .embeddings)).outline()
        model.folderSettings.maximumTextLength = 12
        let encoder = try RowEncoder(tokenizer(50), for: model, maxInputTokens: 512)
        #expect(encoder.maxInputTokens == 12)
        let note = try InputLimits(model, tokenizer(50)).note(maxInputTokens: 64)
        #expect(note?.contains("'max_seq_length' in sentence_bert_config.json is 12") == true)
        model = try ModelFolder(Checkout.model("bert")).with(ModelHead(task: .classification, labels: ["x", "y"]))
            .outline()
        model.folderSettings.maximumTextLength = 12
        #expect(try RowEncoder(tokenizer(50), for: model, maxInputTokens: 32).maxInputTokens == 32)
    }

    /// A tensor of the base that is damaged is no matter of the learning rate.
    @Test func damagedBasesAreNamed() throws {
        let model = try ModelFolder(Checkout.model("llama")).load()
        let path = "model.layers.0.mlp.down_proj.weight"
        let parameter = try #require(model.parameters().first { $0.path == path }).parameter
        let damaged = parameter.tensor.detached().clone()
        damaged.fill(.nan)
        parameter.tensor = damaged
        let adapter = try Adapter(MethodChoice(LoRA.self), on: model)
        var configuration = TrainingConfiguration()
        configuration.steps = 2
        let rows = [EncodedExample(input: [3, 5], target: [4, 1])]
        let trainer = try Trainer(adapter, training: rows, validation: [], configuration: configuration)
        let error = try #require(throws: PEFTError.self) { try trainer.run() }
        #expect(error.problem.contains("'\(path)'") && error.problem.contains("at step 1"))
        #expect(throws: PEFTError.self) { try model.rowLosses(rows) }
    }
}
