import Foundation
import PEFTSupport
import TestSupport
import Testing

/// Adapters' folders as commands find them.
@Suite(.serialized)
struct AdapterFileTests {
    private func rows(_ program: Program) throws {
        try program.write(
            "rows.jsonl", (0..<4).map { #"{"a": "word \#($0)", "b": "other \#($0)"}"# }.joined(separator: "\n"))
    }

    /// Trains a small adapter.
    private func train(_ program: Program, _ more: [String]) throws -> Program.Result {
        try program.run(["train", "--data", "rows.jsonl", "--quiet", "--steps", "2"] + more)
    }

    private func configure(_ program: Program, _ folder: String, _ change: (inout [String: JSON]) -> Void) throws {
        try JSON.rewrite(program.folder.appendingPathComponent("\(folder)/adapter_config.json"), change)
    }

    @Test func aMissingBaseIsToldApartFromOneThatIsNotThere() throws {
        let program = try Program()
        defer { program.remove() }
        try rows(program)
        let made = try train(
            program, ["--model", program.model, "--prompt", "{a}", "--target", "{b}", "--output", "adapter"])
        try #require(made.status == 0, "\(made.error)")
        for value in [JSON.null, "", nil] as [JSON?] {
            try configure(program, "adapter") { $0["base_model_name_or_path"] = value }
            let result = try program.run(["merge", "adapter", "--output", "merged"])
            #expect(result.status != 0 && result.error.contains("does not name its base model; give --model"))
        }
        try configure(program, "adapter") { $0["base_model_name_or_path"] = "/content/drive/base" }
        let result = try program.run(["merge", "adapter", "--output", "merged"])
        #expect(result.error.contains("'/content/drive/base'") && result.error.contains("adapter_config.json"))
        #expect(result.error.contains("give --model"))
        let named = try program.run(["merge", "adapter", "--model", program.model, "--output", "merged"])
        #expect(named.status == 0, "\(named.error)")
    }

    @Test func checkpointsOfARunAreConverted() throws {
        let program = try Program()
        defer { program.remove() }
        try rows(program)
        let made = try train(
            program,
            ["--model", program.model, "--prompt", "{a}", "--target", "{b}", "--output", "run/checkpoint-20"])
        try #require(made.status == 0, "\(made.error)")
        let result = try program.run(["convert", "run", "--model", program.model, "--output", "converted"])
        #expect(result.status == 0 && result.error.contains("checkpoint-20"), "\(result.error)")
        let shown = try program.run(["inspect", "converted"])
        #expect(shown.status == 0)
    }

    /// All commands read the tokens from the adapter's folder.
    @Test func newTokensAreTrained() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("tokens.txt", "<word>\n<end>\n")
        try program.write("rows.jsonl", #"{"a": "<word> one", "b": "two <end>"}"# + "\n")
        let options = ["--prompt", "{a}", "--target", "{b}", "--add-tokens", "tokens.txt"]
        let shown = try program.run(
            ["train", "--data", "rows.jsonl", "--model", program.model, "--show-batch"] + options)
        #expect(shown.status == 0 && shown.output.contains("<end>"), "\(shown.error)")
        let made = try program.run(
            ["train", "--data", "rows.jsonl", "--steps", "2", "--model", program.model, "--output", "adapter"]
                + options)
        try #require(made.status == 0, "\(made.error)")
        #expect(made.error.contains("2 new tokens with ids"), "\(made.error)")
        let folder = program.folder.appendingPathComponent("adapter")
        let tokenizer = try JSON.read(folder.appendingPathComponent("tokenizer.json"))
        let ids = (tokenizer["added_tokens"]?.array ?? []).suffix(2).compactMap { $0["id"]?.int }
        let configuration = try JSON.read(folder.appendingPathComponent("adapter_config.json"))
        #expect(ids.count == 2 && configuration["trainable_token_indices"] == .array(ids.map { .integer($0) }))
        for command in [
            ["evaluate", "--adapter", "adapter", "--data", "rows.jsonl", "--max-new-tokens", "2"],
            ["verify", "adapter"], ["merge", "adapter", "--output", "merged"],
            ["generate", "--adapter", "adapter", "<word> one", "--max-new-tokens", "2"],
        ] {
            let result = try program.run(command)
            #expect(result.status == 0, "\(command): \(result.error)")
        }
        let both = try train(
            program, ["--from-adapter", "adapter", "--add-tokens", "tokens.txt", "--output", "next"])
        #expect(both.status == 64 && both.error.contains("--from-adapter"), "\(both.error)")
        try program.write("known.txt", "</s>\n")
        let known = try train(
            program, ["--model", program.model, "--add-tokens", "known.txt", "--output", "next"] + options.prefix(4))
        #expect(known.status == 1 && known.error.contains("are in the vocabulary"), "\(known.error)")
    }

    @Test func trainingGoesOnFromAnAdapter() throws {
        let program = try Program()
        defer { program.remove() }
        try rows(program)
        let made = try train(
            program,
            [
                "--model", program.model, "--prompt", "{a}", "--target", "{b}", "--rank", "3", "--lr", "0.01",
                "--output",
                "first",
            ])
        try #require(made.status == 0, "\(made.error)")
        for (option, value, told) in [
            ("--rank", "8", "--rank is 8"), ("--targets", "k", "--targets is k"),
            ("--method", "ia3", "--method is ia3"),
        ] {
            let result = try train(program, ["--from-adapter", "first", option, value, "--output", "second"])
            #expect(result.status != 0 && result.error.contains(told), "\(result.error)")
        }
        // Templates, base and settings are the adapter's; a rate of next to nothing leaves its values.
        let next = try train(
            program, ["--from-adapter", "first", "--rank", "3", "--lr", "1e-12", "--output", "second"])
        try #require(next.status == 0, "\(next.error)")
        let losses = try ["first", "second"].map { folder -> String in
            let result = try program.run([
                "evaluate", "--adapter", folder, "--data", "rows.jsonl", "--json", "--quiet",
            ])
            return try #require(JSON.parse(Data(result.output.utf8), name: "output")["loss"]?.double).formatted()
        }
        #expect(losses[0] == losses[1])
        let whole = try program.run(
            ["train", "--from-adapter", program.model, "--data", "rows.jsonl", "--output", "third"])
        #expect(whole.error.contains("--model"))
    }
}
