import Foundation
import PEFTSupport
import TestSupport
import Testing

@Suite(.serialized)
struct ChatCommandTests {
    private static let fixture = Checkout.root.appendingPathComponent("Tests/TrainingTests/Fixtures/chat")
    private let model = fixture.appendingPathComponent("model").path
    private let rows = fixture.appendingPathComponent("rows.jsonl").path

    private func json(_ text: String) throws -> JSON { try JSON.parse(Data(text.utf8), name: "output") }

    @Test func trainEvaluateAndGenerate() throws {
        let program = try Program()
        defer { program.remove() }
        let training = try program.run([
            "train", "--model", model, "--data", rows, "--validation", rows, "--steps", "2", "--tokens-per-batch",
            "150",
            "--system", "Be brief.", "--chat-option", "mood=good", "--output", "adapter", "--json", "--quiet",
        ])
        #expect(training.status == 0, "\(training.error)")
        let record = try json(training.output)
        #expect(record["chat"]?["system"]?.string == "Be brief.")
        #expect(record["chat"]?["variables"]?["mood"]?.string == "good")
        #expect(record["configuration"]?["tokensPerBatch"]?.int == 150)

        // The adapter brings its base, and how it was talked to.
        let evaluation = try program.run([
            "evaluate", "--adapter", "adapter", "--model", model, "--data", rows, "--max-new-tokens", "3",
            "--predictions", "out.jsonl", "--json", "--quiet",
        ])
        #expect(evaluation.status == 0, "\(evaluation.error)")
        #expect(try json(evaluation.output)["rows"]?.int == 6)
        let lines = try String(contentsOf: program.folder.appendingPathComponent("out.jsonl"), encoding: .utf8)
            .split(separator: "\n").map { try json(String($0)) }
        #expect(lines.map { $0["target"]?.string }.prefix(2) == ["At nine.\nDon't be late.", "Hello!"])

        let arguments = ["generate", "--adapter", "adapter", "--model", model, "--max-new-tokens", "3", "--json"]
        let text = try program.run(arguments + ["Where to?"])
        let prompt = try json(text.output)["prompt"]?.string
        #expect(
            prompt
                == "<|im_start|>system\nBe brief.<|im_end|>\n\n<|im_start|>user\nWhere to?<|im_end|>\n\n<|im_start|>assistant\n"
        )
        try program.write("chat.json", #"[{"role": "user", "content": "Where to?"}]"#)
        let messages = try program.run(arguments + ["--messages", "chat.json"])
        #expect(try json(messages.output)["prompt"]?.string == prompt)
        let bare = try program.run(arguments + ["--no-chat", "Where to?"])
        #expect(try json(bare.output)["prompt"]?.string == "Where to?")
    }

    @Test func showBatchEndsWithoutTraining() throws {
        let program = try Program()
        defer { program.remove() }
        let shown = try program.run([
            "train", "--model", model, "--data", rows, "--show-batch", "--show-ids", "--batch-size", "6",
        ])
        #expect(shown.status == 0 && program.files.isEmpty, "\(shown.error)")
        #expect(shown.output.contains("First batch: 6 examples, 685 tokens, 170 with loss"))
        #expect(shown.output.contains("⟦At nine.↵\n    Don't be late.<|im_end|>⟧"))
        #expect(!shown.output.contains("⟦Where"))
        #expect(shown.output.contains("ids: ") && shown.output.contains("0 truncated, 0 dropped"))

        // Any task: here prompts and targets of an encoder-decoder.
        try program.write("rows.jsonl", #"{"q": "Two and two?", "a": "Four."}"#)
        let arguments = ["--data", "rows.jsonl", "--prompt", "{q}", "--target", "{a}", "--show-batch"]
        let pair = try program.run(["train", "--model", program.model] + arguments)
        #expect(pair.output.contains("line 1: input of") && pair.output.contains("⟦Four.</s>⟧"), "\(pair.output)")
        // Questions and answers as turns.
        let turns = try program.run(["train", "--model", model, "--chat"] + arguments)
        #expect(turns.output.contains("<|im_start|>user\n    Two and two?<|im_end|>"), "\(turns.output)")
        #expect(turns.output.contains("⟦Four.<|im_end|>⟧"))
    }

    @Test func showBatchNamesLinesAndPrintsJSON() throws {
        let program = try Program()
        defer { program.remove() }
        let user = #"{"role": "user", "content": "Q"}"#
        try program.write(
            "rows.jsonl",
            """
            {"messages": [\(user)], "id": 1}

            {"messages": [\(user), {"role": "assistant", "content": "SECOND"}], "id": 2}
            {"messages": [\(user), {"role": "assistant", "content": "THIRD"}], "id": 3}
            """)
        let arguments = ["train", "--model", model, "--data", "rows.jsonl", "--show-batch"]
        let text = try program.run(arguments)
        #expect(text.output.contains("line 3: ") && text.output.contains("line 4: "), "\(text.output)")
        #expect(text.error.contains("1 example has no token") && text.error.contains("unused fields of the data: id"))
        let shown = try json(program.run(arguments + ["--json"]).output)
        #expect(shown["rows"]?.int == 2 && shown["leftOut"]?.int == 1)
        let rows = try #require(shown["batches"]?.array?.first?["rows"]?.array)
        #expect(Set(rows.compactMap { $0["line"]?.int }) == [3, 4])
        let learned = try #require(
            rows.first { $0["line"]?.int == 4 }?["parts"]?.array?.filter { $0["loss"] == true })
        #expect(learned.compactMap { $0["text"]?.string } == ["THIRD<|im_end|>"])
        #expect(learned.first?["ids"]?.array?.isEmpty == false)
    }

    /// Lines are counted where rows are read as a stream, too.
    @Test func showBatchNamesLinesOfTemplates() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("rows.jsonl", "\n{\"q\": \"Two?\", \"a\": \"Four.\"}\n")
        let shown = try program.run([
            "train", "--model", program.model, "--data", "rows.jsonl", "--prompt", "{q}", "--target", "{a}",
            "--show-batch",
        ])
        #expect(shown.output.contains("line 2: input of"), "\(shown.output)\(shown.error)")
    }

    /// Layouts that data sets share need no templates, and one line says how they are read.
    @Test(arguments: [
        ("rows.jsonl", #"{"instruction": "Add", "input": "2+2", "output": "4"}"#, "Alpaca", "### Input:\n    2+2"),
        (
            "rows.jsonl", #"{"instruction": "Sing", "input": "", "output": "La"}"#, "Alpaca",
            "Sing\n    \n    ### Response:"
        ),
        ("rows.jsonl", #"{"prompt": "Two?", "completion": "Four."}"#, "prompts and completions", "⟦Four."),
        ("rows.jsonl", #"{"text": "All of it.", "id": 4}"#, "text", "⟦All of it."),
        ("rows.txt", "All of it.", "text", "⟦All of it."),
        (
            "rows.jsonl", #"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#,
            "chat messages", "⟦b<|im_end|>"
        ),
        (
            "rows.jsonl",
            #"{"system": "Rhyme", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}"#,
            "ShareGPT", "system\n    Rhyme"
        ),
    ])
    func layoutsAreRecognized(name: String, row: String, title: String, text: String) throws {
        let program = try Program()
        defer { program.remove() }
        try program.write(name, row)
        let shown = try program.run(["train", "--model", model, "--data", name, "--show-batch"])
        #expect(shown.output.contains(text), "\(shown.output)\(shown.error)")
        #expect(shown.error.contains("reading rows as \(title): "), "\(shown.error)")
    }

    @Test func layoutsCanBeNamed() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("rows.jsonl", #"{"instruction": "Add", "input": "2+2", "output": "4", "text": "Add: 4"}"#)
        let arguments = ["train", "--model", model, "--data", "rows.jsonl", "--show-batch"]
        let text = try program.run(arguments + ["--format", "text"])
        #expect(text.output.contains("⟦Add: 4"), "\(text.output)\(text.error)")
        let turns = try program.run(arguments + ["--format", "alpaca", "--chat"])
        #expect(turns.output.contains("user\n    Add\n    \n    2+2<|im_end|>"), "\(turns.output)\(turns.error)")
        for (more, word, status) in [
            (["--format", "sharegpt"], "conversations", 1), (["--format", "alpacca"], "did you mean 'alpaca'", 64),
            (["--format", "text", "--target", "{output}"], "--target", 64),
            (["--format", "text", "--chat"], "--chat", 1),
        ] {
            let refused = try program.run(arguments + more)
            #expect(refused.status == Int32(status) && refused.error.contains(word), "\(refused.error)")
            #expect(refused.error.split(separator: "\n").count == 1, "\(refused.error)")
        }
    }

    /// An adapter that was trained on a recognized layout is evaluated in the same way.
    @Test func layoutsAreRemembered() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("rows.jsonl", #"{"instruction": "Add", "input": "", "output": "4"}"#)
        let training = try program.run([
            "train", "--model", model, "--data", "rows.jsonl", "--steps", "1", "--output", "adapter", "--json",
            "--quiet",
        ])
        let record = try json(training.output)
        #expect(record["prompt"]?.string?.hasPrefix("### Instruction:\n{instruction}") == true, "\(training.error)")
        let evaluation = try program.run([
            "evaluate", "--adapter", "adapter", "--model", model, "--data", "rows.jsonl", "--max-new-tokens", "2",
            "--json", "--quiet",
        ])
        #expect(try json(evaluation.output)["rows"]?.int == 1, "\(evaluation.error)")
    }

    @Test(arguments: [
        (["--loss", "lst"], "unknown --loss", 64), (["--max-length", "4"], "no token", 1),
        (["--messages", "msgs"], "messages", 1),
        (["--chat-template", "none.jinja"], "none.jinja", 1),
        (["--prompt", "a", "--target", "b", "--loss", "last"], "--chat", 1),
        (["--chat-option", "x"], "name=value", 64), (["--max-input", "9"], "--max-length", 1),
        (["--tokens-per-batch", "0"], "tokens", 64),
    ])
    func mistakesAreOneLine(arguments: [String], word: String, status: Int) throws {
        let program = try Program()
        defer { program.remove() }
        let result = try program.run(["train", "--model", model, "--data", rows, "--output", "out"] + arguments)
        #expect(result.status == status && result.error.contains(word), "\(result.error)")
        #expect(result.error.split(separator: "\n").count == 1 && program.files.isEmpty, "\(result.error)")
    }

    @Test func modelsWithoutATemplateSayWhatToGive() throws {
        let program = try Program()
        defer { program.remove() }
        let result = try program.run(["train", "--model", program.model, "--data", rows, "--output", "out"])
        #expect(result.status == 1 && result.error.contains("--chat-template"), "\(result.error)")
        let missing = try program.run(["train", "--model", model, "--data", rows])
        #expect(missing.status == 64 && missing.error.contains("--output"), "\(missing.error)")
    }
}
