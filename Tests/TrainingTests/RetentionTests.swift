import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers
import TestSupport
import Testing
import Torch

@testable import Training

/// The loss on general text, on models of 96 tokens with a tokenizer of as many words.
@Suite struct RetentionTests {
    private static let tokenizer = Result {
        try withTemporaryFolder { folder in
            try WordTokenizer.write(WordTokenizer.words(96), endToken: "</s>", to: folder)
            return try Tokenizer.load(folder: folder)
        }
    }

    /// The same words between `w2` as begin token and `</s>`, as Llama's tokenizer adds the first and T5's the second.
    private static func tokenizer(adding template: [String]) throws -> Tokenizer {
        try withTemporaryFolder { folder in
            try WordTokenizer.write(WordTokenizer.words(96), beginToken: "w2", endToken: "</s>", to: folder)
            let file = folder.appendingPathComponent("tokenizer.json")
            var json = try #require(JSON.read(file).object)
            let tokens = template.filter { $0 != "A" }
            json["post_processor"] = [
                "type": "TemplateProcessing", "pair": [],
                "single": .array(
                    template.map { [($0 == "A" ? "Sequence" : "SpecialToken"): ["id": .string($0), "type_id": 0]] }),
                "special_tokens": .object(
                    Dictionary(
                        uniqueKeysWithValues: tokens.map { token in
                            let id = WordTokenizer.words(96).firstIndex(of: token) ?? 0
                            return (token, ["id": .string(token), "ids": [.integer(id)], "tokens": [.string(token)]])
                        })),
            ]
            try AtomicFile.write(JSON.object(json).text(), to: file)
            return try Tokenizer.load(folder: folder)
        }
    }

    /// The text whose tokens are `ids`, in lines of five tokens.
    private static func text(_ ids: some Sequence<Int>) -> String {
        let words = ids.map { "w\($0)" }
        return stride(from: 0, to: words.count, by: 5).map { words[$0..<min($0 + 5, words.count)] }
            .map { $0.joined(separator: " ") }.joined(separator: "\n")
    }

    private func retention(
        _ text: String, name: String = "general.txt", of model: any LanguageModel, tokenizer: Tokenizer? = nil,
        pieceTokens: Int = 4, limit: Int = 64
    ) throws -> Retention {
        try withTemporaryFile(name, text) { file in
            try Retention(
                file, tokenizer: tokenizer ?? Self.tokenizer.get(), head: model.head,
                architecture: model.architecture,
                pieceTokens: pieceTokens, limit: limit)
        }
    }

    private func load(_ name: String) throws -> any LanguageModel { try ModelFolder(Checkout.model(name)).load() }

    /// Thirteen tokens are three pieces of four; the last token is left over.
    @Test(arguments: [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (64, [0, 1, 2])])
    func piecesAreSpreadOverTheText(limit: Int, used: [Int]) throws {
        let model = try load("llama")
        let retention = try retention(Self.text(2...14), of: model, limit: limit)
        #expect(retention.name == "general.txt")
        // A decoder-only model predicts all but a piece's first token.
        #expect(retention.pieces.map(\.input) == used.map { [2 + 4 * $0] })
        #expect(retention.pieces.map(\.target) == used.map { piece in (1...3).map { 2 + 4 * piece + $0 } })
    }

    @Test func aLongTextIsNotReadFromTheStartAlone() throws {
        let retention = try retention(Self.text((0..<80).map { 2 + $0 }), of: load("llama"), limit: 4)
        // Twenty pieces, of which every fifth is used.
        #expect(retention.pieces.map(\.input) == [[2], [22], [42], [62]])
    }

    /// An encoder-decoder reads the first half, which the tokenizer's end token closes, and predicts the second.
    @Test func encoderDecodersReadTheFirstHalf() throws {
        let retention = try retention(Self.text(2...9), of: load("t5-v1.1"))
        #expect(retention.pieces.map(\.input) == [[2, 3, 1], [6, 7, 1]])
        #expect(retention.pieces.map(\.target) == [[4, 5], [8, 9]])
    }

    @Test func endTokensOfLinesAreLeftOut() throws {
        let retention = try retention("w2 w3 </s>\nw4 w5 </s>\n", of: load("llama"))
        #expect(retention.pieces.map { $0.input + $0.target } == [[2, 3, 4, 5]])
    }

    /// A begin token that the tokenizer adds to each line is at the start of each piece and nowhere else.
    @Test func aBeginTokenOpensEachPiece() throws {
        let text = "w3 w4\nw5 w6 w7\nw8"
        let opened = try retention(
            text, of: load("llama"), tokenizer: Self.tokenizer(adding: ["w2", "A"]), pieceTokens: 4)
        #expect(opened.pieces.map(\.input) == [[2], [2]])
        #expect(opened.pieces.map(\.target) == [[3, 4, 5], [6, 7, 8]])
        // Its end token neither, and a begin token that the tokenizer doesn't add is not in the text.
        let closed = try retention(
            "w2 w3 w4\nw5 w6", of: load("llama"), tokenizer: Self.tokenizer(adding: ["A", "</s>"]), pieceTokens: 4)
        #expect(closed.pieces.map { $0.input + $0.target } == [[3, 4, 5, 6]])
    }

    @Test func rowsHaveAText() throws {
        let rows = #"{"text": "w2 w3"}"# + "\n" + #"{"text": "w4 w5", "other": 1}"#
        let model = try load("llama")
        let retention = try retention(rows, name: "rows.jsonl", of: model)
        #expect(retention.pieces.map { $0.input + $0.target } == [[2, 3, 4, 5]])
        #expect(
            message { _ = try self.retention(#"{"body": "w2 w3 w4 w5"}"#, name: "rows.jsonl", of: model) }
                .contains("has no field 'text'"))
    }

    @Test func whatCannotBeMeasuredIsRefused() throws {
        let model = try load("llama")
        #expect(
            message { _ = try self.retention("w2 w3 w4", of: model) }
                == "general.txt has only 3 tokens; --retain needs at least 4")
        let classifier = try ModelFolder(Checkout.model("heads/bert")).with(
            ModelHead(task: .classification, labels: ["a", "b"])
        ).outline()
        #expect(
            message { _ = try self.retention("w2 w3 w4 w5", of: classifier) }.hasPrefix(
                "--retain measures the language-modeling loss, which a model for "))
    }

    /// −log p of each target token, summed over the vocabulary in plain loops, one piece at a time.
    private func plainLoss(_ model: any LanguageModel, _ pieces: [EncodedExample]) throws -> Double {
        var (sum, count) = (0.0, 0)
        for piece in pieces {
            let logits = try withTorchErrors {
                withoutGradients { model.logits(model.batch([(piece.input, piece.target)], device: .cpu)) }
            }
            #expect(logits.shape == [piece.target.count, 96])
            let values = logits.array(Double.self)
            for (index, token) in piece.target.enumerated() {
                let scores = values[(96 * index)..<(96 * (index + 1))]
                let largest = try #require(scores.max())
                let total = scores.reduce(0) { $0 + exp($1 - largest) }
                sum += largest + log(total) - values[96 * index + token]
                count += 1
            }
        }
        return sum / Double(count)
    }

    @Test(arguments: ["llama", "gpt2", "t5-v1.1"]) func theLossIsThatOfPlainLoops(name: String) throws {
        let model = try load(name)
        let retention = try retention(Self.text((0..<60).map { 2 + ($0 * 37) % 90 }), of: model, pieceTokens: 12)
        #expect(retention.pieces.count == 5)
        let expected = try plainLoss(model, retention.pieces)
        for batchSize in [1, 2, 8] {
            #expect(abs(try retention.loss(of: model, batchSize: batchSize) - expected) < 1e-5 * expected)
        }
        // Perplexity is made of the same losses.
        let losses = try model.rowLosses(retention.pieces)
        #expect(abs(Perplexity.meanLoss(losses) - expected) < 1e-5 * expected)
    }

    /// A new LoRA adapter changes nothing, training on the text lowers its loss, and the base model is as it was.
    @Test func onlyTrainingChangesTheLoss() throws {
        let model = try load("llama")
        let retention = try retention(Self.text((0..<48).map { 2 + ($0 * 37) % 90 }), of: model, pieceTokens: 12)
        let before = try retention.loss(of: model)
        #expect(try retention.loss(of: model) == before)
        let adapter = try Adapter(MethodChoice(LoRA.self), on: model)
        #expect(abs(try retention.loss(of: model) - before) < 1e-6 * before)
        var configuration = TrainingConfiguration()
        (configuration.steps, configuration.batchSize, configuration.learningRate) = (10, 4, 1e-2)
        try Trainer(adapter, training: retention.pieces, validation: [], configuration: configuration).run()
        let trained = try retention.loss(of: model)
        #expect(trained < before)
        #expect(abs(trained - (try plainLoss(model, retention.pieces))) < 1e-5 * trained)
        try adapter.deactivate()
        #expect(try retention.loss(of: model) == before)
    }
}
