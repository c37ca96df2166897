import Foundation
import PEFTSupport
import TestSupport
import Testing

/// `peft generate --json-schema` and `--json-object`.
@Suite(.serialized)
struct GenerateJSONTests {
    private let model = Checkout.root.appendingPathComponent("Tests/TrainingTests/Fixtures/chat/model").path
    private let schema = #"{"type": "array", "items": {"enum": ["x", 12, null]}, "minItems": 2, "maxItems": 3}"#

    private func isValid(_ text: String?) throws -> Bool {
        let value = try JSON.parse(Data((text ?? "").utf8), name: "text")
        let elements = try #require(value.array)
        return 2...3 ~= elements.count && elements.allSatisfy { ["x", 12, nil].contains($0) }
    }

    @Test func textsSatisfyTheSchema() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("schema.json", schema)
        try program.write("rows.jsonl", "{\"t\": \"Hello\"}\n{\"t\": \"And a longer one\"}\n{\"t\": \"x\"}\n")
        let generate = [
            "generate", "--model", model, "--max-new-tokens", "150", "--json-schema", "schema.json", "--no-chat",
        ]
        let single = try program.run(generate + ["Hello"])
        #expect(single.status == 0, "\(single.error)")
        #expect(try isValid(single.output))
        let rows = ["--data", "rows.jsonl", "--prompt", "{t}", "--json", "--temperature", "1.5", "--seed", "4"]
        let texts = try ["1", "3"].map { size -> [String] in
            let result = try program.run(generate + rows + ["--batch-size", size])
            #expect(result.status == 0, "\(result.error)")
            return try (JSON.parse(Data(result.output.utf8), name: "output")["rows"]?.array ?? [])
                .compactMap { $0["output"]?.string }
        }
        #expect(texts[0].count == 3 && texts[0] == texts[1])
        for text in texts[0] { #expect(try isValid(text), "\(text)") }

        // A text that is cut off is no JSON, which a note says.
        let object = try program.run([
            "generate", "--model", model, "--chat", "--json-object", "--max-new-tokens", "1", "Hello",
        ])
        #expect(object.status == 0 && object.error.contains("incomplete"), "\(object.error)")
    }

    @Test func wrongUseIsOneLine() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("schema.json", schema)
        try program.write("other.json", #"{"not": {}}"#)
        let cases: [([String], Int32, String)] = [
            (["--json-schema", "schema.json", "--beams", "2"], 64, "beam search"),
            (["--json-schema", "schema.json", "--json-object"], 64, "mutually exclusive"),
            (["--json-schema", "none.json"], 1, "none.json"), (["--json-schema", "other.json"], 1, "'not'"),
        ]
        for (options, status, text) in cases {
            let result = try program.run(["generate", "--model", model] + options + ["Hello"])
            #expect(result.status == status && result.error.contains(text), "\(options): \(result.error)")
            #expect(result.error.split(separator: "\n").count == 1, "\(result.error)")
        }
    }
}
