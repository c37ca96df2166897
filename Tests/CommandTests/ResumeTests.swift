import Foundation
import PEFTSupport
import TestSupport
import Testing

/// Runs that were interrupted, on a Llama of 16 hidden units and, where a method needs biases or a new head, a BERT.
struct ResumeTests {
    private func program() throws -> Program {
        let program = try Program()
        let rows = (0..<6).map {
            #"{"q": "Tom \#($0)", "a": "ran away \#($0)", "kind": "\#($0 % 2 == 0 ? "even" : "odd")"}"#
        }
        try program.write("rows.jsonl", rows.joined(separator: "\n"))
        let llama = Checkout.root.appendingPathComponent("Tests/TrainingTests/Fixtures/chat/model")
        try FileManager.default.copyItem(at: llama, to: program.folder.appendingPathComponent("llama"))
        let bert = Checkout.model("heads/bert")
        try FileManager.default.copyItem(at: bert, to: program.folder.appendingPathComponent("bert"))
        let vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + (5..<48).map { "word\($0)" }
        try program.write("bert/vocab.txt", vocabulary.joined(separator: "\n"))
        try program.write("bert/tokenizer_config.json", #"{"tokenizer_class": "BertTokenizer"}"#)
        return program
    }

    /// The options with those of `more` in place of the usual ones, as none may come twice.
    private func options(_ usual: [(String, String)], _ more: [String]) -> [String] {
        usual.filter { !more.contains($0.0) }.flatMap { [$0.0, $0.1] } + more
    }

    private func stopping(_ stop: String?) -> [String: String] { stop.map { ["PEFT_TEST_STOP": $0] } ?? [:] }

    private func train(_ program: Program, _ more: [String], stop: String? = nil) throws -> Program.Result {
        let usual = [
            ("--model", "llama"), ("--data", "rows.jsonl"), ("--prompt", "{q}"), ("--target", "{a}"),
            ("--batch-size", "2"),
            ("--steps", "4"), ("--validation", "rows.jsonl"), ("--validate-every", "2"),
        ]
        return try program.run(["train", "--quiet"] + options(usual, more), environment: stopping(stop))
    }

    /// What a run came to: its weights and its losses.
    private func result(_ program: Program, _ output: String) throws -> [Data] {
        let folder = program.folder.appendingPathComponent(output)
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path).filter {
            $0.hasSuffix(".safetensors")
        }
        #expect(!names.isEmpty)
        let record = try JSON.read(folder.appendingPathComponent("training.json"))
        return try names.sorted().map { try Data(contentsOf: folder.appendingPathComponent($0)) }
            + [Data((record["history"]?.text() ?? "").utf8)]
    }

    /// Every method with its default options: interrupted and resumed, it is the uninterrupted run. Without PEFT_ALL_LAWS,
    /// the methods with a state of their own, and every fifth other one: each run starts three programs.
    @Test func everyMethodResumes() throws {
        let program = try program()
        defer { program.remove() }
        let list = try JSON.parse(Data(program.run(["methods", "--json"]).output.utf8), name: "methods")
        let names = (list.array ?? []).compactMap { $0["name"]?.string }
        #expect(names.count > 25)
        let stateful = ["lora", "eva", "adalora", "p-tuning", "head", "full"]
        #expect(Set(stateful).isSubset(of: names))
        let isComplete = ProcessInfo.processInfo.environment["PEFT_ALL_LAWS"] != nil
        let methods = names.enumerated().filter { isComplete || stateful.contains($1) || $0 % 5 == 3 }.map(\.1)
        let needed = [
            "qalora": ["--group-size", "16"], "trainable_tokens": ["--trainable-tokens", "5,7"],
            "bitfit": ["--model", "bert", "--task", "classification", "--target", "{kind}"],
            "head": ["--model", "bert", "--task", "classification", "--target", "{kind}"],
            // Sizes that divide 16 and that fit projections of 16 × 8.
            "psoft": ["--rank", "4"], "miss": ["--rank", "4"], "shira": ["--rank", "2"],
            "c3a": ["--block-size", "4"], "road": ["--group-size", "4"],
            "fourierft": ["--frequencies", "30"], "waveft": ["--frequencies", "30"],
            "vblora": ["--vector-length", "4"],
        ]
        DispatchQueue.concurrentPerform(iterations: methods.count) { index in
            let method = methods[index]
            let options = ["--method", method] + (needed[method] ?? [])
            do {
                let whole = try train(program, options + ["--output", "\(method)-whole"])
                #expect(whole.status == 0, "\(method): \(whole.error)")
                let part = try train(program, options + ["--output", method], stop: "2")
                #expect(part.status == 143 && part.error.contains("after step 2"), "\(method): \(part.error)")
                let resumed = try train(program, options + ["--output", method, "--resume"])
                #expect(resumed.status == 0, "\(method): \(resumed.error)")
                guard resumed.status == 0, whole.status == 0 else { return }
                #expect(try result(program, method) == result(program, "\(method)-whole"), "\(method)")
            } catch { Issue.record("\(method): \(error)") }
        }
        #expect(!program.files.contains { $0.hasSuffix(".checkpoint") || $0.contains(".tmp") }, "\(program.files)")
    }

    @Test func anotherSettingIsNamedWithBothValues() throws {
        let program = try program()
        defer { program.remove() }
        #expect(try train(program, ["--output", "out"], stop: "2").status == 143)
        for (options, message) in [
            (["--dropout", "0.5"], "--dropout 0, but this run uses 0.5"),
            (["--batch-size", "3"], "--batch-size 2, but this run uses 3"),
            (["--accumulate", "2"], "--accumulate 1, but this run uses 2"),
            (["--targets", "q_proj"], "but this run uses q_proj"),
            (["--method", "ia3"], "--method lora, but this run uses ia3"),
        ] {
            let result = try train(program, ["--output", "out", "--resume"] + options)
            #expect(result.status == 1 && result.error.contains(message), "\(result.error)")
            let lines = result.error.split(separator: "\n").filter { !$0.hasPrefix("warning: ") }
            #expect(lines.count == 1, "\(result.error)")
        }
        #expect(try train(program, ["--output", "out", "--resume"]).status == 0)
    }

    /// A hang-up and a broken pipe save a checkpoint as SIGTERM does.
    @Test(arguments: [SIGINT, SIGTERM, SIGHUP, SIGPIPE]) func signalsSaveACheckpoint(signal: Int32) throws {
        let program = try program()
        defer { program.remove() }
        let result = try train(program, ["--output", "out"], stop: "3:\(signal)")
        #expect(result.status == 128 + signal && result.error.contains("after step 3"), "\(result.error)")
        #expect(try train(program, ["--output", "out", "--resume"]).status == 0)
        #expect(!program.files.contains("out.checkpoint"))
    }

    @Test func twoRunsDoNotShareAnOutput() throws {
        let program = try program()
        defer { program.remove() }
        #expect(try train(program, ["--output", "out"], stop: "2").status == 143)
        let folder = program.folder.appendingPathComponent("out.checkpoint")
        do {
            let lock = try FolderLock.hold(folder)
            defer { withExtendedLifetime(lock) {} }
            let result = try train(program, ["--output", "out", "--resume"])
            #expect(result.status == 1 && result.error.contains("process \(getpid()) on "), "\(result.error)")
        }
        #expect(try train(program, ["--output", "out", "--resume"]).status == 0)
    }

    /// A run that fails before its first checkpoint leaves nothing beside its output.
    @Test func failedRunsLeaveNothing() throws {
        let program = try program()
        defer { program.remove() }
        let before = program.files
        #expect(try train(program, ["--output", "out", "--lr", "1e30", "--steps", "50"]).status == 1)
        #expect(try train(program, ["--output", "out", "--rank", "0"]).status == 64)
        #expect(program.files == before, "\(program.files)")
    }

    // MARK: Comparisons

    private func compare(_ program: Program, _ more: [String], stop: String? = nil) throws -> Program.Result {
        let usual = [
            ("--model", "llama"), ("--data", "rows.jsonl"), ("--test", "rows.jsonl"), ("--prompt", "{q}"),
            ("--target", "{a}"), ("--steps", "2"), ("--batch-size", "2"), ("--max-new-tokens", "2"), ("--lr", "1e-3"),
            ("--seeds", "2"),
        ]
        return try program.run(["compare", "--quiet"] + options(usual, more), environment: stopping(stop))
    }

    private func figures(_ program: Program, _ file: String) throws -> [JSON] {
        let report = try JSON.read(program.folder.appendingPathComponent(file))
        return (report["runs"] ?? report["points"])?.array?.map { entry in
            let run = entry["run"] ?? entry
            return [
                "label": run["label"] ?? .null, "quality": run["quality"] ?? .null, "loss": run["loss"] ?? .null,
                "curves": run["curves"] ?? .null, "trainable": run["trainable"] ?? .null,
            ]
        } ?? []
    }

    /// The base and the first method are finished when the run is stopped; the same command goes on from there.
    @Test func comparisonsResume() throws {
        let program = try program()
        defer { program.remove() }
        let methods = ["--methods", "base,lora(rank=2),ia3"]
        let whole = try compare(program, methods + ["--output", "whole.json", "--keep", "whole"])
        #expect(whole.status == 0, "\(whole.error)")
        let options = methods + ["--output", "part.json", "--html", "part.html", "--keep", "kept"]
        // In the first step of the last seed: two of each seed before.
        let part = try compare(program, options, stop: "7")
        #expect(part.status == 143, "\(part.error)")
        #expect(!program.files.contains("part.json") && program.files.contains("part.json.checkpoint"))
        let soFar = try program.run(["compare", "--from", "part.json.checkpoint/report.json", "--json"])
        #expect(soFar.status == 0 && soFar.output.contains("LoRA"), "\(soFar.error)")

        let anew = try compare(program, options)
        #expect(anew.status == 1)
        let other = try compare(program, options + ["--resume", "--seeds", "3"])
        #expect(other.status == 1 && other.error.contains("seeds 2, but this run uses 3"), "\(other.error)")

        let lora = program.folder.appendingPathComponent("kept/lora-seed-42/adapter_model.safetensors")
        let written = try FileManager.default.attributesOfItem(atPath: lora.path)[.modificationDate] as? Date
        let resumed = try compare(program, options + ["--resume"])
        #expect(resumed.status == 0, "\(resumed.error)")
        #expect(try figures(program, "part.json") == figures(program, "whole.json"))
        let report = try JSON.read(program.folder.appendingPathComponent("part.json"))
        #expect(report["runs"]?.array?.contains { $0["differences"]?.array?.isEmpty == false } == true)
        // The finished run was not repeated, and all adapters are there and work.
        #expect(try FileManager.default.attributesOfItem(atPath: lora.path)[.modificationDate] as? Date == written)
        for name in ["lora-seed-42", "lora-seed-43", "ia3-seed-42", "ia3-seed-43"] {
            for part in ["adapter_model.safetensors", "adapter_config.json"] {
                let (a, b) = ("kept/\(name)/\(part)", "whole/\(name)/\(part)")
                #expect(
                    try Data(contentsOf: program.folder.appendingPathComponent(a))
                        == Data(contentsOf: program.folder.appendingPathComponent(b)))
            }
        }
        let evaluation = try program.run([
            "evaluate", "--adapter", "kept/lora-seed-42", "--data", "rows.jsonl", "--max-new-tokens", "1", "--quiet",
        ])
        #expect(evaluation.status == 0, "\(evaluation.error)")
        let together = try compare(program, methods + ["--output", "together.json", "--jobs", "3"])
        #expect(together.status == 0, "\(together.error)")
        #expect(try figures(program, "together.json") == figures(program, "whole.json"))
        #expect(!program.files.contains { $0.hasSuffix(".checkpoint") }, "\(program.files)")
    }

    @Test func sweepsResume() throws {
        let program = try program()
        defer { program.remove() }
        func sweep(_ more: [String], stop: String? = nil) throws -> Program.Result {
            try program.run(
                [
                    "sweep", "--model", "llama", "--data", "rows.jsonl", "--test", "rows.jsonl", "--prompt", "{q}",
                    "--target", "{a}", "--steps", "2", "--batch-size", "2", "--max-new-tokens", "2", "--lr", "1e-3",
                    "--values", "1,2,3", "--seeds", "2", "--quiet",
                ] + more, environment: stopping(stop))
        }
        func similarity(_ file: String) throws -> JSON? {
            try JSON.read(program.folder.appendingPathComponent(file))["similarity"]
        }
        let whole = try sweep(["--output", "whole.json"])
        #expect(whole.status == 0, "\(whole.error)")
        let options = ["--output", "part.json", "--keep", "kept", "--resume"]
        #expect(try sweep(options, stop: "9").status == 143)
        let resumed = try sweep(options)
        #expect(resumed.status == 0, "\(resumed.error)")
        // Each process stops in its second seed; the first ones are not repeated.
        let parallel = ["--output", "parallel.json", "--resume", "--jobs", "2"]
        let stopped = try sweep(parallel, stop: "3")
        #expect(stopped.status == 1 && stopped.error.contains("add --resume to run the rest"), "\(stopped.error)")
        #expect(try sweep(parallel).status == 0)
        #expect(try figures(program, "parallel.json") == figures(program, "whole.json"))
        #expect(try similarity("parallel.json") == similarity("whole.json"))
        #expect(try figures(program, "part.json") == figures(program, "whole.json"))
        #expect(try similarity("part.json") == similarity("whole.json"))
    }
}
