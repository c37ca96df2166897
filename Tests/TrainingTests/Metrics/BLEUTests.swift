import PEFTSupport
import Testing

@testable import Training

@Suite struct BLEUTests {
    @Test func agreesWithSacrebleuPerRow() throws {
        for row in try Fixture.read(GoldenPairs.self, from: "pairs").rows {
            let statistics = try #require(
                BLEU.statistics(predictions: [row.prediction], references: [row.references]).first)
            let values =
                [statistics.predictedLength, statistics.referenceLength]
                + (0..<4).map { statistics.matches[$0] } + (0..<4).map { statistics.totals[$0] }
            #expect(values == row.statistics, "\(row.prediction.debugDescription)")
            #expect(agrees(statistics.score, row.bleu), "\(row.prediction.debugDescription)")
        }
    }

    @Test func agreesWithSacrebleuOnCorpora() throws {
        let golden = try Fixture.read(GoldenPairs.self, from: "pairs")
        for corpus in golden.corpora {
            let rows = golden.rows[corpus.rows[0]..<corpus.rows[1]]
            let score = try BLEU.score(predictions: rows.map(\.prediction), references: rows.map(\.references))
            #expect(agrees(score, corpus.bleu), "rows \(corpus.rows)")
        }
    }

    @Test(.enabled(if: GoldenDialogSum.file != nil, "needs shared/data/dialogsum beside the package"))
    func agreesOnDialogSum() throws {
        let golden = try Fixture.read(GoldenDialogSum.self, from: "dialogsum")
        let summaries = try GoldenDialogSum.summaries()
        let predictions = summaries.map { $0[0] }
        let single = try BLEU.score(predictions: predictions, references: summaries.map { [$0[1]] })
        let multiple = try BLEU.score(predictions: predictions, references: summaries.map { Array($0[1...]) })
        #expect(agrees(single, golden.bleuSingle))
        #expect(agrees(multiple, golden.bleuMultiple))
    }

    @Test(arguments: [
        ("He paid $5,000.50, or so.", ["He", "paid", "$", "5,000.50", ",", "or", "so", "."]),
        ("10-20 don't U.S.", ["10", "-", "20", "don't", "U", ".", "S", "."]),
        ("&amp;lt; <skipped>well-\nknown", ["<", "wellknown"]),
        (" \t\n", []),
    ])
    func tokens(text: String, expected: [String]) {
        let tokens = BLEUTokenizer.tokens(of: text).map { String(String.UnicodeScalarView($0)) }
        #expect(tokens == expected)
    }

    @Test func malformedListsAreErrors() {
        #expect(throws: PEFTError.self) { try BLEU.score(predictions: [], references: []) }
        #expect(throws: PEFTError.self) { try BLEU.score(predictions: ["a"], references: []) }
        #expect(throws: PEFTError.self) { try BLEU.score(predictions: ["a"], references: [[]]) }
    }
}
