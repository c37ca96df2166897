import Foundation
import PEFTSupport

/// Corpus BLEU: n-gram precision up to order 4 over a whole test set, with a brevity penalty.
///
/// K. Papineni et al., *BLEU: a Method for Automatic Evaluation of Machine Translation*, 2002, as M. Post,
/// *A Call for Clarity in Reporting BLEU Scores*, 2018, fixed its details: scores equal those of sacrebleu's
/// default (13a tokenization, cased, exponential smoothing), divided by 100.
package enum BLEU {
    /// BLEU of a corpus, in 0 … 1.
    /// - Parameter references: one or more for each prediction.
    /// - Throws: ``PEFTError`` for lists of different length, an empty list or an example without references.
    package static func score(predictions: [String], references: [[String]]) throws -> Double {
        try checkPairs(predictions: predictions, references: references)
        return statistics(predictions: predictions, references: references)
            .reduce(into: Statistics()) { $0.add($1) }.score
    }

    static let description = MetricDescription(
        key: "bleu", name: "BLEU",
        explanation: "Precision of n-grams of one to four words with a brevity penalty, in percent."
    ) { texts, bootstrap in
        let statistics = statistics(predictions: texts.predictions, references: texts.references)
        return try bootstrap.value(rows: statistics.count) { rows in
            rows.reduce(into: Statistics()) { $0.add(statistics[$1]) }.score
        }
    }

    static let maximumOrder = 4

    /// Sufficient statistics of one example: the score is a function of their sums.
    struct Statistics: Equatable {
        /// Tokens of the prediction, and of the reference closest to it in length.
        var predictedLength = 0
        var referenceLength = 0
        /// Matched n-grams of the prediction (clipped counts), and all of its n-grams, for n = 1 … 4.
        var matches = SIMD4<Int>()
        var totals = SIMD4<Int>()

        mutating func add(_ other: Statistics) {
            predictedLength += other.predictedLength
            referenceLength += other.referenceLength
            matches &+= other.matches
            totals &+= other.totals
        }

        /// BP · exp(¼ Σ log pₙ), with BP = exp(1 − r/c) where the prediction is shorter (c < r). A precision
        /// of 0 is smoothed to ½, ¼, … of one match (NIST's method).
        var score: Double {
            guard matches != SIMD4(), predictedLength > 0 else { return 0 }
            var logSum = 0.0
            var smoothing = 1.0
            for n in 0..<maximumOrder {
                // Without any n-gram of this order, the precision is 0 and not smoothed.
                guard totals[n] > 0 else { return 0 }
                var matched = Double(matches[n])
                if matches[n] == 0 {
                    smoothing *= 2
                    matched = 1 / smoothing
                }
                logSum += log(matched / Double(totals[n]))
            }
            let ratio = Double(referenceLength) / Double(predictedLength)
            return exp(min(0, 1 - ratio) + logSum / Double(maximumOrder))
        }
    }

    static func statistics(predictions: [String], references: [[String]]) -> [Statistics] {
        var table = TokenTable()
        func tokens(_ text: String) -> [Int32] {
            BLEUTokenizer.tokens(of: text).map { token in
                table.id(of: Array(String(String.UnicodeScalarView(token)).utf8))
            }
        }
        return zip(predictions, references).map { statistics(tokens($0), references: $1.map(tokens)) }
    }

    private static func statistics(_ predicted: [Int32], references: [[Int32]]) -> Statistics {
        var allowed: [NGram: Int] = [:]
        for reference in references {
            allowed.merge(ngrams(reference)) { max($0, $1) }
        }
        var statistics = Statistics()
        statistics.predictedLength = predicted.count
        // The closest length; the shorter of two equally close ones.
        statistics.referenceLength =
            references.map(\.count).min {
                (abs($0 - predicted.count), $0) < (abs($1 - predicted.count), $1)
            } ?? 0
        for (ngram, count) in ngrams(predicted) {
            let order = ngram.order - 1
            statistics.totals[order] += count
            statistics.matches[order] += min(count, allowed[ngram] ?? 0)
        }
        return statistics
    }

    /// Up to four token ids; the rest is −1.
    private struct NGram: Hashable {
        let tokens: SIMD4<Int32>
        let order: Int
    }

    private static func ngrams(_ tokens: [Int32]) -> [NGram: Int] {
        var counts: [NGram: Int] = [:]
        counts.reserveCapacity(tokens.count * maximumOrder)
        for start in tokens.indices {
            var ids = SIMD4<Int32>(repeating: -1)
            for (n, token) in tokens[start...].prefix(maximumOrder).enumerated() {
                ids[n] = token
                counts[NGram(tokens: ids, order: n + 1), default: 0] += 1
            }
        }
        return counts
    }
}
