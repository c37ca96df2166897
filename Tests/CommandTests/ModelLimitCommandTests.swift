import Foundation
import PEFTSupport
import TestSupport
import Testing

/// What a model's files and sizes say takes effect, and commands tell about it in one line.
@Suite(.serialized)
struct ModelLimitCommandTests {
    private static let fixtures = Checkout.models

    /// A fixture's model with the tokenizer of the model that comes with the project, cut to its vocabulary.
    private func model(_ name: String, in program: Program, _ files: [String: String] = [:]) throws -> String {
        let folder = program.folder.appendingPathComponent(name)
        try FileManager.default.copyItem(at: Self.fixtures.appendingPathComponent(name), to: folder)
        let words = (0..<96).map { #""\#($0 < 2 ? ["<unk>", "</s>"][$0] : "w\($0)")": \#($0)"# }
        try program.write(
            "\(name)/tokenizer.json",
            #"{"added_tokens": [{"id": 1, "content": "</s>", "special": true}], "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null, "model": {"type": "WordLevel", "vocab": {\#(words.joined(separator: ", "))}, "unk_token": "<unk>"}}"#
        )
        for (file, text) in files { try program.write("\(name)/\(file)", text) }
        return folder.path
    }

    private func words(_ count: Int) -> String { (0..<count).map { "w\(2 + $0 % 90)" }.joined(separator: " ") }

    @Test func positionsThatEnd() throws {
        let program = try Program()
        defer { program.remove() }
        let gpt2 = try model("gpt2", in: program)
        try program.write(
            "long.jsonl",
            #"{"q": "w5", "a": "w6"}"# + "\n" + #"{"q": "w5", "a": "\#(words(140))"}"# + "\n")
        let templates = ["--prompt", "{q}", "--target", "{a}"]
        let trained = try program.run(
            [
                "train", "--model", gpt2, "--data", "long.jsonl", "--targets", "c_attn", "--steps", "1", "--output",
                "a", "--quiet",
            ]
                + templates)
        #expect(trained.status != 0)
        #expect(trained.error.contains("long.jsonl line 2") && trained.error.contains("142 tokens"))
        #expect(trained.error.contains("128 positions"))

        let text = try program.run(["generate", "--model", gpt2, words(120), "--max-new-tokens", "40", "--json"])
        #expect(text.status == 0, "\(text.error)")
        let made = try JSON.parse(Data(text.output.utf8), name: "output")["tokens"]?.int ?? 0
        #expect(
            made <= 9 && (made < 9 || text.error.contains("1 text ends at the last of the model's 128 positions")))

        try program.write("rows.jsonl", #"{"q": "\#(words(120))", "a": "w6"}"# + "\n")
        let scored = try program.run(
            [
                "evaluate", "--model", gpt2, "--data", "rows.jsonl", "--max-new-tokens", "40", "--max-input", "400",
                "--quiet",
            ]
                + templates)
        #expect(scored.status == 0, "\(scored.error)")
        #expect(scored.error.contains("--max-input is 400, but the model has 128 positions"))
    }

    @Test func generationConfigurationsApply() throws {
        let program = try Program()
        defer { program.remove() }
        let plain = try model("llama", in: program)
        func generate(_ more: [String] = []) throws -> (ids: Int, text: String, note: String) {
            let result = try program.run(["generate", "--model", plain, "w5 w6 w7", "--json"] + more)
            #expect(result.status == 0, "\(result.error)")
            let json = try JSON.parse(Data(result.output.utf8), name: "output")
            return (json["tokens"]?.int ?? -1, json["output"]?.string ?? "", result.error)
        }
        let before = try generate(["--max-new-tokens", "9"])
        #expect(!before.note.contains("generation"))
        try program.write(
            "llama/generation_config.json",
            #"{"max_new_tokens": 4, "repetition_penalty": 5.0, "suppress_tokens": [1], "eos_token_id": 1, "typical_p": 0.3}"#
        )
        let after = try generate()
        #expect(after.ids == 4)
        for word in ["max_new_tokens 4", "repetition_penalty 5.0", "generation_config.json", "ignores typical_p"] {
            #expect(after.note.contains(word), "\(after.note)")
        }
        #expect(after.note.split(separator: "\n").count == 1)
        let longer = try generate(["--max-new-tokens", "6", "--repetition-penalty", "1"])
        #expect(longer.ids == 6 && !longer.note.contains("max_new_tokens") && !longer.note.contains("repetition"))
        try program.write("llama/generation_config.json", #"{"repetition_penalty": "high"}"#)
        let wrong = try program.run(["generate", "--model", plain, "w5"])
        #expect(wrong.status != 0 && wrong.error.contains("generation_config.json: 'repetition_penalty' is \"high\""))
    }
}
