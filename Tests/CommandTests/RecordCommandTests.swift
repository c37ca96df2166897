import Foundation
import PEFTSupport
import TestSupport
import Testing

/// The records of `peft train`, and `peft push`, with a Llama of 16 hidden units.
struct RecordCommandTests {
    private func program() throws -> Program {
        let program = try Program()
        let rows = (0..<6).map { #"{"q": "Tom \#($0)", "a": "ran away \#($0)"}"# }
        try program.write("rows.jsonl", rows.joined(separator: "\n"))
        let llama = Checkout.root.appendingPathComponent("Tests/TrainingTests/Fixtures/chat/model")
        try FileManager.default.copyItem(at: llama, to: program.folder.appendingPathComponent("llama"))
        return program
    }

    private func train(_ program: Program, _ more: [String], stop: String? = nil) throws -> Program.Result {
        try program.run(
            [
                "train", "--quiet", "--model", "llama", "--data", "rows.jsonl", "--prompt", "{q}", "--target", "{a}",
                "--batch-size", "2", "--steps", "4", "--validation", "rows.jsonl", "--validate-every", "2",
            ] + more, environment: stop.map { ["PEFT_TEST_STOP": $0] } ?? [:])
    }

    private func lines(_ program: Program, _ path: String) throws -> [Substring] {
        try String(contentsOf: program.folder.appendingPathComponent(path), encoding: .utf8).split(separator: "\n")
    }

    /// Interrupted after step 3 and resumed from the checkpoint, the records have each step once. Generating samples does
    /// not change what is trained.
    @Test func recordsAreBesideTheAdapter() throws {
        let program = try program()
        defer { program.remove() }
        let part = try train(program, ["--output", "out", "--samples", "2"], stop: "3")
        #expect(part.status == 143, "\(part.error)")
        let description = try JSON.read(program.folder.appendingPathComponent("out.checkpoint/runs/run.json"))
        #expect(description["state"] == "interrupted" && description["totalSteps"] == 4)
        let resumed = try train(program, ["--output", "out", "--samples", "2", "--resume"])
        #expect(resumed.status == 0, "\(resumed.error)")
        let rows = try lines(program, "out/runs/metrics.csv")
        #expect(rows.dropFirst().compactMap { $0.split(separator: ",").first } == ["1", "2", "2", "3", "4", "4"])
        let samples = try lines(program, "out/runs/samples.jsonl").map { try JSON.parse(Data($0.utf8), name: "line") }
        #expect(samples.map { $0["step"] } == [2, 4])
        #expect(samples.last?["samples"]?.array?.count == 2)
        #expect(samples.last?["samples"]?.array?.first?["prompt"]?.string?.contains("Tom 0") == true)
        #expect(try lines(program, "out/README.md").contains("library_name: peft"))

        let plain = try train(program, ["--output", "plain", "--log-dir", "logs/plain"])
        #expect(plain.status == 0, "\(plain.error)")
        #expect(program.files.contains("logs") && !program.files.contains("out.checkpoint"))
        let weights = try ["out", "plain"].map {
            try Data(contentsOf: program.folder.appendingPathComponent("\($0)/adapter_model.safetensors"))
        }
        #expect(weights[0] == weights[1])
        let again = try train(program, ["--output", "again", "--log-dir", "logs/plain"])
        #expect(again.status == 1 && again.error.contains("another --log-dir"), "\(again.error)")
        let without = try train(program, ["--output", "without", "--no-log", "--samples", "2"])
        #expect(without.status == 64 && without.error.contains("--no-log"), "\(without.error)")
    }

    @Test func aTrainedAdapterIsPushed() throws {
        let program = try program()
        defer { program.remove() }
        try program.write("adapter_config.json", #"{"peft_type": "LORA"}"#)
        let server = try HubServer(folder: program.folder)
        defer { server.stop() }
        let environment = ["HF_ENDPOINT": server.endpoint, "HF_TOKEN": "secret"]
        let arguments = ["push", ".", "owner/new", "--private"]
        let dry = try program.run(arguments + ["--dry-run"], environment: environment)
        #expect(dry.status == 0 && dry.output.contains("would create owner/new, private"), "\(dry.error)")
        #expect(dry.output.contains("would upload adapter_config.json (21 B)"), "\(dry.output)")
        #expect(dry.error.contains("README.md"), "\(dry.error)")
        let anonymous = try program.run(
            arguments, environment: ["HF_ENDPOINT": server.endpoint, "HF_TOKEN": "", "HF_HOME": "none"])
        #expect(anonymous.status == 1 && anonymous.error.contains("HF_TOKEN"), "\(anonymous.error)")
        let pushed = try program.run(arguments + ["--json"], environment: environment)
        #expect(pushed.status == 0, "\(pushed.error)")
        let result = try JSON.parse(Data(pushed.output.utf8), name: "output")
        #expect(result["created"] == true && result["commit"]?.string?.count == 40)
        let other = try program.run(["push", "llama/none", "owner/new"], environment: environment)
        #expect(other.status == 1 && other.error.contains("adapter_config.json"), "\(other.error)")
    }
}
