import Foundation
import PEFTSupport
import TestSupport
import Testing

/// Comparisons, sweeps, plans and named adapters on rows of messages.
@Suite(.serialized)
struct ChatComparisonTests {
    private static let fixture = Checkout.root.appendingPathComponent("Tests/TrainingTests/Fixtures/chat")
    private let model = fixture.appendingPathComponent("model").path
    private let rows = fixture.appendingPathComponent("rows.jsonl").path

    private func train(_ program: Program, _ name: String, _ more: [String]) throws {
        let result = try program.run(
            ["train", "--model", model, "--steps", "3", "--lr", "0.01", "--quiet", "--output", name] + more)
        #expect(result.status == 0, "\(result.error)")
    }

    @Test func compareMeasuresWhatEvaluateDoes() throws {
        let program = try Program()
        defer { program.remove() }
        let report = try json(
            program.run([
                "compare", "--model", model, "--methods", "base,lora", "--rank", "2", "--lr", "0.01", "--data", rows,
                "--test", rows, "--steps", "3", "--max-new-tokens", "3", "--chat-option", "mood=good", "--json",
                "--quiet",
            ]))
        #expect(report["data"]?["testRows"]?.int == 6)
        #expect(report["data"]?["prompt"]?.string?.contains("chat template") == true)
        let runs = try #require(report["runs"]?.array)
        let sample = runs[0]["samples"]?.array?.first
        #expect(sample?["target"]?.string == "At nine.\nDon't be late.")
        #expect(sample?["prompt"]?.string?.hasSuffix("<|im_start|>assistant\n") == true)
        // The differences to the best are there, with an interval around each.
        let differences = try #require(
            runs.flatMap { $0["differences"]?.array ?? [] }.first { $0["metric"]?.string == "loss" })
        let (low, value, high) = (
            differences["low"]?.double ?? .nan, differences["value"]?.double ?? .nan,
            differences["high"]?.double ?? .nan
        )
        #expect(low <= value && value <= high)

        let alone = try json(
            program.run([
                "evaluate", "--model", model, "--data", rows, "--max-new-tokens", "3", "--chat-option", "mood=good",
                "--json", "--quiet",
            ]))
        let expected = try #require(alone["loss"]?.double)
        let found = try #require(runs[0]["loss"]?["mean"]?.double)
        #expect(abs(found / expected - 1) < 1e-6)
        let trained = try #require(runs[1]["loss"]?["mean"]?.double)
        #expect(trained < found)
    }

    @Test func sweepsAndPlansReadChats() throws {
        let program = try Program()
        defer { program.remove() }
        let sweep = try json(
            program.run([
                "sweep", "--model", model, "--field", "rank", "--values", "1,2", "--lr", "0.01", "--data", rows,
                "--test", rows, "--steps", "2", "--seeds", "1", "--max-new-tokens", "2", "--json", "--quiet",
            ]))
        #expect(sweep["points"]?.array?.count == 2)
        let plan = try json(program.run(["plan", model, "--data", rows, "--batch-size", "2", "--json"]))
        let short = try json(
            program.run(["plan", model, "--data", rows, "--batch-size", "2", "--max-length", "40", "--json"]))
        func tokens(_ plan: JSON) -> Int { plan["batch"]?["tokens"]?.int ?? 0 }
        #expect(tokens(plan) == 387 && 0 < tokens(short) && tokens(short) <= 80)
    }

    @Test func namedAdaptersAnswerAsAlone() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("texts.jsonl", #"{"q": "Two and two?", "a": "Four."}"#)
        try train(program, "talk", ["--data", rows, "--system", "Be brief."])
        try train(program, "text", ["--data", "texts.jsonl", "--prompt", "{q}", "--target", "{a}"])
        let two = ["--adapter", "talk=talk", "--adapter", "text=text", "--model", model]
        let limit = ["--max-new-tokens", "4", "--json"]
        let mixed = try json(program.run(["generate"] + two + limit + ["talk:Where to?", "text:Where to?"]))
        let answers = try #require(mixed["rows"]?.array)
        for (index, name) in ["talk", "text"].enumerated() {
            let alone = try json(
                program.run(["generate", "--adapter", name, "--model", model, "Where to?"] + limit))
            #expect(answers[index]["prompt"]?.string == alone["prompt"]?.string)
            #expect(answers[index]["output"]?.string == alone["output"]?.string)
        }

        // Rows with messages are asked for the turn that they end with.
        try program.write(
            "rows.jsonl",
            #"{"adapter": "talk", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}"#
        )
        let asked = try json(program.run(["generate"] + two + limit + ["--data", "rows.jsonl"]))
        let prompt = try #require(asked["rows"]?.array?.first?["prompt"]?.string)
        #expect(prompt.contains("Be brief.") && prompt.hasSuffix("assistant\n") && !prompt.contains("Hello!"))

        let evaluation = try json(
            program.run(
                ["evaluate"] + two + ["--data", "rows.jsonl", "--adapter-field", "adapter", "--quiet"] + limit))
        let alone = try json(
            program.run(
                ["evaluate", "--adapter", "talk", "--model", model, "--data", "rows.jsonl", "--quiet"] + limit))
        #expect(evaluation.array?.first?["loss"]?.double == alone["loss"]?.double)
    }

    @Test(arguments: [
        (["--multi-reference"], "--multi-reference"), (["--max-input", "9"], "--max-length"),
        (["--loss", "lst"], "unknown --loss"),
    ])
    func mistakesAreOneLine(arguments: [String], word: String) throws {
        let program = try Program()
        defer { program.remove() }
        let result = try program.run(
            ["compare", "--model", model, "--data", rows, "--test", rows, "--lr", "0.1", "--html", "x.html"]
                + arguments)
        #expect(
            result.status == (word == "unknown --loss" ? 64 : 1) && result.error.contains(word), "\(result.error)")
        #expect(result.error.split(separator: "\n").count == 1 && program.files.isEmpty, "\(result.error)")
    }
}
