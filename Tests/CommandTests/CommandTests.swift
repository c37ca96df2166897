import Foundation
import PEFTSupport
import TestSupport
import Testing

#if canImport(FoundationXML)
    import FoundationXML
#endif

private let rows = (0..<6).map { index in
    ##"{"talk": "#Person1#: Hello \##(index). #Person2#: Hi.", "short": "They greet \##(index)."}"##
}

@Suite(.serialized)
struct CommandTests {
    private func train(_ program: Program, _ more: [String]) throws -> Program.Result {
        try program.run(
            ["train"] + (more.contains("--model") ? [] : ["--model", program.model])
                + ["--prompt", "Summarize: {talk}", "--target", "{short}", "--quiet"] + more)
    }

    @Test func trainEvaluateGenerateAndInspect() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("rows.jsonl", rows.joined(separator: "\n"))
        let training = try train(
            program,
            [
                "--data", "rows.jsonl", "--validation", "rows.jsonl", "--rank", "4", "--targets", "q,v", "--steps",
                "3",
                "--batch-size", "2", "--output", "adapter", "--json",
            ])
        #expect(training.status == 0, "\(training.error)")
        let record = try JSON.parse(Data(training.output.utf8), name: "output")
        #expect(record["trainable"]?.int == 2 * 24 * 4 * 256)
        #expect(program.files == ["adapter", "rows.jsonl"])
        let adapter = try FileManager.default.contentsOfDirectory(
            atPath: program.folder.appendingPathComponent("adapter").path)
        #expect(
            adapter.sorted() == [
                "README.md", "adapter_config.json", "adapter_model.safetensors", "runs", "training.json",
            ])

        // The adapter brings its base and its templates.
        let evaluation = try program.run(
            ["evaluate", "--adapter", "adapter", "--data", "rows.jsonl", "--max-new-tokens", "4", "--json"])
        #expect(evaluation.status == 0, "\(evaluation.error)")
        let quality = try JSON.parse(Data(evaluation.output.utf8), name: "output")["quality"]?.object
        #expect(
            quality?.keys.sorted() == [
                "bleu", "cider", "detailRecall", "exactMatch", "meteor", "nist", "perplexity", "rouge1", "rouge2",
                "rougeL",
                "rougeLsum",
            ])

        let merged = try program.run(
            [
                "generate", "--adapter", "adapter", "--merge", "--field", "talk=Hello", "--max-new-tokens", "4",
                "--json",
            ])
        let unmerged = try program.run(
            ["generate", "--adapter", "adapter", "--field", "talk=Hello", "--max-new-tokens", "4", "--json"])
        let texts = try [merged, unmerged].map {
            try JSON.parse(Data($0.output.utf8), name: "output")["output"]?.string
        }
        #expect(texts[0] != nil && texts[0] == texts[1])

        let inspection = try program.run(["inspect", "adapter", "--json"])
        #expect(try JSON.parse(Data(inspection.output.utf8), name: "output")["parameters"]?.int == 2 * 24 * 4 * 256)

        // The folder exists now, and stays as it is.
        let again = try train(program, ["--data", "rows.jsonl", "--steps", "1", "--output", "adapter"])
        #expect(again.status == 1 && again.error.contains("exists"))
    }

    @Test func compareReportsEveryMethod() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("rows.jsonl", rows.joined(separator: "\n"))
        let result = try program.run([
            "compare", "--model", program.model, "--methods", "base,full,lora(rank=2,targets=q+v)", "--data",
            "rows.jsonl",
            "--test", "rows.jsonl", "--prompt", "Summarize: {talk}", "--target", "{short}", "--lr",
            "full=1e-4,lora=1e-3",
            "--steps", "2", "--batch-size", "2", "--max-new-tokens", "3", "--html", "report.html", "--json",
            "--quiet",
        ])
        #expect(result.status == 0, "\(result.error)")
        let runs = try #require(try JSON.parse(Data(result.output.utf8), name: "output")["runs"]?.array)
        #expect(runs.compactMap { $0["method"]?.string } == ["base", "full", "lora"])
        #expect(runs.compactMap { $0["trainable"]?.int } == [0, 8_371_968, 2 * 24 * 2 * 256])
        for run in runs {
            #expect(run["quality"]?["rouge1"]?["mean"]?.double != nil)
            #expect((run["inference"]?["merged"]?.double ?? 0) > 0)
        }
        #expect(runs.dropFirst().allSatisfy { ($0["tokensPerSecond"]?.double ?? 0) > 0 })
        let page = try String(contentsOf: program.folder.appendingPathComponent("report.html"), encoding: .utf8)
        for run in runs { #expect(page.contains(try #require(run["label"]?.string))) }
        #expect(XMLParser(data: Data(page.utf8)).parse())
        #expect(page.contains("<svg") && page.contains("<table"))
    }

    /// Every mistake ends in one line that names it, exit code 1 (64 where the options alone tell), and no new file.
    @Test(arguments: [
        (["--data", "rows.jsonl", "--targets", "qq"], "did you mean 'q'?"),
        (["--data", "rows.jsonl", "--rank", "0"], "--rank is '0'"),
        (["--data", "rows.jsonl", "--method", "laro"], "did you mean 'lora'?"),
        (["--data", "empty.jsonl"], "empty.jsonl"),
        (["--data", "broken.jsonl"], "broken.jsonl line 2"),
        (["--data", "missing.jsonl"], "missing.jsonl"),
        (["--data", "rows.jsonl", "--learning-rate", "0"], "learning rate must be positive"),
        (["--data", "rows.jsonl", "--schedule", "cosin"], "did you mean 'cosine'?"),
        (["--data", "rows.jsonl", "--model", "nowhere"], "there is no model 'nowhere'"),
        (["--data", "rows.jsonl", "--model", "typeless"], "has no 'model_type'"),
        (["--data", "rows.jsonl", "--model", "cut"], "is truncated"),
        (["--data", "rows.jsonl", "--device", "tpu"], "unknown device 'tpu'"),
        (["--data", "rows.jsonl", "--patience", "2"], "--validation"),
    ])
    func mistakesAreOneClearLine(arguments: [String], message: String) throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("rows.jsonl", rows.joined(separator: "\n"))
        try program.write("empty.jsonl", "")
        try program.write("broken.jsonl", rows[0] + "\n{\"talk\": \"Hello\", \n")
        for name in ["typeless", "cut"] {
            try FileManager.default.createDirectory(
                at: program.folder.appendingPathComponent(name), withIntermediateDirectories: true)
        }
        try program.write("typeless/config.json", "{}")
        for name in try FileManager.default.contentsOfDirectory(atPath: program.model) {
            let source = URL(fileURLWithPath: program.model).appendingPathComponent(name)
            let target = program.folder.appendingPathComponent("cut/\(name)")
            if name == "model.safetensors" {
                try Data(contentsOf: source).prefix(1_000_000).write(to: target)
            } else {
                try FileManager.default.copyItem(at: source, to: target)
            }
        }
        let before = program.files
        let result = try train(program, arguments + ["--steps", "1", "--output", "out"])
        let isUsage = !Set(["--rank", "--method", "--learning-rate", "--schedule"]).isDisjoint(with: arguments)
        #expect(result.status == (isUsage ? 64 : 1))
        #expect(result.error.contains(message), "\(result.error)")
        #expect(result.error.split(separator: "\n").count == 1, "\(result.error)")
        // A run that never began leaves at most the empty folder for its checkpoints.
        let left = program.files.filter { !before.contains($0) }
        #expect(left.isEmpty, "\(left)")
    }

    @Test func unknownTemplateFieldsAndOptions() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("rows.jsonl", rows.joined(separator: "\n"))
        let field = try program.run([
            "train", "--model", program.model, "--data", "rows.jsonl", "--prompt", "{tlak}", "--target", "{short}",
            "--output", "out",
        ])
        #expect(field.status == 1 && field.error.contains("talk"), "\(field.error)")
        let option = try train(program, ["--data", "rows.jsonl", "--rnak", "3", "--output", "out"])
        #expect(option.status == 64 && option.error.contains("--rank"), "\(option.error)")
        #expect(program.files == ["rows.jsonl"])
    }

    @Test func yamlOptionsGiveWayToTheCommandLine() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("rows.jsonl", rows.joined(separator: "\n"))
        try program.write("run.yaml", "data: rows.jsonl\nrank: 4\ntargets: [q, v]\nsteps: 9\nbatch-size: 2\n")
        let result = try train(program, ["--config", "run.yaml", "--steps", "1", "--output", "out", "--json"])
        #expect(result.status == 0, "\(result.error)")
        let record = try JSON.parse(Data(result.output.utf8), name: "output")
        #expect(record["configuration"]?["steps"]?.int == 1)
        #expect(record["methodFields"]?["rank"]?.int == 4)
    }

    /// A limit on the size of files stands in for a full disk: both make a write fail in the middle.
    @Test func aFailedWriteLeavesNothingHalfWritten() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("rows.jsonl", rows.joined(separator: "\n"))
        let result = try program.run(
            [
                "train", "--model", program.model, "--data", "rows.jsonl", "--prompt", "{talk}", "--target",
                "{short}",
                "--rank", "8", "--steps", "1", "--output", "out", "--quiet",
            ], fileSizeLimit: 64)
        #expect(result.status == 1)
        #expect(
            result.error.split(separator: "\n").count == 1 && result.error.contains("can't write"), "\(result.error)")
        #expect(!program.files.contains("out"))
        #expect(!program.files.contains { $0.contains(".tmp") }, "\(program.files)")
    }
}
