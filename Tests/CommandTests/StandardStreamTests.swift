import Foundation
import PEFTSupport
import TestSupport
import Testing

/// Closed, full and broken standard streams, and outputs that can't be written.
struct StandardStreamTests {
    private func program() throws -> Program {
        let program = try Program()
        let rows = (0..<4).map { #"{"q": "Tom \#($0)", "a": "ran away \#($0)"}"# }
        try program.write("rows.jsonl", rows.joined(separator: "\n"))
        let model = Checkout.root.appendingPathComponent("Tests/TrainingTests/Fixtures/chat/model")
        try FileManager.default.copyItem(at: model, to: program.folder.appendingPathComponent("llama"))
        return program
    }

    private let training = [
        "train", "--model", "llama", "--data", "rows.jsonl", "--prompt", "{q}", "--target", "{a}", "--steps", "2",
        "--output", "out",
    ]

    /// Progress that is lost ends nothing; the model's files are not written over.
    @Test(arguments: ["2>&-", "2>/dev/full", "<&- 2>&-", "<&- >&- 2>&-"]) func progressMayBeLost(redirections: String)
        throws
    {
        let program = try program()
        defer { program.remove() }
        let model = program.folder.appendingPathComponent("llama/model.safetensors")
        let before = try Data(contentsOf: model)
        let result = try program.run(training, redirections: redirections)
        // Without standard output the result is lost, and the adapter isn't.
        #expect(result.status == (redirections.contains(">&- 2") ? 1 : 0), "\(result.error)")
        #expect(program.files.contains("out"))
        #expect(try Data(contentsOf: model) == before)
        let rows = try String(contentsOf: program.folder.appendingPathComponent("rows.jsonl"), encoding: .utf8)
        #expect(rows.hasPrefix(#"{"q": "Tom 0""#))
    }

    @Test(arguments: [
        ["methods"], ["methods", "--json"], ["--help"], ["train", "--help"], ["--version"],
        ["inspect", "llama"], ["inspect", "llama", "--json"],
        ["generate", "--model", "llama", "--no-chat", "--max-new-tokens", "2", "Tom"],
        ["generate", "--model", "llama", "--no-chat", "--max-new-tokens", "2", "--json", "Tom"],
    ]) func lostResultsAreErrors(arguments: [String]) throws {
        let program = try program()
        defer { program.remove() }
        for redirections in [">/dev/full", ">&-"] {
            let result = try program.run(arguments, redirections: redirections)
            #expect(result.status == 1, "\(arguments) \(redirections)")
            #expect(result.error.contains("can't write the result to standard output"), "\(result.error)")
        }
        let result = try program.run(arguments)
        #expect(result.status == 0, "\(result.error)")
    }

    @Test func aClosedStandardInputIsAnError() throws {
        let program = try program()
        defer { program.remove() }
        let result = try program.run(["generate", "--model", "llama", "--no-chat"], redirections: "<&-")
        #expect(result.status == 1 && result.error.contains("can't read standard input"), "\(result.error)")
    }

    /// Nothing is overwritten, and what can't be written is an error before the work.
    @Test func outputsAreCheckedFirst() throws {
        let program = try program()
        defer { program.remove() }
        try program.write("taken", "mine")
        for name in ["taken.gguf", "taken.jsonl"] { try program.write(name, "mine") }
        let before = program.files
        let templates = ["--prompt", "{q}", "--target", "{a}", "--quiet"]
        let compared =
            ["--model", "llama", "--data", "rows.jsonl", "--test", "rows.jsonl", "--lr", "1e-3"] + templates
        let commands: [([String], String)] = [
            (["train", "--model", "llama", "--data", "rows.jsonl"] + templates, "--output"),
            (["evaluate", "--model", "llama", "--data", "rows.jsonl"] + templates, "--predictions"),
            (["compare"] + compared, "--html"), (["compare"] + compared, "--output"),
            (["compare"] + compared, "--keep"), (["sweep"] + compared, "--html"), (["sweep"] + compared, "--output"),
            (["quantize", "--model", "llama", "--group", "-1"], "--output"),
            (["quantize", "--model", "llama", "--to", "nf4"], "--output"),
            (["merge", "nowhere"], "--output"), (["combine", "nowhere"], "--output"),
            (["convert", "llama"], "--output"), (["neighbors", "nowhere"], "--output"),
        ]
        for (command, option) in commands {
            let taken = try program.run(command + [option, "taken"])
            #expect(taken.status == 1 && taken.error.contains("taken exists"), "\(command): \(taken.error)")
            // A file stands where a folder has to be.
            let impossible = try program.run(command + [option, "taken/out"])
            #expect(
                impossible.status == 1 && impossible.error.contains("taken/out"), "\(command): \(impossible.error)")
            for result in [taken, impossible] {
                #expect(result.error.split(separator: "\n").count == 1, "\(command): \(result.error)")
            }
        }
        for (command, name) in [
            (["quantize", "--model", "llama", "--to", "gguf"], "taken.gguf"), (["predict", "text"], "taken.jsonl"),
            (["generate", "--model", "llama", "--data", "rows.jsonl", "--prompt", "{q}"], "taken.jsonl"),
        ] {
            let file = try program.run(command + ["--output", name])
            #expect(file.status == 1 && file.error.contains("\(name) exists"), "\(file.error)")
        }
        #expect(program.files == before, "\(program.files)")
        let device = try program.run(
            [
                "evaluate", "--model", "llama", "--data", "rows.jsonl", "--max-new-tokens", "1", "--predictions",
                "/dev/full",
            ]
                + templates)
        #expect(device.status == 1 && device.error.contains("/dev/full"), "\(device.error)")
    }

    /// `print` and `FileHandle` neither report nor survive a failed write; `StandardStreams` does both.
    @Test func oneWayToTheStandardStreams() throws {
        let sources = Checkout.root.appendingPathComponent("Sources")
        let files = FileManager.default.enumerator(at: sources, includingPropertiesForKeys: nil)
        var found: [String] = []
        for case let file as URL in try #require(files) where file.pathExtension == "swift" {
            let text = try String(contentsOf: file, encoding: .utf8)
            let isProgram = file.path.contains("/Sources/CLI/")
            for line in text.split(separator: "\n") where !line.contains("//") {
                let usesHandle = line.contains("FileHandle.standard") || line.contains("readDataToEndOfFile")
                let prints =
                    line.contains(#/(^|[^\w.])(fputs|fwrite|printf|readLine)\(/#)
                    || !isProgram && line.contains(#/(^|[^\w.])print\(/#)
                if usesHandle || prints, !line.contains("func readLine") {
                    found.append("\(file.lastPathComponent):\(line)")
                }
            }
        }
        #expect(found.isEmpty, "\(found)")
    }
}
