/// ROUGE: overlap of prediction and reference in unigrams, bigrams and longest common subsequences, in 0 … 1.
///
/// C.-Y. Lin, *ROUGE: A Package for Automatic Evaluation of Summaries*, 2004. Scores equal those of the
/// Python package `rouge_score` 0.1.2 (`use_stemmer=True` by default here): tokens are the runs of `a-z0-9`
/// of the lowercased text, and those of more than three letters are stemmed.
package struct ROUGE: Sendable {
    /// Raw values are the variants' keys in reports.
    package enum Variant: String, CaseIterable, Sendable, Codable {
        /// Overlap of unigrams.
        case rouge1
        /// Overlap of bigrams.
        case rouge2
        /// Longest common subsequence of the whole texts.
        case rougeL
        /// Summary-level: longest common subsequences of sentences, one per line.
        case rougeLsum
    }

    static let rouge1 = description(
        .rouge1, name: "ROUGE-1",
        explanation:
            "F1 overlap of unigrams (single words) between output and target, in percent. Higher is better.")
    static let rouge2 = description(
        .rouge2, name: "ROUGE-2",
        explanation: "F1 overlap of bigrams (pairs of adjacent words), in percent: stricter than ROUGE-1.")
    static let rougeL = description(
        .rougeL, name: "ROUGE-L",
        explanation: "F1 of the longest common subsequence of words, in percent: rewards the right order.")
    static let rougeLsum = description(
        .rougeLsum, name: "ROUGE-Lsum", prominence: .never,
        explanation: "ROUGE-L computed line by line, in percent.")

    /// The mean F-measure over examples, each against its best reference.
    private static func description(
        _ variant: Variant, name: String, prominence: MetricDescription.Prominence = .ordinary, explanation: String
    ) -> MetricDescription {
        MetricDescription(
            key: variant.rawValue, name: name, prominence: prominence, explanation: explanation
        ) { texts, bootstrap in
            try bootstrap.mean(of: texts.rouge.map { $0[variant]?.fmeasure ?? 0 })
        }
    }

    /// Precision, recall and F-measure, each in 0 … 1.
    package struct Score: Sendable, Hashable, Codable {
        /// Matches per unit of the prediction.
        package var precision: Double
        /// Matches per unit of the reference.
        package var recall: Double
        /// Harmonic mean of the two, 0 where both are 0.
        package var fmeasure: Double

        init(matches: Int, predicted: Int, referenced: Int) {
            precision = predicted > 0 ? Double(matches) / Double(predicted) : 0
            recall = referenced > 0 ? Double(matches) / Double(referenced) : 0
            fmeasure = matches > 0 ? 2 * precision * recall / (precision + recall) : 0
        }
    }

    package let stemming: Bool

    package init(stemming: Bool = true) { self.stemming = stemming }

    /// Scores one prediction against one reference. A text without a token scores 0.
    package func score(prediction: String, reference: String) -> [Variant: Score] {
        score(prediction: prediction, references: [reference])
    }

    /// Scores one prediction against the reference with the best F-measure, separately for each variant.
    /// Without references every score is 0.
    package func score(prediction: String, references: [String]) -> [Variant: Score] {
        var tokenizer = ROUGETokenizer(stemming: stemming)
        return score(prediction: prediction, references: references, tokenizer: &tokenizer)
    }

    /// The tokenizer caches stems, which makes scoring many texts faster.
    func score(
        prediction: String, references: [String], tokenizer: inout ROUGETokenizer
    ) -> [Variant: Score] {
        var best: [Variant: Score] = [:]
        let predicted = Text(prediction, &tokenizer)
        for reference in references {
            let referenced = Text(reference, &tokenizer)
            for variant in Variant.allCases {
                let score = score(variant, predicted, referenced)
                if let known = best[variant], known.fmeasure >= score.fmeasure { continue }
                best[variant] = score
            }
        }
        for variant in Variant.allCases where best[variant] == nil {
            best[variant] = Score(matches: 0, predicted: 0, referenced: 0)
        }
        return best
    }

    /// A text's tokens, as one sequence and line by line.
    private struct Text {
        let tokens: [Int32]
        let sentences: [[Int32]]

        init(_ text: String, _ tokenizer: inout ROUGETokenizer) {
            sentences = text.utf8.split(separator: UInt8(ascii: "\n")).map { line in
                tokenizer.tokens(of: Substring(line).unicodeScalars)
            }
            tokens = sentences.flatMap(\.self)
        }
    }

    private func score(_ variant: Variant, _ predicted: Text, _ referenced: Text) -> Score {
        switch variant {
        case .rouge1: ngramScore(predicted.tokens.map(Int64.init), referenced.tokens.map(Int64.init))
        case .rouge2: ngramScore(pairs(predicted.tokens), pairs(referenced.tokens))
        case .rougeL:
            Score(
                matches: LongestCommonSubsequence.length(predicted.tokens, referenced.tokens),
                predicted: predicted.tokens.count, referenced: referenced.tokens.count)
        case .rougeLsum: summaryScore(predicted, referenced)
        }
    }

    /// Bigrams, two token ids packed into one integer.
    private func pairs(_ tokens: [Int32]) -> [Int64] {
        zip(tokens, tokens.dropFirst()).map { Int64($0) << 32 | Int64($1) }
    }

    /// ROUGE-N, section 2 of the paper: matches are clipped to the count on either side.
    private func ngramScore(_ predicted: [Int64], _ referenced: [Int64]) -> Score {
        var remaining = counts(referenced)
        var matches = 0
        for ngram in predicted {
            guard let count = remaining[ngram], count > 0 else { continue }
            remaining[ngram] = count - 1
            matches += 1
        }
        return Score(matches: matches, predicted: predicted.count, referenced: referenced.count)
    }

    /// Summary-level ROUGE-L, section 3.2 of the paper: the union of a reference sentence's common
    /// subsequences with all predicted sentences, no token counted more often than it occurs.
    private func summaryScore(_ predicted: Text, _ referenced: Text) -> Score {
        if predicted.sentences.count == 1, referenced.sentences.count == 1 {
            return score(.rougeL, predicted, referenced)
        }
        var unmatched = counts(predicted.tokens)
        var matches = 0
        for sentence in referenced.sentences {
            var isCommon = [Bool](repeating: false, count: sentence.count)
            for candidate in predicted.sentences {
                LongestCommonSubsequence.mark(&isCommon, of: sentence, with: candidate)
            }
            for (token, common) in zip(sentence, isCommon) where common {
                guard let left = unmatched[token], left > 0 else { continue }
                unmatched[token] = left - 1
                matches += 1
            }
        }
        return Score(matches: matches, predicted: predicted.tokens.count, referenced: referenced.tokens.count)
    }

    private func counts<Element: Hashable>(_ elements: [Element]) -> [Element: Int] {
        var counts: [Element: Int] = [:]
        for element in elements { counts[element, default: 0] += 1 }
        return counts
    }
}

/// Splits text into the runs of `a-z0-9` of its lowercased form, stems them and assigns ids.
struct ROUGETokenizer {
    private let stemming: Bool
    private var table = TokenTable()
    private var known: [[UInt8]: Int32] = [:]

    init(stemming: Bool) { self.stemming = stemming }

    mutating func tokens(of text: some Sequence<Unicode.Scalar>) -> [Int32] {
        var tokens: [Int32] = []
        var word: [UInt8] = []
        func isTokenByte(_ scalar: Unicode.Scalar) -> Bool {
            ("a"..."z").contains(scalar) || ("0"..."9").contains(scalar)
        }
        func take(_ scalar: Unicode.Scalar) {
            if isTokenByte(scalar) {
                word.append(UInt8(truncatingIfNeeded: scalar.value))
            } else if !word.isEmpty {
                tokens.append(id(of: word))
                word.removeAll(keepingCapacity: true)
            }
        }
        for scalar in text {
            if ("A"..."Z").contains(scalar) {
                word.append(UInt8(truncatingIfNeeded: scalar.value) | 0x20)
            } else if scalar.isASCII {
                take(scalar)
            } else {
                // The Kelvin sign and the dotted I lowercase to ASCII letters.
                scalar.properties.lowercaseMapping.unicodeScalars.forEach(take)
            }
        }
        if !word.isEmpty { tokens.append(id(of: word)) }
        return tokens
    }

    private mutating func id(of word: [UInt8]) -> Int32 {
        if let id = known[word] { return id }
        let id = table.id(of: stemming && word.count > 3 ? PorterStemmer.stem(word) : word)
        known[word] = id
        return id
    }
}
