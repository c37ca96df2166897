import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import PEFTCommand

/// The runs of a comparison or a sweep in processes that a launcher starts, or as a Slurm job array.
struct DividedRunsTests {
    private static let sweep = [
        "sweep", "--model", "llama", "--data", "rows.jsonl", "--test", "rows.jsonl", "--prompt", "{q}", "--target",
        "{a}", "--steps", "1", "--batch-size", "2", "--max-new-tokens", "1", "--lr", "1e-3", "--values", "1,2",
        "--seeds", "1", "--quiet",
    ]

    private func figures(_ program: Program, _ file: String) throws -> JSON {
        let report = try JSON.read(program.folder.appendingPathComponent(file))
        let points = (report["points"]?.array ?? []).map { point -> JSON in
            let run = point["run"] ?? point
            return [
                "quality": run["quality"] ?? .null, "loss": run["loss"] ?? .null, "curves": run["curves"] ?? .null,
            ]
        }
        return ["points": .array(points), "similarity": report["similarity"] ?? .null]
    }

    /// A program in place of Slurm's, which runs a job at once.
    private func writeSbatch(_ program: Program) throws {
        try program.write(
            "sbatch",
            """
            #!/bin/bash
            for word in "$@"; do
                case $word in
                --array=*) array=${word#--array=} ;;
                --*) ;;
                *) words+=("$word") ;;
                esac
            done
            echo "sbatch $*" >> jobs
            if [ -z "${array:-}" ]; then bash "${words[@]}" >&2 || exit 1; fi
            for task in $([ -z "${array:-}" ] || seq "${array%-*}" "${array#*-}"); do
                SLURM_ARRAY_TASK_ID=$task bash "${words[@]}" >&2 || exit 1
            done
            echo 17
            """)
        let attributes: [FileAttributeKey: Any] = [.posixPermissions: 0o755]
        try FileManager.default.setAttributes(
            attributes, ofItemAtPath: program.folder.appendingPathComponent("sbatch").path)
    }

    private func bash(_ program: Program, _ words: [String]) throws -> (status: Int32, output: String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/bash")
        process.arguments = words
        process.currentDirectoryURL = program.folder
        var environment = Program.environment
        environment["PATH"] = "\(program.folder.path):\(environment["PATH"] ?? "/usr/bin:/bin")"
        process.environment = environment
        let output = Pipe()
        (process.standardOutput, process.standardError) = (output, output)
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return (process.terminationStatus, text)
    }

    @Test func processesAndArraysGiveTheSameReport() throws {
        let program = try Program.withLlama(rows: 4)
        defer { program.remove() }
        let whole = try program.run(Self.sweep + ["--output", "whole.json"])
        #expect(whole.status == 0, "\(whole.error)")
        let expected = try figures(program, "whole.json")
        #expect(expected["points"]?.array?.count == 2)

        let ranks = try program.run(["launch", "-n", "2", "--"] + Self.sweep + ["--output", "ranks.json"])
        #expect(ranks.status == 0, "\(ranks.error)")
        #expect(try figures(program, "ranks.json") == expected)

        try writeSbatch(program)
        let written = try program.run(
            Self.sweep + ["--output", "array.json", "--resume", "--slurm-array", "array.sh", "--jobs", "2"])
        #expect(written.status == 0 && !program.files.contains("array.json"), "\(written.error)")
        #expect(try bash(program, ["-n", "array.sh"]).status == 0)
        let array = try bash(program, ["array.sh"])
        #expect(array.status == 0, "\(array.output)")
        #expect(try figures(program, "array.json") == expected)
        #expect(!program.files.contains { $0.hasSuffix(".checkpoint") }, "\(program.files)")
    }

    /// Quotes, stages and options of the script, with a program that writes down how it is called.
    @Test func theScriptCallsTheProgram() throws {
        let program = try Program.withLlama(rows: 4)
        defer { program.remove() }
        try writeSbatch(program)
        try program.write(
            "program", "printf '%s|' \"${PEFT_RUN_INDEX:-none}\" \"$PEFT_SLURM_ARRAY\" \"$@\" >> calls; echo >> calls"
        )
        let script = SlurmArray(
            labels: ["a", "b\nrm c"], jobs: 1, isPrepared: true, program: "/bin/bash",
            words: [
                "program", "--prompt", "it's {q}\n$HOME", "--jobs", "4", "--slurm-array=x", "--resume",
                "--slurm-array", "y",
                "--quiet",
            ], directory: program.folder.path)
        let file = program.folder.appendingPathComponent("it's.sh")
        try program.write("it's.sh", script.text(file))
        let result = try bash(program, [file.path])
        #expect(result.status == 0, "\(result.output)")
        func read(_ name: String) throws -> String {
            try String(contentsOf: program.folder.appendingPathComponent(name), encoding: .utf8)
        }
        let words = "--prompt|it's {q}\n$HOME|--quiet|"
        #expect(
            try read("calls")
                == "prepare|1|\(words)\n0|1|\(words)\n1|1|\(words)\nnone|1|\(words)--resume|\n")
        #expect(
            try read("jobs").split(separator: "\n").map { $0.replacingOccurrences(of: file.path, with: "FILE") } == [
                "sbatch --parsable FILE prepare", "sbatch --parsable --dependency=afterok:17 --array=0-1 FILE run",
                "sbatch --dependency=afterok:17 FILE merge",
            ])
    }

    @Test(arguments: [
        (["--jobs", "2", "--output", "o.json"], "--jobs is 2, but 2 processes were started"),
        ([], "requires an output file"),
    ])
    func optionsOfOneProcess(options: [String], message: String) throws {
        let program = try Program.withLlama(rows: 4)
        defer { program.remove() }
        let result = try program.run(["launch", "-n", "2", "--"] + Self.sweep + options)
        #expect(result.status != 0 && result.error.contains(message), "\(result.error)")
    }
}
