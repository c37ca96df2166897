import PEFTSupport
import Testing

@testable import Training

@Suite struct DetailRecallTests {
    private func scores(_ rows: [(prompt: String, prediction: String, reference: String)]) throws -> [Double?] {
        try DetailRecall.scores(
            prompts: rows.map(\.prompt), predictions: rows.map(\.prediction), references: rows.map { [$0.reference] })
    }

    @Test func countsWhatTheReferenceTakesFromThePrompt() throws {
        let prompt = "Tom: Let's visit Julia at the museum on Friday. It costs 12 dollars."
        let reference = "Tom and a friend will visit Julia at the museum on Friday."
        // Details: tom, visit, julia, museum, friday. "friend" isn't in the prompt, the rest is grammar.
        let rows = [
            (prompt, reference, reference), (prompt, "Tom visits the museum.", reference),
            (prompt, "A friend will go there at noon.", reference), (prompt, "", reference),
            (prompt, prompt, reference),
        ]
        #expect(try scores(rows) == [1, 0.6, 0, 0, 1])
    }

    @Test func rowsWithoutDetailsHaveNoScore() throws {
        let rows = [
            ("Hello.", "They talk.", "Two people greet."), ("This is it.", "It is.", "This is it with her."),
        ]
        #expect(try scores(rows) == [nil, nil])
        let value = try DetailRecall.value(
            prompts: rows.map(\.0), predictions: rows.map(\.1), references: rows.map { [$0.2] })
        #expect(value == nil)
    }

    @Test func wordsThatMostReferencesShareDoNotCount() throws {
        let rows = (0..<10).map { ("person1: a red boat\(10 + $0)", "person1", "person1 buys boat\(10 + $0)") }
        // The label is in every reference; alone, or in few rows, it would be a detail.
        #expect(try scores(rows) == [Double?](repeating: 0, count: 10))
        #expect(try scores(Array(rows.prefix(1))) == [0.5])
    }

    @Test func bestReferenceCounts() throws {
        let scores = try DetailRecall.scores(
            prompts: ["Mary sells a boat and a lamp"], predictions: ["a lamp"],
            references: [["Mary sells a boat", "a lamp", "nothing of it"]])
        #expect(scores == [1])
    }

    @Test func isPartOfTheMetricsGivenPrompts() throws {
        let (prompts, texts) = (["Ann has a kite", "Bob has a drum"], ["Ann: kite", "Bob: violin"])
        let references = [["Ann has a kite"], ["Bob has a drum"]]
        let metrics = try evaluateGeneration(predictions: texts, references: references, prompts: prompts)
        let value = try #require(metrics[DetailRecall.key])
        #expect(value.value == 0.75 && value.low >= 0.5 && value.high <= 1)
        #expect(try evaluateGeneration(predictions: texts, references: references)[DetailRecall.key] == nil)
        #expect(throws: PEFTError.self) {
            try evaluateGeneration(predictions: texts, references: references, prompts: ["one"])
        }
    }
}
