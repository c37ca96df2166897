import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import Training

/// Cards as texts; `Scripts/check_records.py` reads them with `huggingface_hub`.
struct ModelCardTests {
    private func record(bestLoss: Double?) -> TrainingRecord {
        var history = TrainingHistory()
        history.training = [.init(step: 7, loss: 2)]
        (history.bestLoss, history.bestStep) = (bestLoss, bestLoss.map { _ in 5 })
        let result = TrainingResult(
            history: history, tokensPerSecond: 10, seconds: 1, steps: 7, peakBytes: nil)
        return TrainingRecord(
            model: "owner/base", method: "lora", methodFields: [:], prompt: "```\n{q}", target: "{a}",
            maxInputTokens: 64, data: "/private/folder/train \"1\".jsonl", trainingRows: 1200, validationRows: 10,
            configuration: TrainingConfiguration(), trainable: 10, total: 1000, result: result)
    }

    private func card(base: String, type: String = "LORA", task: String = "CAUSAL_LM", _ record: TrainingRecord?)
        -> [String]
    {
        let configuration: [String: JSON] = [
            "base_model_name_or_path": .string(base), "peft_type": .string(type), "task_type": .string(task),
        ]
        return ModelCard(name: "mine: \"a\"", configuration: configuration, record: record).text
            .components(separatedBy: "\n")
    }

    @Test func frontMatterNamesBaseLibraryTagsAndMetrics() throws {
        let lines = card(base: "owner/base", record(bestLoss: 1.5))
        let end = try #require(lines.dropFirst().firstIndex(of: "---"))
        let front = Array(lines[..<end])
        for line in [
            "base_model: \"owner/base\"", "library_name: peft", "pipeline_tag: text-generation",
            "- \"base_model:adapter:owner/base\"", "- \"lora\"", "- loss", "- name: \"mine: \\\"a\\\"\"",
            "      name: \"train \\\"1\\\".jsonl\"", "      value: 1.5",
        ] { #expect(front.contains(line), "\(line)") }
        #expect(!lines.contains { $0.hasPrefix("license") || $0.contains("/private/folder") })
        // A template with a fence is in a longer one.
        #expect(lines.contains("````") && lines.contains("| Examples | 1,200, 10 for validation |"))
    }

    /// A hub rejects a base that is a path, and the bundled model is on none.
    @Test(arguments: ["/models/base", "tiny-t5", ".", "base"]) func localBasesAreNotNamed(base: String) {
        let lines = card(base: base, type: "IA3", task: "SEQ_2_SEQ_LM", nil)
        #expect(!lines.contains { $0.hasPrefix("base_model") || $0.contains("base_model:adapter") })
        #expect(!lines.contains { $0.hasPrefix("pipeline_tag") || $0.hasPrefix("metrics") || $0.contains("lora") })
        #expect(lines.contains("library_name: peft"))
    }

    @Test func aCardThatExistsIsKept() throws {
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("README.md")
            try AtomicFile.write(
                "{\"peft_type\": \"LORA\"}", to: folder.appendingPathComponent("adapter_config.json"))
            try ModelCard.write(into: folder, name: "first")
            try ModelCard.write(into: folder, name: "second")
            #expect(try String(contentsOf: file, encoding: .utf8).contains("# first\n"))
        }
    }
}
