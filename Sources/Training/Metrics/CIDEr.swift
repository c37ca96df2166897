import Foundation
import PEFTSupport

/// CIDEr-D: TF-IDF-weighted n-gram similarity of a text to its references, in 0 … 10.
///
/// R. Vedantam et al., *CIDEr: Consensus-based Image Description Evaluation*, 2015, §§ 3 and 7: cosine similarities of
/// n-gram vectors (n = 1 … 4) with TF-IDF weights, clipped counts and a Gaussian length penalty, as in the
/// authors' program (lengths in bigrams), times 10. Words are the lowercased `13a` tokens that
/// contain a letter or a digit; the authors' program uses another tokenizer, so its scores differ slightly.
package enum CIDEr {
    static let description = MetricDescription(
        key: "cider", name: "CIDEr", range: 0...10, unit: "", places: 2,
        explanation: "Cosine similarity to the references over TF-IDF-weighted n-grams, 0 … 10."
    ) { texts, bootstrap in
        try bootstrap.mean(of: scores(predictions: texts.predictions, references: texts.references))
    }

    static let longest = 4
    /// Standard deviation σ of the length penalty, in words.
    static let deviation = 6.0

    /// The score of each example, in 0 … 10.
    /// - Parameter references: one or more for each prediction; document frequencies are counted over all of them.
    /// - Throws: ``PEFTError`` for lists of different length, an empty list or an example without references.
    package static func scores(predictions: [String], references: [[String]]) throws -> [Double] {
        try checkPairs(predictions: predictions, references: references)
        var tokenizer = WordTokenizer()
        func counts(_ text: String) -> [WordNGram: Int] {
            let tokens = tokenizer.tokens(of: text)
            return WordNGram.counts(tokens.filter { isWord(tokenizer.words[Int($0)]) }, longest: longest)
        }
        let referenced = references.map { $0.map { counts($0) } }
        var rowsWith: [WordNGram: Int] = [:]
        for row in referenced { for ngram in Set(row.flatMap(\.keys)) { rowsWith[ngram, default: 0] += 1 } }
        let logRows = log(Double(references.count))

        func vector(_ counts: [WordNGram: Int]) -> Vector {
            var vector = Vector()
            for (ngram, count) in counts {
                let weight = Double(count) * (logRows - log(Double(max(1, rowsWith[ngram] ?? 0))))
                vector.weights[ngram] = weight
                vector.squares[ngram.order - 1] += weight * weight
                if ngram.order == 2 { vector.pairs += count }
            }
            return vector
        }
        return predictions.indices.map { row in
            let predicted = vector(counts(predictions[row]))
            let similarities = referenced[row].map { predicted.similarity(to: vector($0)) }
            return 10 * similarities.reduce(0, +) / Double(max(1, similarities.count))
        }
    }

    private static func isWord(_ token: String) -> Bool {
        token.unicodeScalars.contains { $0.properties.isAlphabetic || $0.properties.numericType != nil }
    }

    private struct Vector {
        var weights: [WordNGram: Double] = [:]
        /// ‖g‖² for n = 1 … 4.
        var squares = [Double](repeating: 0, count: longest)
        var pairs = 0

        /// Mean over n of min(g, h) · h / (‖g‖ ‖h‖), times the penalty.
        func similarity(to reference: Vector) -> Double {
            var products = [Double](repeating: 0, count: longest)
            for (ngram, weight) in weights {
                guard let other = reference.weights[ngram] else { continue }
                products[ngram.order - 1] += min(weight, other) * other
            }
            let cosines = products.indices.map { n -> Double in
                let norms = (squares[n] * reference.squares[n]).squareRoot()
                return norms > 0 ? products[n] / norms : products[n]
            }
            let difference = Double(pairs - reference.pairs)
            let penalty = exp(-difference * difference / (2 * deviation * deviation))
            return cosines.reduce(0, +) / Double(longest) * penalty
        }
    }
}
