import Foundation
import LanguageModels
import Support
import Tokenizers
import Torch

/// What a model makes of rows, beside what it should have made.
public struct EvaluationResult: Sendable {
    public var metrics: [String: MetricValue]
    /// Loss per target token, in nats.
    public var loss: Double
    public var predictions: [String]
    public var generatedTokens: Int
    /// Seconds spent generating.
    public var seconds: Double

    public init(
        metrics: [String: MetricValue], loss: Double, predictions: [String], generatedTokens: Int, seconds: Double
    ) {
        (self.metrics, self.loss, self.predictions) = (metrics, loss, predictions)
        (self.generatedTokens, self.seconds) = (generatedTokens, seconds)
    }
}

/// Generates for every row and scores the texts.
public struct Evaluator {
    public let model: any LanguageModel
    public let tokenizer: Tokenizer
    public var parameters: GenerateParameters
    public var batchSize: Int
    public var maxInputTokens: Int
    /// The classes of an encoder.
    public var labels: [String]

    public init(
        model: any LanguageModel, tokenizer: Tokenizer, parameters: GenerateParameters, batchSize: Int = 16,
        maxInputTokens: Int = 512, labels: [String] = []
    ) {
        (self.model, self.tokenizer, self.parameters) = (model, tokenizer, parameters)
        (self.batchSize, self.maxInputTokens, self.labels) = (batchSize, maxInputTokens, labels)
    }

    /// - Parameters:
    ///   - examples: prompts with their targets.
    ///   - onProgress: called with the rows that are done.
    public func evaluate(_ examples: [Example], onProgress: (Int) -> Void = { _ in }) throws -> EvaluationResult {
        let rows = try RowEncoder(tokenizer, for: model, labels: labels, maxInputTokens: maxInputTokens)
        let (encoded, _) = try rows.encode(examples)
        if model.architecture == .encoder { return try classify(encoded, examples, onProgress: onProgress) }
        let start = ContinuousClock.now
        let generated = try generate(encoded.map(\.input), onProgress: onProgress)
        let elapsed = start.duration(to: .now).components
        let predictions = generated.map { tokenizer.decode(tokens: $0) }
        return EvaluationResult(
            metrics: try evaluateGeneration(predictions: predictions, references: examples.map { [$0.target] }),
            loss: try model.meanLoss(encoded, batchSize: batchSize), predictions: predictions,
            generatedTokens: generated.reduce(0) { $0 + $1.count },
            seconds: Double(elapsed.seconds) + Double(elapsed.attoseconds) * 1e-18)
    }

    /// Names the likeliest class of every row.
    private func classify(
        _ encoded: [EncodedExample], _ examples: [Example], onProgress: (Int) -> Void
    ) throws -> EvaluationResult {
        let start = ContinuousClock.now
        var predictions = [String](repeating: "", count: encoded.count)
        let order = encoded.indices.sorted { (encoded[$0].input.count, $0) > (encoded[$1].input.count, $1) }
        try withTorchErrors {
            try withoutGradients {
                for start in stride(from: 0, to: order.count, by: batchSize) {
                    let part = Array(order[start..<min(start + batchSize, order.count)])
                    let batch = model.batch(
                        part.map { (encoded[$0].input, encoded[$0].target) }, device: model.device)
                    let classes: [Int] = model.logits(batch).argmax(axis: 1).array()
                    try checkTorchErrors()
                    for (row, number) in zip(part, classes) where labels.indices.contains(number) {
                        predictions[row] = labels[number]
                    }
                    onProgress(start + part.count)
                }
            }
        }
        let elapsed = start.duration(to: .now).components
        return EvaluationResult(
            metrics: try evaluateClassification(predictions: predictions, references: examples.map(\.target)),
            loss: try model.meanLoss(encoded, batchSize: batchSize), predictions: predictions, generatedTokens: 0,
            seconds: Double(elapsed.seconds) + Double(elapsed.attoseconds) * 1e-18)
    }

    /// Continues every prompt, in batches of rows of similar length.
    public func generate(_ prompts: [[Int]], onProgress: (Int) -> Void = { _ in }) throws -> [[Int]] {
        let generator = try Generator(model, parameters)
        var results = [[Int]](repeating: [], count: prompts.count)
        let order = prompts.indices.sorted { (prompts[$0].count, $0) > (prompts[$1].count, $1) }
        for start in stride(from: 0, to: order.count, by: batchSize) {
            let part = Array(order[start..<min(start + batchSize, order.count)])
            for (row, tokens) in zip(part, try generator.generate(part.map { prompts[$0] })) { results[row] = tokens }
            onProgress(start + part.count)
        }
        return results
    }
}
