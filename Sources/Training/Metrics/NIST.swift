import Foundation
import PEFTSupport

/// NIST: like BLEU, but each matched n-gram is weighted by its information, in bits. The score is at least 0 and has no
/// upper bound.
///
/// G. Doddington, *Automatic Evaluation of Machine Translation Quality Using N-gram Co-Occurrence Statistics*, 2002,
/// eqs. 2 and 3, with n-grams up to five words and the mean length of an example's references, as in NIST's mteval. Words
/// are the lowercased `13a` tokens.
package enum NIST {
    static let description = MetricDescription(
        key: "nist", name: "NIST", range: 0 ... .infinity, unit: "bits", places: 2,
        explanation:
            "Like BLEU, but n-grams are weighted by their information, so rare ones count more, in bits; unbounded."
    ) { texts, bootstrap in
        let statistics = statistics(predictions: texts.predictions, references: texts.references)
        return try bootstrap.value(rows: statistics.count) { rows in
            rows.reduce(into: Statistics()) { $0.add(statistics[$1]) }.score
        }
    }

    static let longest = 5

    /// The corpus score in bits, at least 0 and unbounded.
    /// - Parameter references: one or more for each prediction.
    /// - Throws: ``PEFTError`` for lists of different length, an empty list or an example without references.
    package static func score(predictions: [String], references: [[String]]) throws -> Double {
        try checkPairs(predictions: predictions, references: references)
        return statistics(predictions: predictions, references: references)
            .reduce(into: Statistics()) { $0.add($1) }.score
    }

    /// Sufficient statistics of one example: the score is a function of their sums.
    struct Statistics {
        /// Information of the matched n-grams in bits, and the number of all n-grams, for n = 1 … 5.
        var information = [Double](repeating: 0, count: longest)
        var totals = [Int](repeating: 0, count: longest)
        var predictedLength = 0
        /// Mean over the references.
        var referenceLength = 0.0

        mutating func add(_ other: Statistics) {
            for order in 0..<longest {
                information[order] += other.information[order]
                totals[order] += other.totals[order]
            }
            predictedLength += other.predictedLength
            referenceLength += other.referenceLength
        }

        /// Σₙ (information / n-grams) · exp(β log² min(1, c / r)), with β such that the factor is ½ at two thirds of the
        /// references' length.
        var score: Double {
            guard predictedLength > 0, referenceLength > 0 else { return 0 }
            let sum = zip(information, totals).reduce(0) { $1.1 > 0 ? $0 + $1.0 / Double($1.1) : $0 }
            let beta = log(0.5) / pow(log(1.5), 2)
            let ratio = min(1, Double(predictedLength) / referenceLength)
            return sum * exp(beta * pow(log(ratio), 2))
        }
    }

    static func statistics(predictions: [String], references: [[String]]) -> [Statistics] {
        var tokenizer = WordTokenizer()
        let referenced = references.map { $0.map { tokenizer.tokens(of: $0) } }
        let counted = referenced.map { $0.map { WordNGram.counts($0, longest: longest) } }
        var occurrences: [WordNGram: Int] = [:]
        for counts in counted.joined() { occurrences.merge(counts, uniquingKeysWith: +) }
        let words = referenced.joined().reduce(0) { $0 + $1.count }
        // Info(w₁ … wₙ) = log₂ (occurrences of w₁ … wₙ₋₁ / occurrences of w₁ … wₙ)
        func information(_ ngram: WordNGram) -> Double {
            guard let own = occurrences[ngram], own > 0 else { return 0 }
            let context = ngram.order == 1 ? words : occurrences[ngram.beginning] ?? words
            return log2(Double(context) / Double(own))
        }
        return predictions.indices.map { row in
            let tokens = tokenizer.tokens(of: predictions[row])
            var statistics = Statistics()
            statistics.predictedLength = tokens.count
            statistics.referenceLength =
                Double(referenced[row].reduce(0) { $0 + $1.count }) / Double(max(1, referenced[row].count))
            for (ngram, count) in WordNGram.counts(tokens, longest: longest) {
                statistics.totals[ngram.order - 1] += count
                let matched = min(count, counted[row].map { $0[ngram] ?? 0 }.max() ?? 0)
                if matched > 0 { statistics.information[ngram.order - 1] += Double(matched) * information(ngram) }
            }
            return statistics
        }
    }
}
