import PEFTSupport
import Testing

@testable import Training

private struct GoldenDataToText: Decodable {
    var meteor: [Double]
    var cider: [Double]
    var nist: Double
    var singleRows: [Int]
    var nistSingle: Double
}

@Suite struct DataToTextMetricTests {
    private let rows: [GoldenPairs.Row]
    private let golden: GoldenDataToText

    init() throws {
        rows = try Fixture.read(GoldenPairs.self, from: "pairs").rows
        golden = try Fixture.read(GoldenDataToText.self, from: "data-to-text")
    }

    @Test func meteorAgreesWithNLTK() throws {
        let scores = try METEOR.scores(predictions: rows.map(\.prediction), references: rows.map(\.references))
        for (row, pair) in zip(rows, zip(scores, golden.meteor)) {
            #expect(agrees(pair.0, pair.1), "\(row.prediction.debugDescription)")
        }
    }

    @Test func ciderAgreesWithTheAuthorsProgram() throws {
        let scores = try CIDEr.scores(predictions: rows.map(\.prediction), references: rows.map(\.references))
        for (row, pair) in zip(rows, zip(scores, golden.cider)) {
            #expect(agrees(pair.0, pair.1), "\(row.prediction.debugDescription)")
        }
    }

    @Test func nistAgreesWithNLTKAndWithTheFormula() throws {
        let single = golden.singleRows.map { rows[$0] }
        #expect(
            agrees(
                try NIST.score(predictions: single.map(\.prediction), references: single.map(\.references)),
                golden.nistSingle))
        #expect(
            agrees(
                try NIST.score(predictions: rows.map(\.prediction), references: rows.map(\.references)), golden.nist))
    }

    @Test func emptyTextsScoreNothing() throws {
        #expect(try NIST.score(predictions: ["", ""], references: [["a b"], ["c"]]) == 0)
        #expect(try METEOR.scores(predictions: [""], references: [["a"]]) == [0])
        #expect(try CIDEr.scores(predictions: ["", "x"], references: [["a"], [""]]) == [0, 0])
        #expect(throws: PEFTError.self) { try NIST.score(predictions: ["a"], references: [[]]) }
    }
}
