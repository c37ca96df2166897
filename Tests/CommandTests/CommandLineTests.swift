import Foundation
import PEFTSupport
import Testing

/// What is refused, warned of and shown before a command runs.
@Suite(.serialized)
struct CommandLineTests {
    private static let commands = [
        "train", "evaluate", "generate", "predict", "compare", "sweep", "plan", "inspect", "verify", "merge",
        "quantize",
        "combine", "convert", "neighbors", "methods", "pull",
    ]

    private static let train = [
        "train", "--data", "rows.jsonl", "--prompt", "{a}", "--target", "{b}", "--output", "out",
    ]

    private static let mistakes: [([String], String)] = [
        // Repeats of what takes one value, by either of its names.
        (train + ["--rank", "4", "--rank", "8"], "--rank is given twice, as '4' and '8'"),
        (train + ["--lr", "1e-3", "--learning-rate", "2e-3"], "is given twice"),
        (train + ["--model", "a", "-m", "b"], "-m is given twice"),
        (["merge", "a", "--output", "b", "--output=c"], "--output is given twice"),
        (train + ["--config", "a.yaml", "--config", "b.yaml"], "--config is given twice"),
        // Names of other programs.
        (train + ["--num-train-epochs", "3"], "it is --epochs here"),
        (train + ["--per_device_train_batch_size", "3"], "it is --batch-size here"),
        (train + ["--lora_r=3"], "it is --rank here"),
        (train + ["--lora_alpha", "3"], "it is --alpha here"),
        (train + ["--learning_rate", "3"], "it is --lr here"),
        (train + ["--gradient_accumulation_steps", "3"], "it is --accumulate here"),
        (train + ["--target_modules", "q"], "it is --targets here"),
        (train + ["--iters", "3"], "it is --steps here"),
        (train + ["--save_total_limit", "3"], "remove it"),
        (["generate", "--adapter-path", "a"], "it is --adapter here"),
        // Typing errors, and what resembles nothing.
        (train + ["--rnak", "3"], "did you mean --rank?"),
        (train + ["--batch_size", "3"], "did you mean --batch-size?"),
        (train + ["--wombat", "3"], "peft train --help lists the options"),
        (train + ["--method", "loar"], "did you mean 'lora'?"),
        (train + ["--method", "dpo"], "use one of"),
        (["trian"], "did you mean 'train'?"),
        // Values.
        (train + ["--lr", "-1"], "the learning rate must be positive (got -1.0)"),
        (train + ["--rank", "-1"], "--rank is '-1'"),
        (train + ["--rank", "0"], "--rank is '0'"),
        (train + ["--warmup", "-3"], "must not be negative (got -3.0)"),
        (train + ["--schedule", "cosin"], "did you mean 'cosine'?"),
        (train + ["--batch-size", "0"], "the batch size must be at least 1 (got 0)"),
        (train + ["--threads", "0"], "--threads must be at least 1 (got 0)"),
        (train + ["--epochs", "many"], "'many' is invalid"),
        (train + ["--rank", "--rslora"], "--rank has no value"),
        (train + ["--lr"], "--lr has no value"),
        (train + ["--weights", "x4"], "x4"),
        (["train", "--data", "rows.jsonl"], "--output"),
        (["evaluate"], "--data"),
        // Words without their option.
        (["quantize", "tiny-t5", "--output", "out"], "write --model tiny-t5"),
        (["evaluate", "rows.jsonl"], "write --data rows.jsonl"),
        (["generate", "--beams", "0", "x"], "beams"),
        (["generate", "--output", "a.jsonl", "x"], "--data"),
        (["generate", "--data", "rows.jsonl", "--output", "a.parquet"], "unknown extension"),
        (["inspect", "--rank", "4"], "--method"),
    ]

    @Test func wrongUsageIsOneLineAndExitCode64() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("rows.jsonl", #"{"a": "x", "b": "y"}"#)
        for (arguments, message) in Self.mistakes {
            let result = try program.run(arguments)
            #expect(result.status == 64, "\(arguments) \(result.error)")
            #expect(result.error.contains(message), "\(arguments) \(result.error)")
            #expect(result.error.split(separator: "\n").count == 1, "\(arguments) \(result.error)")
        }
        #expect(program.files == ["rows.jsonl"])
    }

    /// Keys that ask the program about itself would end a run that never began.
    @Test(arguments: [
        ("version: 1", "'version' is not a setting"), ("help: true", "'help' is not a setting"),
        ("num_train_epochs: 3", "it is 'epochs' here"), ("rnak: 3", "did you mean 'rank'?"),
        ("lr: 1e-3\nlearning-rate: 1e-4", "is given twice"), ("resume: maybe", "use true or false"),
        ("{\"version\": 1}", "'version' is not a setting"),
    ])
    func configurationFilesHoldOptionsAlone(text: String, message: String) throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("run.yaml", text)
        let result = try program.run(Self.train + ["--config", "run.yaml"])
        #expect(result.status == 64 && result.output.isEmpty, "\(result)")
        #expect(result.error.contains("run.yaml: ") && result.error.contains(message), "\(result.error)")
    }

    @Test func failuresOfFilesAreExitCode1() throws {
        let program = try Program()
        defer { program.remove() }
        #expect(try program.run(["inspect", "nowhere"]).status == 1)
        #expect(try program.run(Self.train + ["--model", program.model]).status == 1)
        #expect(try program.run(Self.train + ["--config", "nowhere.yaml"]).status == 1)
    }

    @Test func helpFitsATerminalAndBeginsWithWhatMostRunsNeed() throws {
        let program = try Program()
        defer { program.remove() }
        for command in Self.commands {
            let help = try program.run([command, "--help"])
            #expect(help.status == 0 && help.error.isEmpty, "\(command)")
            for line in help.output.split(separator: "\n") { #expect(line.count <= 80, "\(command): \(line)") }
            #expect(!help.output.contains("mpt  "), "\(command) lists methods")
            #expect(help.output.contains("--quiet") && help.output.contains("--config"), "\(command)")
            #expect(try program.run(["help", command]).output == help.output)
        }
        let help = try program.run(["train", "--help"]).output
        let train = help[try #require(help.range(of: "Common options:")).lowerBound...]
        let places = [
            "--model <", "--method <", "--data <", "--rank <", "--alpha <", "--targets <", "--output <", "--epochs <",
            "--steps <", "--lr, ", "--batch-size <", "--prompt <", "--target <", "--weight-decay <", "--device <",
        ].map { train.range(of: $0)?.lowerBound }
        #expect(places.allSatisfy { $0 != nil })
        #expect(zip(places, places.dropFirst()).allSatisfy { ($0 ?? train.startIndex) < ($1 ?? train.startIndex) })
        for arguments in [["methods"], ["methods", "lora"]] {
            for line in try program.run(arguments).output.split(separator: "\n") {
                #expect(line.count <= 80, "\(line)")
            }
        }
        for line in try program.run(["--help"]).output.split(separator: "\n") { #expect(line.count <= 80, "\(line)") }
    }

    /// No other command's help lists the methods; those that take one refer to `peft methods`.
    @Test func methodsAreListedInOnePlace() throws {
        let program = try Program()
        defer { program.remove() }
        let json = try JSON.parse(Data(program.run(["methods", "--json"]).output.utf8), name: "methods")
        let names = try #require(json.array).compactMap { $0["name"]?.string }
        #expect(names.contains("lora") && names.contains("full"))
        let table = try program.run(["methods"]).output.split(separator: "\n").map(String.init)
        for name in names { #expect(table.contains { $0.hasPrefix("  \(name) ") }, "\(name)") }
        // The default rank stands beside the name.
        #expect(table.contains { $0.contains(#/^  lora +8  /#) }, "\(table)")
        let lora = try program.run(["methods", "lora"])
        #expect(lora.status == 0 && lora.output.hasPrefix("lora: "), "\(lora)")
        #expect(["--rank ", "--alpha ", "--targets "].allSatisfy { lora.output.contains("\n  \($0)") }, "\(lora)")
        let unknown = try program.run(["methods", "laro"])
        #expect(unknown.status != 0 && unknown.error.contains("did you mean 'lora'?"), "\(unknown.error)")
        for command in ["train", "compare", "sweep", "inspect", "plan"] {
            let words = try program.run([command, "--help"]).output.split(whereSeparator: \.isWhitespace)
            #expect(words.joined(separator: " ").contains("see peft methods"), "\(command)")
        }
    }

    @Test func whatHasNoEffectIsSaid() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("rows.jsonl", #"{"a": "Hello there", "b": "Hi"}"#)
        let result = try program.run(
            Self.train + [
                "--model", program.model, "--quiet", "--steps", "1", "--epochs", "2", "--warmup", "500", "--layers",
                "0-99", "--targets", "q", "--rank", "1",
            ])
        #expect(result.status == 0, "\(result.error)")
        let lines = result.error.split(separator: "\n")
        #expect(lines.count == 3, "\(result.error)")
        #expect(lines.contains { $0.contains("--epochs has no effect: --steps overrides it") })
        #expect(lines.contains { $0.contains("--warmup is 500 steps but the run has 1 step;") })
        #expect(lines.contains { $0.contains("--layers names") && $0.contains("its layers are 0 to") })
        #expect(result.output.contains("1 step in"), "\(result.output)")
    }

    /// A dash at the beginning makes no option of a value.
    @Test func valuesMayBeginWithADash() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("rows.jsonl", #"{"a": "Hello", "b": "Hi"}"#)
        let result = try program.run([
            "train", "--data", "rows.jsonl", "--prompt", "- {a}", "--target", "-{b}", "--model", program.model,
            "--show-batch",
        ])
        #expect(result.status == 0 && result.output.contains("- Hello"), "\(result)")
    }

    /// What a file commands a terminal is spelled out in errors.
    @Test func errorsHoldNoControlCharacters() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("rows.jsonl", "{\"a\\u001b[2J\\u0007\": \"x\"}")
        let result = try program.run(Self.train + ["--model", program.model])
        #expect(result.status == 1)
        #expect(result.error.contains("\\u{1b}[2J\\u{7}"), "\(result.error)")
        #expect(!result.error.unicodeScalars.contains { $0.value < 0x20 && $0 != "\n" })
    }
}
