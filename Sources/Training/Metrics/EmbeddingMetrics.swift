import Support
import Torch

/// The metrics of vectors; raw values are their keys in reports.
public enum EmbeddingMetric: String, CaseIterable, Sendable, Codable {
    /// Correlation of the cosines of pairs with the numbers that they should have.
    case cosineSpearman, cosinePearson
    /// Share of texts whose own pair is nearest among all pairs of the rows.
    case recall1
    /// Mean of 1 / rank of a text's own pair among all pairs of the rows.
    case mrr
}

/// Scores the cosines of pairs of texts against the similarity that they should have.
/// - Throws: ``PEFTError`` for lists of different length or an empty list.
public func evaluateSimilarity(
    _ cosines: [Double], references: [Double], bootstrap: Bootstrap = .standard
) throws -> [String: MetricValue] {
    let all = try evaluateRegression(predictions: cosines, references: references, bootstrap: bootstrap)
    return [
        EmbeddingMetric.cosineSpearman.rawValue: all[RegressionMetric.spearman.rawValue],
        EmbeddingMetric.cosinePearson.rawValue: all[RegressionMetric.pearson.rawValue],
    ].compactMapValues { $0 }
}

/// Scores how well each query finds its document, by cosine, among the documents of all queries.
///
/// - Parameters:
///   - queries: vectors of one size; `documents`: one for each query.
///   - names: what each document is: documents of one name are one document.
/// - Throws: ``PEFTError`` for lists of different length or an empty list.
public func evaluateRetrieval(
    queries: [[Float]], documents: [[Float]], names: [String], bootstrap: Bootstrap = .standard
) throws -> [String: MetricValue] {
    try checkPairs(predictions: names, references: documents.map { _ in [""] })
    try checkPairs(predictions: names, references: queries.map { _ in [""] })
    var numbers: [String: Int] = [:]
    var unique: [[Float]] = []
    for (name, document) in zip(names, documents) where numbers[name] == nil {
        numbers[name] = unique.count
        unique.append(document)
    }
    let size = queries[0].count
    var ranks: [Double] = []
    try withTorchErrors {
        func unit(_ vectors: [[Float]]) -> Tensor {
            let matrix = Tensor(vectors.flatMap { $0 }, shape: [vectors.count, size])
            return matrix / matrix.squared().sum(axes: [-1], keep: true).sqrt().atLeast(1e-12)
        }
        let all = unit(unique).T
        // Some hundred queries at a time: the whole matrix may be large.
        for start in stride(from: 0, to: queries.count, by: 256) {
            let part = start..<min(start + 256, queries.count)
            let scores: [Float] = unit(Array(queries[part])).matmul(all).array()
            try checkTorchErrors()
            for query in part {
                let row = scores[((query - start) * unique.count)..<((query - start + 1) * unique.count)]
                let own = row[row.startIndex + (numbers[names[query]] ?? 0)]
                ranks.append(Double(row.count { $0 > own } + 1))
            }
        }
    }
    return [
        EmbeddingMetric.recall1.rawValue: try bootstrap.mean(of: ranks.map { $0 == 1 ? 1 : 0 }),
        EmbeddingMetric.mrr.rawValue: try bootstrap.mean(of: ranks.map { 1 / $0 }),
    ]
}
