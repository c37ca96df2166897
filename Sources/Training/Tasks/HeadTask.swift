import LanguageModels
import PEFTSupport
import Torch

/// A task of models with a head: encodes targets to labels, decodes outputs to predictions, and computes
/// metrics. One file per task.
protocol HeadTask: Sendable {
    /// Encodes an example.
    /// - Parameter needsTarget: whether the example must have a target.
    /// - Throws: ``PEFTError`` naming the row, for a target that is invalid for the task.
    func encode(_ example: Example, _ texts: TextEncoder, needsTarget: Bool) throws -> (
        row: TrainingRow, isTruncated: Bool
    )

    /// Labels of an example that the model doesn't have.
    func unknownLabels(of example: Example) -> [String]

    /// Decodes the outputs of one batch to predictions.
    func read(_ outputs: Tensor, rows: [TrainingRow]) throws -> [Prediction]

    /// Predictions for all examples, without gradients and dropout.
    func predict(_ rows: [TrainingRow], with model: any LanguageModel, batchSize: Int, onProgress: (Int) -> Void)
        throws
        -> [Prediction]

    /// - Parameter examples: the examples of the predictions.
    func metrics(_ predictions: [Prediction], of examples: [Example]) throws -> [String: MetricValue]
}

/// The prediction of a model with a head for one example.
public enum Prediction: Sendable, Equatable {
    /// A class with its probability.
    case label(String, probability: Double)
    /// The labels with a probability above ½, with their probabilities.
    case labels([String], probabilities: [Double])
    case number(Double)
    /// A class for each word; fewer than there are words if the text was truncated.
    case words([String])
    /// The embedding of the text, and those of its candidates.
    case vector([Float], candidates: [[Float]])

    /// The prediction in the format of targets; empty for embeddings.
    public var text: String {
        switch self {
        case .label(let label, _): label
        case .labels(let labels, _), .words(let labels): labels.joined(separator: "\n")
        case .number(let number): String(number)
        case .vector: ""
        }
    }

    /// The fields of `peft predict`'s JSON output.
    package var fields: [String: JSON] {
        switch self {
        case .label(let label, let probability): ["label": .string(label), "score": .number(probability)]
        case .labels(let labels, let probabilities):
            ["labels": .array(labels.map { .string($0) }), "scores": .array(probabilities.map { .number($0) })]
        case .number(let number): ["score": .number(number)]
        case .words(let labels): ["labels": .array(labels.map { .string($0) })]
        case .vector(let vector, let candidates):
            candidates.isEmpty
                ? ["embedding": .array(vector.map { .number(Double($0)) })]
                : [
                    "embedding": .array(vector.map { .number(Double($0)) }),
                    "similarity": .number(cosine(vector, candidates[0])),
                ]
        }
    }
}

extension ModelHead {
    /// `nil` for models that generate text.
    var headTask: (any HeadTask)? {
        switch task {
        case .sequenceToSequence, .causalLM: nil
        case .classification: ClassificationTask(labels: labels)
        case .multiLabel: MultiLabelTask(labels: labels)
        case .regression: RegressionTask()
        case .tokenClassification: TokenClassificationTask(labels: labels)
        case .embeddings: EmbeddingTask()
        }
    }

    /// Key of the primary metric of the task.
    /// - Parameter hasTargets: for embeddings, whether the pairs have target similarities.
    package func primaryMetric(hasTargets: Bool) -> String {
        switch task {
        case .sequenceToSequence, .causalLM: ROUGE.Variant.rouge1.rawValue
        case .classification: ClassificationMetric.accuracy.rawValue
        case .multiLabel: ClassificationMetric.microF1.rawValue
        case .regression: RegressionMetric.spearman.rawValue
        case .tokenClassification: EntityMetric.entityF1.rawValue
        case .embeddings:
            hasTargets ? EmbeddingMetric.cosineSpearman.rawValue : EmbeddingMetric.recall1.rawValue
        }
    }
}

extension HeadTask {
    func unknownLabels(of example: Example) -> [String] { [] }

    func predict(
        _ rows: [TrainingRow], with model: any LanguageModel, batchSize: Int, onProgress: (Int) -> Void
    ) throws -> [Prediction] {
        try Self.inBatches(rows.map(\.input.count), batchSize: batchSize, onProgress: onProgress) { part in
            let own = part.map { rows[$0] }
            let outputs = withoutGradients {
                model.computing { model.logits(model.batch(own, device: model.device)) }.to(.float32)
            }
            try model.requireFinite(logits: outputs)
            return try read(outputs, rows: own)
        }
    }

    /// Runs batches of similar length, the longest first.
    static func inBatches<Result>(
        _ lengths: [Int], batchSize: Int, onProgress: (Int) -> Void, _ run: ([Int]) throws -> [Result]
    ) throws -> [Result] {
        let order = lengths.indices.sorted { (lengths[$0], $0) > (lengths[$1], $1) }
        var results = [Result?](repeating: nil, count: lengths.count)
        for start in stride(from: 0, to: order.count, by: batchSize) {
            let part = Array(order[start..<min(start + batchSize, order.count)])
            for (row, result) in zip(part, try withTorchErrors { try run(part) }) { results[row] = result }
            onProgress(start + part.count)
        }
        return results.compactMap { $0 }
    }

    /// Encodes the text, or the pair of texts, of an example.
    func text(_ example: Example, _ texts: TextEncoder) throws -> (row: TrainingRow, isTruncated: Bool) {
        if let pair = example.pair {
            let both = texts.encode(example.prompt, pair: pair)
            return (TrainingRow(input: both.ids, segments: both.segments), both.isTruncated)
        }
        let one = texts.encode(example.prompt)
        guard !one.ids.isEmpty else {
            throw PEFTError("\(example.row): the text has no tokens", remedy: "fill in the text or remove the row")
        }
        return (TrainingRow(input: one.ids), one.isTruncated)
    }
}
