import Foundation
import PEFTSupport
import Testing

@testable import Training

struct GoldenPairs: Decodable {
    var rows: [Row]
    var corpora: [Corpus]

    struct Row: Decodable {
        var prediction: String
        var references: [String]
        /// Precision, recall, F-measure by variant.
        var stemmed: [String: [Double]]
        var plain: [String: [Double]]
        var bleu: Double
        /// Prediction's length, reference's length, matches and totals for n = 1 … 4.
        var statistics: [Int]
    }

    struct Corpus: Decodable {
        /// Begin and end in `rows`.
        var rows: [Int]
        var bleu: Double
    }
}

struct GoldenDialogSum: Decodable {
    var rows: [Row]
    var bleuSingle: Double
    var bleuMultiple: Double

    struct Row: Decodable {
        var line: Int
        var single: [String: [Double]]
        var multiple: [String: [Double]]
    }

    static let file = Fixture.shared("dialogsum/dialogsum.test.jsonl")

    /// The three summaries of each row.
    static func summaries() throws -> [[String]] {
        try DataSet.read(#require(file)).map { row in
            try ["summary1", "summary2", "summary3"].map { try #require(row[$0]?.string) }
        }
    }
}

@Suite struct ROUGETests {
    private func differences(
        _ scores: [ROUGE.Variant: ROUGE.Score], _ golden: [String: [Double]]
    ) -> [String] {
        ROUGE.Variant.allCases.compactMap { variant in
            guard let score = scores[variant], let expected = golden[variant.rawValue], expected.count == 3 else {
                return "\(variant) is missing"
            }
            let values = [score.precision, score.recall, score.fmeasure]
            return zip(values, expected).allSatisfy(agrees) ? nil : "\(variant): \(values), not \(expected)"
        }
    }

    @Test(arguments: [true, false])
    func agreesWithRougeScore(stemming: Bool) throws {
        let golden = try Fixture.read(GoldenPairs.self, from: "pairs")
        #expect(golden.rows.count > 200)
        let rouge = ROUGE(stemming: stemming)
        for row in golden.rows {
            let scores = rouge.score(prediction: row.prediction, references: row.references)
            let wrong = differences(scores, stemming ? row.stemmed : row.plain)
            #expect(wrong.isEmpty, "\(row.prediction.debugDescription) \(row.references)")
        }
    }

    @Test(.enabled(if: GoldenDialogSum.file != nil, "needs shared/data/dialogsum beside the package"))
    func agreesOnDialogSum() throws {
        let golden = try Fixture.read(GoldenDialogSum.self, from: "dialogsum")
        let summaries = try GoldenDialogSum.summaries()
        #expect(golden.rows.count == summaries.count)
        let rouge = ROUGE()
        var tokenizer = ROUGETokenizer(stemming: true)
        for row in golden.rows {
            let texts = summaries[row.line - 1]
            let single = rouge.score(prediction: texts[0], reference: texts[1])
            #expect(differences(single, row.single) == [], "line \(row.line)")
            // A tokenizer that has seen other texts gives the same scores.
            let multiple = rouge.score(prediction: texts[0], references: Array(texts[1...]), tokenizer: &tokenizer)
            #expect(differences(multiple, row.multiple) == [], "line \(row.line)")
        }
    }

    @Test func identicalTextsScoreOne() {
        for (_, score) in ROUGE().score(prediction: "Two words.\nMore", reference: "two words\nmore") {
            #expect(score.fmeasure == 1)
        }
    }

    @Test func noReferenceScoresZero() {
        let scores = ROUGE().score(prediction: "text", references: [])
        #expect(scores.count == 4)
        #expect(scores.values.allSatisfy { $0.fmeasure == 0 && $0.precision == 0 && $0.recall == 0 })
    }

    /// Against every subsequence, for short sequences over few tokens.
    @Test func subsequenceLengthIsTheLongest() {
        var random = SeededRandom(seed: 5)
        for _ in 0..<200 {
            let a = (0..<random.below(9)).map { _ in Int32(random.below(3)) }
            let b = (0..<random.below(12)).map { _ in Int32(random.below(3)) }
            var longest = 0
            for mask in 0..<(1 << a.count) where mask.nonzeroBitCount > longest {
                let chosen = a.indices.filter { mask >> $0 & 1 == 1 }.map { a[$0] }
                var rest = b[...]
                let isCommon = chosen.allSatisfy { token in
                    guard let found = rest.firstIndex(of: token) else { return false }
                    rest = rest[(found + 1)...]
                    return true
                }
                if isCommon { longest = chosen.count }
            }
            #expect(LongestCommonSubsequence.length(a, b) == longest)
            #expect(LongestCommonSubsequence.length(b, a) == longest)
            var marks = [Bool](repeating: false, count: a.count)
            LongestCommonSubsequence.mark(&marks, of: a, with: b)
            #expect(marks.count { $0 } == longest)
        }
    }
}
