import Foundation
import PEFTSupport
import Testing

/// Commands on several adapters: generate, evaluate, combine, merge, verify.
@Suite(.serialized)
struct ManyAdaptersTests {
    /// A folder with two adapters that were trained a little, `a` and `b`, and rows that name them.
    private func prepare() throws -> Program {
        let program = try Program()
        let kinds = ["a", "b", "base", "a", "b", "a"]
        let rows = kinds.enumerated().map { index, kind in
            ##"{"talk": "#Person1#: Hello \##(index).", "short": "They greet \##(index).", "kind": "\##(kind)"}"##
        }
        try program.write("rows.jsonl", rows.joined(separator: "\n"))
        for (name, method, options) in [("a", "lora", ["--rank", "2"]), ("b", "ia3", [])] {
            let result = try program.run(
                [
                    "train", "--model", program.model, "--prompt", "Summarize: {talk}", "--target", "{short}",
                    "--quiet", "--data", "rows.jsonl", "--method", method, "--steps", "4", "--lr", "0.05",
                    "--output", name,
                ] + options)
            #expect(result.status == 0, "\(result.error)")
        }
        return program
    }

    private let two = ["--adapter", "a=a", "--adapter", "b=b"]

    @Test func rowsNameTheirAdapters() throws {
        let program = try prepare()
        defer { program.remove() }
        // Each prompt as its adapter alone answers it.
        func alone(_ adapter: [String], _ text: String) throws -> String? {
            try json(
                program.run(["generate"] + adapter + ["--max-new-tokens", "5", "--json", "Summarize: \(text)"]))[
                    "output"]?.string
        }
        let mixed = try json(
            program.run(
                ["generate"] + two
                    + [
                        "--max-new-tokens", "5", "--json", "a:Summarize: Hello", "base:Summarize: Hello",
                        "b:Summarize: x",
                    ])
        )
        let outputs = mixed["rows"]?.array?.compactMap { $0["output"]?.string }
        let expected = try [
            alone(["--adapter", "a"], "Hello"), alone(["--model", program.model], "Hello"),
            alone(["--adapter", "b"], "x"),
        ]
        #expect(outputs == expected.compactMap { $0 })
        let file = try json(
            program.run(
                ["generate"] + two
                    + [
                        "--data", "rows.jsonl", "--adapter-field", "kind", "--prompt", "Summarize: {talk}",
                        "--batch-size", "4", "--max-new-tokens", "3", "--json",
                    ]))
        #expect(
            file["rows"]?.array?.compactMap { $0["adapter"]?.string } == ["a", "b", "base", "a", "b", "a"])

        let all = try json(
            program.run(["evaluate"] + two + ["--data", "rows.jsonl", "--max-new-tokens", "3", "--json"]))
        #expect(all.array?.compactMap { $0["adapter"]?.string } == ["a", "b"])
        #expect(all.array?.compactMap { $0["rows"]?.int } == [6, 6])
        let own = try json(
            program.run(
                ["evaluate"] + two
                    + [
                        "--data", "rows.jsonl", "--adapter-field", "kind", "--max-new-tokens", "3", "--json",
                        "--prompt", "Summarize: {talk}", "--target", "{short}", "--predictions", "out.jsonl",
                    ]))
        #expect(own.array?.compactMap { $0["adapter"]?.string } == ["base", "a", "b", "all rows"])
        #expect(own.array?.compactMap { $0["rows"]?.int } == [1, 3, 2, 6])
        let losses = own.array?.compactMap { $0["loss"]?.double } ?? []
        #expect(losses.count == 4 && losses[3] > losses[..<3].min() ?? 0 && losses[3] < losses[..<3].max() ?? 0)
        let lines = try String(contentsOf: program.folder.appendingPathComponent("out.jsonl"), encoding: .utf8)
            .split(separator: "\n")
        #expect(lines.count == 6)
        #expect(try JSON.parse(Data(lines[2].utf8), name: "line")["adapter"]?.string == "base")
    }

    private static let mistakes = [
        (["generate", "--adapter", "a=a", "--adapter", "b=b", "c:hello"], "unknown adapter 'c'"),
        (["generate", "--adapter", "a=a", "--adapter", "b=b", "hello"], "names no adapter"),
        (["generate", "--adapter", "a=a", "--adapter", "a=b", "a:hello"], "adapter 'a' already exists"),
        (["generate", "--adapter", "base=a", "base:hello"], "without adapters"),
        (["generate", "--adapter", "a=a", "--merge", "a:hello"], "--merge"),
        (["generate", "--adapter", "a", "one", "two"], "expected one text (got 2)"),
        (
            ["generate", "--adapter", "a=a", "--data", "rows.jsonl", "--adapter-field", "knid"],
            "did you mean 'kind'?"
        ),
        (["evaluate", "--adapter", "a=a", "--data", "rows.jsonl", "--adapter-field", "kind"], "rows.jsonl line 2"),
        (["evaluate", "--adapter", "a", "--data", "rows.jsonl", "--adapter-field", "kind"], "--adapter name=folder"),
        (["combine", "a=0.5", "b=0.5", "--output", "c"], "'b' is IA³"),
        (["combine", "a=0.5", "a=x", "--output", "c"], "no weight"),
        (["combine", "a", "a", "--method", "catt", "--output", "c"], "did you mean 'cat'?"),
        (["combine", "a", "a", "--method", "cat", "--rank", "8", "--output", "c"], "--rank has no effect"),
        (["combine", "a", "a", "--method", "arrow", "--density", "0.2", "--output", "c"], "--density has no effect"),
        (["generate", "--adapter", "a=a", "--adapter", "b=b", "--messages", "rows.jsonl", "a:hello"], "--messages"),
        (["merge", "nowhere", "--output", "c"], "nowhere doesn't exist"),
    ]

    @Test func mistakesAreOneClearLine() throws {
        let program = try prepare()
        defer { program.remove() }
        for (arguments, message) in Self.mistakes {
            let result = try program.run(arguments)
            #expect([1, 64].contains(result.status), "\(arguments)")
            #expect(result.error.contains(message), "\(result.error)")
            #expect(result.error.split(separator: "\n").count == 1, "\(result.error)")
            #expect(!program.files.contains("c"))
        }
    }

    /// An adapter that acts after an invocation is measured after it, also on sentences that lack it.
    @Test func invocationsPrecedeSentences() throws {
        let program = try Program.withLlama(rows: 2)
        defer { program.remove() }
        // "Tom".
        let invocation = "51,78,76"
        let trained = try program.run([
            "train", "--model", "llama", "--data", "rows.jsonl", "--prompt", "{q}", "--target", "{a}", "--steps", "2",
            "--lr", "0.1", "--quiet", "--method", "alora", "--invocation-tokens", invocation, "--output", "activated",
        ])
        #expect(trained.status == 0, "\(trained.error)")
        let check = try json(program.run(["verify", "activated", "--json"]))
        #expect((check["effect"]?["largest"]?.double ?? 0) > 0)
    }

    @Test func combineMergeAndVerify() throws {
        let program = try prepare()
        defer { program.remove() }
        // A name with the sign before a weight.
        let (a, named) = (program.folder.appendingPathComponent("a"), program.folder.appendingPathComponent("lr=1"))
        try FileManager.default.copyItem(at: a, to: named)
        let combined = try json(
            program.run(["combine", "a=0.5", "lr=1", "--method", "cat", "--output", "both", "--json"]))
        #expect(combined["adapters"]?.array?.compactMap { $0["weight"]?.double } == [0.5, 1])
        #expect(combined["rank"]?.int == 4)
        let check = try json(program.run(["verify", "both", "--json"]))
        #expect(check["problems"]?.array == [])
        #expect((check["effect"]?["largest"]?.double ?? 0) > 0)

        let merged = try json(program.run(["merge", "both", "--output", "whole", "--dtype", "bfloat16", "--json"]))
        #expect(
            merged["drift"]?.array?.compactMap { $0["dtype"]?.string } == [
                "float32", "bfloat16", "float16", "nf4", "fp4", "int8",
            ])
        #expect(merged["dtype"]?.string == "bfloat16")
        let files = try FileManager.default.contentsOfDirectory(
            atPath: program.folder.appendingPathComponent("whole").path)
        #expect(
            Set(files).isSuperset(of: [
                "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
            ]))
        let text = try program.run(["generate", "--model", "whole", "--max-new-tokens", "3", "Summarize: Hello"])
        #expect(text.status == 0, "\(text.error)")

        // A folder that can't be read is a finding of verify's, not an accident.
        try program.write("a/adapter_config.json", #"{"peft_type": "LORA", "r": 2, "lora_alpha": 0}"#)
        let unreadable = try program.run(["verify", "a", "--json"])
        #expect(unreadable.status == 1)
        let problems = try JSON.parse(Data(unreadable.output.utf8), name: "output")["problems"]?.array
        #expect(problems?.first?.string?.contains("alpha") == true)
        try FileManager.default.createDirectory(
            at: program.folder.appendingPathComponent("none"), withIntermediateDirectories: true)
        #expect(try program.run(["verify", "none"]).output.contains("does not fit"))
    }
}
