import Foundation
import PEFTSupport
import Testing

/// `peft generate --data` and tables of `peft predict`.
@Suite(.serialized)
struct BatchInferenceTests {
    private func prepared() throws -> Program {
        let program = try Program()
        let rows = (0..<3).map { #"{"id": \#($0), "talk": "Hello, \#($0)", "short": "They greet"}"# }
        try program.write("train.jsonl", rows.joined(separator: "\n"))
        let result = try program.run([
            "train", "--model", program.model, "--data", "train.jsonl", "--prompt", "Summarize: {talk}", "--target",
            "{short}", "--rank", "1", "--targets", "q", "--steps", "1", "--output", "adapter", "--quiet",
        ])
        #expect(result.status == 0, "\(result.error)")
        return program
    }

    private func text(_ program: Program, _ name: String) throws -> String {
        try String(contentsOf: program.folder.appendingPathComponent(name), encoding: .utf8)
    }

    @Test func rowsGetTextsInTheFormatOfTheOutput() throws {
        let program = try prepared()
        defer { program.remove() }
        // No targets: the template that the adapter remembers needs the talk alone.
        try program.write(
            "new.jsonl", "{\"z\": 1, \"talk\": \"Hi\", \"a\": [2]}\n{\"z\": 2, \"talk\": \"So, \\\"long\\\"\"}\n")
        let generate = ["generate", "--adapter", "adapter", "--max-new-tokens", "3", "--data", "new.jsonl"]
        for name in ["out.jsonl", "out.csv", "out.txt"] {
            let result = try program.run(generate + ["--output", name, "--quiet"])
            #expect(result.status == 0 && result.output.isEmpty && result.error.isEmpty, "\(result)")
        }
        let single = try program.run([
            "generate", "--adapter", "adapter", "--max-new-tokens", "3", "Summarize: Hi",
        ]).output.trimmingCharacters(in: .newlines)
        let lines = try text(program, "out.jsonl").split(separator: "\n").map(String.init)
        #expect(lines.count == 2)
        #expect(lines[0].hasPrefix(#"{"z": 1, "talk": "Hi", "a": [2"#), "\(lines[0])")
        let first = try JSON.parse(Data(lines[0].utf8), name: "line")
        #expect(first["output"]?.string == single)
        #expect(try text(program, "out.csv").hasPrefix("z,talk,a,output\n1,Hi,[2],"))
        #expect(try text(program, "out.csv").contains("2,\"So, \"\"long\"\"\",,"))
        #expect(try text(program, "out.txt").split(separator: "\n", omittingEmptySubsequences: false).count == 3)
        #expect(try text(program, "out.txt").hasPrefix(single))

        // Without a file the rows go to standard output; a prompt takes the place of the remembered one.
        let piped = try program.run(generate + ["--prompt", "{talk}", "--limit", "1"])
        #expect(piped.status == 0 && piped.output.split(separator: "\n").count == 1, "\(piped)")
        let json = try program.run(generate + ["--json"])
        #expect(try JSON.parse(Data(json.output.utf8), name: "output")["rows"]?.array?.count == 2)
    }

    @Test func outputsAreCheckedBeforeAnythingIsLoaded() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("new.csv", "text\nHello\n")
        for command in ["generate", "predict"] {
            let result = try program.run([
                command, "--model", "nowhere", "--prompt", "{text}", "--data", "new.csv", "--output", "no/where.csv",
            ])
            #expect(result.status == 1 && result.error.contains("no/where.csv"), "\(result.error)")
        }
    }
}
