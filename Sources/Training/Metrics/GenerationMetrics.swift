import Support

/// The metrics of ``evaluateGeneration(predictions:references:prompts:stemming:bootstrap:)``;
/// raw values are their keys in reports.
public enum GenerationMetric: String, CaseIterable, Sendable, Codable {
    /// Mean F-measure over examples, each against its best reference, in 0 … 1.
    case rouge1, rouge2, rougeL, rougeLsum
    /// Corpus-level scores: BLEU in 0 … 1; NIST in bits, at least 0 and unbounded.
    case bleu, nist
    /// Means over examples: METEOR in 0 … 1, CIDEr in 0 … 10.
    case meteor, cider
    /// Fraction of examples equal to a reference after trimming whitespace, in 0 … 1.
    case exactMatch
}

/// Evaluates generated texts against their references.
/// - Parameters:
///   - predictions: one generated text per example.
///   - references: one or more reference texts per example.
///   - prompts: the prompt of each example; adds ``DetailRecall`` if any reference shares details with its prompt.
///   - stemming: whether ROUGE compares stems instead of words.
///   - bootstrap: the bootstrap of the intervals, with the same resamples for every metric.
/// - Returns: every ``GenerationMetric`` by its raw value, each in 0 … 1 except NIST (bits, unbounded) and CIDEr (0 … 10), and
///   ``DetailRecall/key`` if prompts are given.
/// - Throws: ``PEFTError`` for lists of different length, an empty list or an example without references.
public func evaluateGeneration(
    predictions: [String], references: [[String]], prompts: [String]? = nil, stemming: Bool = true,
    bootstrap: Bootstrap = .standard
) throws -> [String: MetricValue] {
    try checkPairs(predictions: predictions, references: references)
    let rouge = ROUGE(stemming: stemming)
    var tokenizer = ROUGETokenizer(stemming: stemming)
    let scores = zip(predictions, references).map {
        rouge.score(prediction: $0, references: $1, tokenizer: &tokenizer)
    }
    func mean(_ variant: ROUGE.Variant) throws -> MetricValue {
        try bootstrap.mean(of: scores.map { $0[variant]?.fmeasure ?? 0 })
    }
    let statistics = BLEU.statistics(predictions: predictions, references: references)
    let information = NIST.statistics(predictions: predictions, references: references)

    var values: [String: MetricValue] = [:]
    for metric in GenerationMetric.allCases {
        values[metric.rawValue] =
            switch metric {
            case .rouge1: try mean(.rouge1)
            case .rouge2: try mean(.rouge2)
            case .rougeL: try mean(.rougeL)
            case .rougeLsum: try mean(.rougeLsum)
            case .bleu:
                try bootstrap.value(rows: statistics.count) { rows in
                    rows.reduce(into: BLEU.Statistics()) { $0.add(statistics[$1]) }.score
                }
            case .nist:
                try bootstrap.value(rows: information.count) { rows in
                    rows.reduce(into: NIST.Statistics()) { $0.add(information[$1]) }.score
                }
            case .meteor: try bootstrap.mean(of: METEOR.scores(predictions: predictions, references: references))
            case .cider: try bootstrap.mean(of: CIDEr.scores(predictions: predictions, references: references))
            case .exactMatch:
                try bootstrap.mean(
                    of: zip(predictions, references).map {
                        ExactMatch.matches(prediction: $0, references: $1) ? 1 : 0
                    })
            }
    }
    if let prompts {
        values[DetailRecall.key] = try DetailRecall.value(
            prompts: prompts, predictions: predictions, references: references, bootstrap: bootstrap)
    }
    return values
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
