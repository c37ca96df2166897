import PEFTSupport

/// Generated texts with their references, which metrics score.
final class GeneratedTexts {
    /// One text per example.
    let predictions: [String]
    /// One or more texts per example.
    let references: [[String]]
    /// The prompts, if metrics may read them.
    let prompts: [String]?
    /// Whether ROUGE compares stems instead of words.
    let stemming: Bool

    init(predictions: [String], references: [[String]], prompts: [String]?, stemming: Bool) {
        (self.predictions, self.references) = (predictions, references)
        (self.prompts, self.stemming) = (prompts, stemming)
    }

    /// ROUGE of each example, computed once for all variants.
    private(set) lazy var rouge: [[ROUGE.Variant: ROUGE.Score]] = {
        let rouge = ROUGE(stemming: stemming)
        var tokenizer = ROUGETokenizer(stemming: stemming)
        return zip(predictions, references).map {
            rouge.score(prediction: $0, references: $1, tokenizer: &tokenizer)
        }
    }()

    /// The metrics of generated texts among `metrics`, by key.
    func values(of metrics: [MetricDescription], _ bootstrap: Bootstrap) throws -> [String: MetricValue] {
        try metrics.reduce(into: [:]) { values, metric in
            values[metric.key] = try metric.scoreTexts?(self, bootstrap)
        }
    }
}

/// Evaluates generated texts against their references.
/// - Parameters:
///   - predictions: one generated text per example.
///   - references: one or more reference texts per example.
///   - prompts: the prompt of each example; adds ``DetailRecall`` if any reference shares details with its prompt.
///   - stemming: whether ROUGE compares stems instead of words.
///   - bootstrap: the bootstrap of the intervals, with the same resamples for every metric.
/// - Returns: every metric of generated texts by its key, each in the range of its ``MetricDescription``; ``DetailRecall`` if
///   prompts are given.
/// - Throws: ``PEFTError`` for lists of different length, an empty list or an example without references.
public func evaluateGeneration(
    predictions: [String], references: [[String]], prompts: [String]? = nil, stemming: Bool = true,
    bootstrap: Bootstrap = .standard
) throws -> [String: MetricValue] {
    try checkPairs(predictions: predictions, references: references)
    let texts = GeneratedTexts(
        predictions: predictions, references: references, prompts: prompts, stemming: stemming)
    return try texts.values(of: MetricDescription.all, bootstrap)
}

/// Checks that every example has a prediction and at least one reference.
func checkPairs(predictions: [String], references: [[String]]) throws {
    guard predictions.count == references.count else {
        throw PEFTError(
            "\(predictions.count) predictions but references for \(references.count) examples",
            remedy: "provide references for each prediction")
    }
    guard !predictions.isEmpty else {
        throw PEFTError("there are no predictions to evaluate", remedy: "provide at least one")
    }
    if let row = references.firstIndex(where: \.isEmpty) {
        throw PEFTError("example \(row + 1) has no reference", remedy: "each prediction needs at least one")
    }
}
