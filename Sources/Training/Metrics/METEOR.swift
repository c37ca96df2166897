import Foundation
import PEFTSupport

/// METEOR without synonyms: exact and stem matches, weighted toward recall, with a fragmentation penalty; in 0 … 1.
///
/// S. Banerjee & A. Lavie, *METEOR: An Automatic Metric for MT Evaluation with Improved Correlation with Human Judgments*,
/// 2005, with the recall-weighted mean of § 2 (9 parts recall, 1 part precision) and the penalty ½ (chunks / matches)³. The
/// published program also matches WordNet synonyms, so its scores are slightly higher. Equal to
/// NLTK's `meteor_score` with an empty WordNet. Words are the lowercased `13a` tokens.
package enum METEOR {
    static let description = MetricDescription(
        key: "meteor", name: "METEOR",
        explanation:
            "Matched words, exact or stemmed, weighted toward recall, with a penalty for fragmented matches, in percent."
    ) { texts, bootstrap in
        try bootstrap.mean(of: scores(predictions: texts.predictions, references: texts.references))
    }

    /// The score of each example, in 0 … 1, against its best reference.
    /// - Throws: ``PEFTError`` for lists of different length, an empty list or an example without references.
    package static func scores(predictions: [String], references: [[String]]) throws -> [Double] {
        try checkPairs(predictions: predictions, references: references)
        var tokenizer = WordTokenizer()
        var stems = Stems()
        return zip(predictions, references).map { prediction, references in
            let predicted = tokenizer.tokens(of: prediction)
            return references.map { reference in
                let tokens = tokenizer.tokens(of: reference)
                let matches = align(predicted, tokens) { stems.stem(of: $0, tokenizer.words) }
                return score(matches, predicted: predicted.count, referenced: tokens.count)
            }.max() ?? 0
        }
    }

    /// Stem ids by word ids.
    private struct Stems {
        private var table = TokenTable()
        private var known: [Int32: Int32] = [:]

        mutating func stem(of word: Int32, _ words: [String]) -> Int32 {
            if let stem = known[word] { return stem }
            let stem = table.id(of: PorterStemmer.stem(Array(words[Int(word)].utf8)))
            known[word] = stem
            return stem
        }
    }

    /// Pairs of positions, by the prediction's: equal words first, then equal stems, each taken from the end.
    private static func align(_ predicted: [Int32], _ referenced: [Int32], stem: (Int32) -> Int32)
        -> [(predicted: Int, referenced: Int)]
    {
        var matches: [(predicted: Int, referenced: Int)] = []
        var (left, right) = (Array(predicted.indices), Array(referenced.indices))
        func take(_ key: (Int32) -> Int32) {
            var places: [Int32: [Int]] = [:]
            for place in right { places[key(referenced[place]), default: []].append(place) }
            var rest: [Int] = []
            for place in left.reversed() {
                guard let other = places[key(predicted[place])]?.popLast() else { rest.append(place); continue }
                matches.append((place, other))
            }
            let used = Set(matches.map(\.referenced))
            (left, right) = (rest.reversed(), right.filter { !used.contains($0) })
        }
        take { $0 }
        take(stem)
        return matches.sorted { $0.predicted < $1.predicted }
    }

    private static func score(_ matches: [(predicted: Int, referenced: Int)], predicted: Int, referenced: Int)
        -> Double
    {
        guard !matches.isEmpty else { return 0 }
        let count = Double(matches.count)
        let (precision, recall) = (count / Double(predicted), count / Double(referenced))
        let mean = precision * recall / (0.9 * precision + 0.1 * recall)
        let breaks = zip(matches, matches.dropFirst()).filter {
            $1.predicted != $0.predicted + 1 || $1.referenced != $0.referenced + 1
        }
        let fragmentation = Double(breaks.count + 1) / count
        return mean * (1 - 0.5 * pow(fragmentation, 3))
    }
}
