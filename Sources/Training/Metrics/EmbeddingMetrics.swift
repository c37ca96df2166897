import PEFTSupport
import Torch

/// The metrics of embeddings; raw values are their keys in reports.
package enum EmbeddingMetric: String, CaseIterable, Sendable, Codable {
    /// Correlation of the cosine similarities of pairs with the target similarities, in −1 … 1.
    case cosineSpearman, cosinePearson
    /// Recall@1: fraction of texts whose paired text is the nearest of all candidates, in 0 … 1.
    case recall1
    /// Mean reciprocal rank of a text's paired text among all candidates, in 0 … 1.
    case mrr

    static let descriptions = [
        MetricDescription(
            key: EmbeddingMetric.cosineSpearman.rawValue, name: "Spearman of cosines", range: -1...1,
            explanation: Correlation.spearmanExplanation),
        MetricDescription(
            key: EmbeddingMetric.cosinePearson.rawValue, name: "Pearson of cosines", range: -1...1,
            explanation: Correlation.pearsonExplanation),
        MetricDescription(
            key: EmbeddingMetric.recall1.rawValue, name: "Recall@1",
            explanation: "Texts whose paired text is the nearest of all candidates, in percent."),
        MetricDescription(
            key: EmbeddingMetric.mrr.rawValue, name: "MRR",
            explanation: "Mean reciprocal rank of a text's paired text among all candidates, times 100."),
    ]
}

/// Evaluates the cosine similarities of pairs of texts against target similarities.
/// - Throws: ``PEFTError`` for lists of different length or an empty list.
package func evaluateSimilarity(
    _ cosines: [Double], references: [Double], bootstrap: Bootstrap = .standard
) throws -> [String: MetricValue] {
    let all = try evaluateRegression(predictions: cosines, references: references, bootstrap: bootstrap)
    return [
        EmbeddingMetric.cosineSpearman.rawValue: all[RegressionMetric.spearman.rawValue],
        EmbeddingMetric.cosinePearson.rawValue: all[RegressionMetric.pearson.rawValue],
    ].compactMapValues { $0 }
}

/// Evaluates the retrieval of each query's document, by cosine similarity, among the documents of all queries.
///
/// - Parameters:
///   - queries: vectors of equal size; `documents`: one for each query.
///   - names: identifies the documents: documents of equal names are the same document.
/// - Throws: ``PEFTError`` for lists of different length or an empty list.
package func evaluateRetrieval(
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
        // In batches of queries: the whole matrix may be large.
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
