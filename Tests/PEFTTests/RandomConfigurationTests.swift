import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

private enum RandomModels {
    static let folder = ProcessInfo.processInfo.environment["PEFT_RANDOM_MODELS"].map { URL(fileURLWithPath: $0) }
}

/// The models of random configurations that `Scripts/random_configs.py` drew: one process reads many of them.
///
/// The folder holds a model per subfolder, with what transformers computes (`expected.json`, `expected.safetensors`) and, for
/// some, a LoRA (`adapter`). Each gets a line in `results.jsonl`, which the script judges; `current` names the model at hand,
/// so that the script knows which one ended the process.
@Suite(.enabled(if: RandomModels.folder != nil)) struct RandomConfigurationTests {
    @Test func computeModels() throws {
        let folder = try #require(RandomModels.folder)
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path).filter {
            FileManager.default.fileExists(atPath: folder.appendingPathComponent("\($0)/expected.json").path)
        }.sorted()
        #expect(!names.isEmpty)
        var lines = ""
        for name in names {
            try AtomicFile.write(name, to: folder.appendingPathComponent("current"))
            var fields: [String: JSON]
            do {
                fields = try Self.result(of: folder.appendingPathComponent(name))
            } catch let error as PEFTError {
                fields = ["refused": .string("\(error)")]
            } catch {
                fields = ["error": .string("\(error)")]
            }
            fields["name"] = .string(name)
            lines += JSON.object(fields).text(indent: nil) + "\n"
            try AtomicFile.write(lines, to: folder.appendingPathComponent("results.jsonl"))
        }
        try AtomicFile.write("", to: folder.appendingPathComponent("current"))
    }

    private static func result(of folder: URL) throws -> [String: JSON] {
        let expected = try JSON.read(folder.appendingPathComponent("expected.json"))
        let tensors = try SafetensorsFile(folder.appendingPathComponent("expected.safetensors"))
        let source = try ModelFolder(folder)
        let model = try source.load()
        let rows = expected.rows
        var fields: [String: JSON] = ["task": .string(model.head.task.rawValue)]
        fields["logits"] = number(relativeDifference(try model.scores(rows), try tensors.tensor("logits")))
        fields["loss"] = number(try withTorchErrors { model.loss(rows).item() })
        if let count = expected["new_tokens"]?.int {
            let generator = try Generator(model, GenerateParameters(maxNewTokens: count))
            let prompts = rows.map(\.input)
            func json(_ ids: [[Int]]) -> JSON { .array(ids.map { .array($0.map { .integer($0) }) }) }
            fields["greedy"] = json(try prompts.map { try generator.generate([$0])[0] })
            fields["together"] = json(try generator.generate(prompts))
        }
        if expected["losses"] != nil {
            let adapter = try AdapterFolder(folder.appendingPathComponent("adapter")).attach(
                to: model, isTrainable: true)
            fields["adapted"] = number(
                relativeDifference(try adapter.model.scores(rows), try tensors.tensor("adapted")))
            let losses = try adapter.train(
                steps: expected["losses"]?.array?.count ?? 0, rate: expected["rate"]?.double ?? 0, rows: rows)
            fields["losses"] = .array(losses.map(number))
        }
        return fields
    }

    /// JSON has no infinity and no NaN.
    private static func number(_ value: Double) -> JSON { value.isFinite ? .number(value) : .string("\(value)") }
}
