import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch

/// Training in several processes, on a Llama of 16 hidden units.
struct ParallelTrainingTests {
    private static let usual = [
        "--model", "llama", "--data", "rows.jsonl", "--prompt", "{q}", "--target", "{a}", "--steps", "4",
        "--validation", "rows.jsonl", "--validate-every", "2", "--lr", "0.01",
    ]

    /// Runs in `processes` processes; without a launcher if there is one.
    private func train(
        _ program: Program, _ processes: Int, _ options: [String], environment: [String: String] = [:]
    ) throws -> Program.Result {
        let command = ["train", "--quiet"] + Self.usual + options
        let launch = processes == 1 ? [] : ["launch", "-n", "\(processes)", "--"]
        return try program.run(launch + command, environment: environment)
    }

    /// The losses and the trained weights of two runs are equal within the rounding of sums in another order.
    private func expectEqual(_ program: Program, _ name: String, _ other: String) throws {
        func numbers(_ name: String) throws -> [Double] {
            let folder = program.folder.appendingPathComponent(name)
            let history = try JSON.read(folder.appendingPathComponent("training.json"))["history"]
            let losses = ["training", "validation"].flatMap { history?[$0]?.array ?? [] }
            let file = try SafetensorsFile(folder.appendingPathComponent("adapter_model.safetensors"))
            let weights = try file.entries.keys.sorted().flatMap {
                try file.tensor($0).array(Float.self).map(Double.init)
            }
            return losses.compactMap { $0["loss"]?.double } + weights
        }
        let (one, two) = (try numbers(name), try numbers(other))
        try #require(one.count == two.count && one.count > 100)
        let largest = one.map(abs).max() ?? 0
        let difference = zip(one, two).map { abs($0 - $1) }.max() ?? .infinity
        #expect(difference < 1e-5 * largest, "\(name) and \(other) differ by \(difference)")
        #expect(one.contains { $0 != 0 })
    }

    /// Micro-batches of three examples, divided between the processes or given to one of them as a whole.
    @Test(arguments: [
        (2, ["--batch-size", "3"]), (3, ["--batch-size", "2", "--accumulate", "3", "--dropout", "0.3"]),
    ])
    func severalProcessesEqualOne(processes: Int, options: [String]) throws {
        let program = try Program.withLlama(rows: 7)
        defer { program.remove() }
        let one = try train(program, 1, options + ["--output", "one"])
        #expect(one.status == 0, "\(one.error)")
        let several = try train(program, processes, options + ["--output", "several"])
        #expect(several.status == 0, "\(several.error)")
        // Only one process reports.
        #expect(several.output.components(separatedBy: "saved to").count == 2, "\(several.output)")
        try expectEqual(program, "one", "several")
        #expect(!program.files.contains { $0.contains("checkpoint") || $0.contains("tmp") }, "\(program.files)")
    }

    private func bytes(_ program: Program, _ name: String) throws -> Data {
        try Data(contentsOf: program.folder.appendingPathComponent("\(name)/adapter_model.safetensors"))
    }

    /// With micro-batches that leave a process without examples, in training and in validation.
    @Test(arguments: [
        (2, ["--batch-size", "2", "--accumulate", "3", "--dropout", "0.3", "--weights", "nf4"]),
        (3, ["--batch-size", "2", "--retain", "text.txt"]),
    ])
    func aShardedBaseChangesNoBit(processes: Int, options: [String]) throws {
        let program = try Program.withLlama(rows: 7)
        defer { program.remove() }
        try program.write("text.txt", String(repeating: "Tom ran far away. ", count: 20))
        let whole = try train(program, processes, options + ["--output", "whole"])
        #expect(whole.status == 0, "\(whole.error)")
        let sharded = try train(program, processes, options + ["--output", "sharded", "--shard-base"])
        #expect(sharded.status == 0, "\(sharded.error)")
        #expect(try bytes(program, "whole") == bytes(program, "sharded"))
        func history(_ name: String) throws -> JSON? {
            let record = try JSON.read(program.folder.appendingPathComponent("\(name)/training.json"))
            guard case .object(var fields) = record["history"] ?? .null else { return nil }
            fields["retention"] = record["retention"]
            return .object(fields)
        }
        #expect(try history("whole") != nil)
        #expect(try history("whole") == history("sharded"))
    }

    /// A checkpoint doesn't depend on where the base was.
    @Test func aShardedRunResumes() throws {
        let program = try Program.withLlama(rows: 7)
        defer { program.remove() }
        let options = ["--batch-size", "4"]
        #expect(try train(program, 2, options + ["--output", "whole"]).status == 0)
        let part = try train(
            program, 2, options + ["--output", "part", "--shard-base"], environment: ["PEFT_TEST_STOP": "2:15"])
        #expect(part.status == 143 && part.error.contains("interrupted after step 2"), "\(part.status) \(part.error)")
        let resumed = try train(program, 3, options + ["--output", "part", "--resume", "--shard-base"])
        #expect(resumed.status == 0, "\(resumed.error)")
        try expectEqual(program, "whole", "part")
    }

    @Test func aLostRankEndsAShardedRun() throws {
        let program = try Program.withLlama(rows: 7)
        defer { program.remove() }
        let result = try train(
            program, 2, ["--batch-size", "2", "--output", "out", "--shard-base"],
            environment: ["PEFT_TEST_STOP": "3:\(SIGKILL):1", "PEFT_HANG_TIMEOUT": "60"])
        #expect(result.status != 0 && !program.files.contains("out"))
        #expect(
            result.error.contains("error: rank 1 (process ")
                && result.error.contains("died: its connections were closed"), "\(result.error)")
    }

    @Test(arguments: [
        (1, ["--shard-base"], "there is only one"),
        (2, ["--shard-base", "--method", "full"], "--method full trains it"),
        (2, ["--shard-base", "--samples", "1"], "excludes --samples"),
        (2, ["--shard-base", "--init", "corda"], "needs all weights of the base at once"),
    ])
    func whatCannotBeShardedIsNamed(processes: Int, options: [String], message: String) throws {
        let program = try Program.withLlama(rows: 7)
        defer { program.remove() }
        let result = try train(program, processes, ["--batch-size", "2", "--output", "out"] + options)
        #expect(result.status != 0 && result.error.contains(message), "\(result.error)")
    }

    @Test func runsResumeWithAnotherNumberOfProcesses() throws {
        let program = try Program.withLlama(rows: 7)
        defer { program.remove() }
        let options = ["--batch-size", "4"]
        #expect(try train(program, 1, options + ["--output", "whole"]).status == 0)
        let part = try train(program, 3, options + ["--output", "part"], environment: ["PEFT_TEST_STOP": "2:15"])
        #expect(part.status == 143 && part.error.contains("interrupted after step 2"), "\(part.status) \(part.error)")
        // Only one process reports.
        let lines = part.error.split(separator: "\n").filter { !$0.hasPrefix("warning: ") }
        #expect(lines.count == 1, "\(part.error)")
        let resumed = try train(program, 2, options + ["--output", "part", "--resume"])
        #expect(resumed.status == 0, "\(resumed.error)")
        try expectEqual(program, "whole", "part")
    }

    /// Rank 0 hosts the store, so the others notice its loss by other means.
    @Test(arguments: [
        (1, SIGKILL, "died: its connections were closed"), (1, SIGSTOP, "has been silent for 3 s"),
        (0, SIGKILL, "is gone: it died"), (0, SIGSTOP, "has been silent for 3 s"),
    ]) func aLostRankEndsTheJob(rank: Int, signal: Int32, message: String) throws {
        let program = try Program.withLlama(rows: 7)
        defer { program.remove() }
        let result = try train(
            program, 2, ["--batch-size", "2", "--output", "out"],
            environment: [
                "PEFT_TEST_STOP": "3:\(signal):\(rank)", "PEFT_HANG_TIMEOUT": signal == SIGSTOP ? "3" : "60",
            ])
        #expect(result.status != 0 && !program.files.contains("out"))
        #expect(
            result.error.contains("error: rank \(rank) (process ") && result.error.contains(message),
            "\(result.error)")
        // The checkpoint of the validation after step 2 serves a run in one process.
        guard signal == SIGKILL, rank == 1 else { return }
        let resumed = try train(program, 1, ["--batch-size", "2", "--output", "out", "--resume"])
        #expect(resumed.status == 0, "\(resumed.error)")
    }

    /// Processes that were started one by one, the second with other options.
    @Test func aRankThatDiffersIsNamed() throws {
        let program = try Program.withLlama(rows: 7)
        defer { program.remove() }
        let (socket, port) = try NetworkAddress.listenLocally()
        close(socket)
        let results = Results()
        DispatchQueue.concurrentPerform(iterations: 2) { rank in
            let variables = [
                "RANK": "\(rank)", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "\(port)",
            ]
            let options = ["--output", "out", "--seed", rank == 0 ? "1" : "2"]
            results.add(rank, try? train(program, 1, options, environment: variables))
        }
        let first = try #require(results[0])
        #expect(first.status == 1 && !program.files.contains("out"))
        #expect(
            first.error.contains("error: rank 1 (process ")
                && first.error.contains("its run differs from that of rank 0: --seed 1, but this run uses 2"),
            "\(first.error)")
        #expect(results[1]?.status == 1 && results[1]?.error.isEmpty == true, "\(results[1]?.error ?? "")")
    }

    /// Dropout masks depend on the whole micro-batch.
    @Test func aStepThatCannotBeDividedIsAnError() throws {
        let program = try Program.withLlama(rows: 7)
        defer { program.remove() }
        let result = try train(program, 2, ["--output", "out", "--batch-size", "4", "--dropout", "0.5"])
        #expect(result.status == 1, "\(result.error)")
        #expect(result.error.contains("use --accumulate 2 --batch-size 2 (4 examples per step)"), "\(result.error)")
        let command = try program.run(["launch", "-n", "2", "evaluate"])
        #expect(command.status == 64 && command.error.contains("'evaluate' can't run in several processes"))
    }

    private final class Results: @unchecked Sendable {
        private let lock = NSLock()
        private var values: [Int: Program.Result] = [:]
        func add(_ rank: Int, _ result: Program.Result?) { lock.withLock { values[rank] = result } }
        subscript(rank: Int) -> Program.Result? { lock.withLock { values[rank] } }
    }
}
