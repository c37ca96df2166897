import Foundation
import LanguageModels
import PEFTSupport
import PEFTTokenizers
import Torch

/// The result of evaluating a model on a dataset.
public struct EvaluationResult: Sendable {
    /// The metrics by their key, such as `rouge1`.
    public var metrics: [String: MetricValue]
    /// Loss per target token, in nats.
    public var loss: Double
    /// The loss with its bootstrap interval over examples, if each example has a loss of its own.
    package var lossOverRows: MetricValue?
    /// The outputs, in the order of the examples.
    public var predictions: [String]
    /// Number of generated tokens.
    package var generatedTokens: Int
    /// Seconds spent generating.
    package var seconds: Double
    /// Labels of the data that the model doesn't have, with their number of examples. Such examples count as wrong and have
    /// no loss.
    package var unknownLabels: [String: Int] = [:]
    /// Texts cut off at the model's last position.
    package var endedAtLastPosition = 0

    package init(
        metrics: [String: MetricValue], loss: Double, predictions: [String], generatedTokens: Int, seconds: Double,
        lossOverRows: MetricValue? = nil
    ) {
        (self.metrics, self.loss, self.predictions) = (metrics, loss, predictions)
        self.lossOverRows = lossOverRows
        (self.generatedTokens, self.seconds) = (generatedTokens, seconds)
    }
}

/// Generates or predicts for every example and computes the metrics.
public struct Evaluator {
    package let model: any LanguageModel
    package let tokenizer: Tokenizer
    package var parameters: GenerateParameters
    package var batchSize: Int
    package var maxInputTokens: Int
    /// Restricts each generated text, such as to JSON.
    package var constraint: (any TokenConstraint)?
    /// - Parameters:
    ///   - model: the model, with its active adapters.
    ///   - tokenizer: its tokenizer.
    ///   - parameters: generation settings.
    ///   - batchSize: examples that are computed together.
    ///   - maxInputTokens: length in tokens to which inputs are truncated.
    public init(
        model: any LanguageModel, tokenizer: Tokenizer, parameters: GenerateParameters, batchSize: Int = 16,
        maxInputTokens: Int = 512
    ) {
        (self.model, self.tokenizer, self.parameters) = (model, tokenizer, parameters)
        (self.batchSize, self.maxInputTokens) = (batchSize, maxInputTokens)
    }

    /// - Parameters:
    ///   - examples: prompts with their targets.
    ///   - onProgress: called with the number of finished examples.
    public func evaluate(_ examples: [Example], onProgress: (Int) -> Void = { _ in }) throws -> EvaluationResult {
        let rows = try RowEncoder(tokenizer, for: model, maxInputTokens: maxInputTokens)
        if let task = model.head.headTask { return try evaluate(task, rows, examples, onProgress: onProgress) }
        let (encoded, _) = try rows.encode(examples)
        return try evaluate(
            encoded, prompts: encoded.map(\.input), beginnings: examples.map { try rows.beginning($0.languages) },
            texts: examples.map(\.prompt), references: examples.map(\.references), onProgress: onProgress)
    }

    /// Evaluates conversations: the model generates the last assistant turn, and the loss is that of the turns that
    /// `chats` selects.
    package func evaluate(
        _ conversations: [Conversation], _ chats: ChatEncoder, onProgress: (Int) -> Void = { _ in }
    ) throws -> EvaluationResult {
        let questions = try conversations.map { try chats.question($0) }
        return try evaluate(
            chats.encode(conversations).examples, prompts: questions.map(\.prompt),
            texts: questions.map { tokenizer.decode(tokens: $0.prompt) },
            references: questions.map { [$0.answer] }, endToken: chats.turnEnd, onProgress: onProgress)
    }

    private func evaluate(
        _ encoded: [EncodedExample], prompts: [[Int]], beginnings: [TextBeginning]? = nil, texts: [String],
        references: [[String]], endToken: Int? = nil,
        onProgress: (Int) -> Void
    ) throws -> EvaluationResult {
        let start = ContinuousClock.now
        var cutShort = 0
        let generated = try generate(
            prompts, beginnings: beginnings, endToken: endToken, onProgress: onProgress,
            onLastPosition: { _ in cutShort += 1 })
        let elapsed = start.duration(to: .now).inSeconds
        let predictions = generated.map { tokenizer.decode(tokens: $0) }
        var metrics = try evaluateGeneration(predictions: predictions, references: references, prompts: texts)
        let losses = try model.rowLosses(encoded)
        metrics[Perplexity.key] = try Perplexity.value(losses)
        var result = EvaluationResult(
            metrics: metrics, loss: Perplexity.meanLoss(losses), predictions: predictions,
            generatedTokens: generated.reduce(0) { $0 + $1.count },
            seconds: elapsed,
            lossOverRows: try Perplexity.loss(losses))
        result.endedAtLastPosition = cutShort
        return result
    }

    /// Evaluates the predictions of a model with a head.
    private func evaluate(
        _ task: any HeadTask, _ rows: RowEncoder, _ examples: [Example], onProgress: (Int) -> Void
    ) throws -> EvaluationResult {
        let unknown = examples.map(task.unknownLabels)
        let encoded = try zip(examples, unknown).map { example, unknown in
            try rows.checkTarget(example)
            return try EncodedExample(task.encode(example, rows.texts, needsTarget: unknown.isEmpty).row)
        }
        let known = encoded.indices.filter { unknown[$0].isEmpty }.map { encoded[$0] }
        guard !known.isEmpty else {
            let label = unknown.first?.first ?? ""
            throw PEFTError(
                "no example has one of the model's labels, such as '\(model.head.labels.first ?? "")' (the first example has '\(label)')",
                remedy: "name the label field in --target")
        }
        let start = ContinuousClock.now
        let predictions = try task.predict(
            encoded.map(\.row), with: model, batchSize: batchSize, onProgress: onProgress)
        let elapsed = start.duration(to: .now).inSeconds
        // The contrastive loss is over a batch: an example has none of its own.
        let losses = model.head.task == .embeddings ? nil : try model.rowLosses(known)
        let loss = try losses.map(Perplexity.meanLoss) ?? model.meanLoss(known, batchSize: batchSize)
        guard loss.isFinite else { throw model.nonFinite("losses") }
        var result = EvaluationResult(
            metrics: try task.metrics(predictions, of: examples), loss: loss,
            predictions: predictions.map(\.text), generatedTokens: 0,
            seconds: elapsed,
            lossOverRows: try losses.map { try Perplexity.loss($0) })
        for label in unknown.flatMap({ Set($0) }) { result.unknownLabels[label, default: 0] += 1 }
        return result
    }

    /// Predictions of a model with a head; targets are ignored.
    /// - Throws: ``PEFTError`` for a model that generates text.
    public func predict(_ examples: [Example], onProgress: (Int) -> Void = { _ in }) throws -> [Prediction] {
        guard let task = model.head.headTask else {
            throw PEFTError(
                "a \(model.family) model generates text and has no labels to predict", remedy: "use peft generate")
        }
        let rows = try RowEncoder(tokenizer, for: model, maxInputTokens: maxInputTokens)
        let encoded = try examples.map { example in
            try rows.checkLanguages(example)
            return try task.encode(example, rows.texts, needsTarget: false).row
        }
        return try task.predict(encoded, with: model, batchSize: batchSize, onProgress: onProgress)
    }

    /// Generates a continuation of every prompt, in batches of similar length.
    /// - Parameters:
    ///   - beginnings: how the text of each prompt begins.
    ///   - endToken: an end token in addition to the model's own.
    ///   - onLastPosition: called with the index of a prompt whose text is cut off at the model's last position.
    package func generate(
        _ prompts: [[Int]], beginnings: [TextBeginning]? = nil, endToken: Int? = nil,
        onProgress: (Int) -> Void = { _ in },
        onLastPosition: (Int) -> Void = { _ in }
    ) throws -> [[Int]] {
        let generator = try Generator(model, parameters)
        var results = [[Int]](repeating: [], count: prompts.count)
        let order = prompts.indices.sorted { (prompts[$0].count, $0) > (prompts[$1].count, $1) }
        for start in stride(from: 0, to: order.count, by: batchSize) {
            let part = Array(order[start..<min(start + batchSize, order.count)])
            let made = try withoutActuallyEscaping(onLastPosition) { report in
                try generator.generate(
                    part.map { prompts[$0] }, constraint: constraint, numbers: part,
                    beginnings: beginnings.map { all in part.map { all[$0] } }, onToken: { $1 != endToken },
                    onLastPosition: { report(part[$0]) })
            }
            for (row, tokens) in zip(part, made) { results[row] = Array(tokens.prefix { $0 != endToken }) }
            onProgress(start + part.count)
        }
        return results
    }
}
