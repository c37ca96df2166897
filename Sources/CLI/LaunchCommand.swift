import ArgumentParser
import Foundation
import PEFTDistributed
import PEFTSupport
import Torch

/// `peft launch`: runs a command in several processes of this host, which train together.
struct LaunchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "launch",
        abstract: "Run train, compare or sweep in several processes of this host.",
        discussion: """
            peft launch -n 4 -- train --data train.jsonl --prompt '{q}' --target '{a}' --output my-adapter

            The processes share the examples of each optimizer step and the CPU's threads, and the result is that of one
            process, within rounding. peft compare and peft sweep divide their runs among the processes. On several
            hosts, torchrun, mpirun or srun start them; docs/distributed.md describes it.
            """)

    @Option(name: [.customShort("n"), .long], help: ArgumentHelp("Number of processes.", valueName: "n"))
    var processes: Int
    @Argument(
        parsing: .captureForPassthrough,
        help: ArgumentHelp("A command of peft with its options.", valueName: "command"))
    var command: [String] = []

    func run() throws { try Self.run(["--processes", "\(processes)"] + command) }

    private static let commands = ["train", "compare", "sweep"]

    /// Parses the words after `launch`, runs the processes, and exits as they do.
    static func run(_ words: [String]) throws {
        var rest = words[...]
        var count: Int?
        while let word = rest.first, word.hasPrefix("-") {
            rest = rest.dropFirst()
            if word == "--" { break }
            let parts = word.split(separator: "=", maxSplits: 1).map(String.init)
            guard ["-n", "--processes"].contains(parts[0]), count == nil else {
                throw UsageError("unknown option '\(word)'", remedy: "peft launch --help lists the options")
            }
            let text = parts.count == 2 ? parts[1] : rest.popFirst() ?? ""
            guard let number = Int(text), (1...1024).contains(number) else {
                throw UsageError("\(parts[0]) '\(text)' is not a number of processes", remedy: "use for example -n 2")
            }
            count = number
        }
        guard let count else {
            throw UsageError("-n is missing", remedy: "use for example peft launch -n 2 -- train …")
        }
        guard let command = rest.first, commands.contains(command) else {
            throw UsageError(
                rest.first.map { "'\($0)' can't run in several processes" } ?? "the command is missing",
                remedy: "use peft launch -n \(count) -- train …, or compare or sweep")
        }
        endProcess(try ProcessTeam(count, Array(rest)).run())
    }
}
