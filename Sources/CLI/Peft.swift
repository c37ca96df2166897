import ArgumentParser
import Foundation
import PEFTDistributed
import PEFTSupport
import PEFTTokenizers
import Torch
import Training

struct Peft: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "peft",
        abstract: "Parameter-efficient fine-tuning (PEFT) of language models.",
        discussion: """
            Compare methods on your own data:
              peft compare --methods base,full,lora \\
                --data train.jsonl --test test.jsonl \\
                --prompt 'Summarize: {dialogue}' --target '{summary}'

            Every command reads options from --config FILE (YAML or JSON).
            Options on the command line take precedence.
            """,
        version: Version.current,
        subcommands: [
            Train.self, Evaluate.self, Generate.self, Predict.self, Compare.self, SweepCommand.self, PlanCommand.self,
            Inspect.self,
            LaunchCommand.self,
            VerifyCommand.self, MergeCommand.self, QuantizeCommand.self, CombineCommand.self, ConvertCommand.self,
            NeighborsCommand.self,
            MethodsCommand.self, PullCommand.self, PushCommand.self, ServeCommand.self, RunsCommand.self,
        ]
    )
}

@main
struct Main {
    static func main() {
        StandardStreams.reserveClosed()
        // Writing to a closed pipe or beyond a file-size limit then fails like writing to a full disk, instead of ending
        // the program.
        for number in [SIGPIPE, SIGXFSZ] { signal(number, SIG_IGN) }
        ChildProcess.endWithParent()
        do {
            // The server parses its options itself.
            let words = Array(CommandLine.arguments.dropFirst())
            if words.first == ServeCommand.configuration.commandName {
                try ServeCommand.run(Array(words.dropFirst()))
            } else if words.first == RunsCommand.configuration.commandName {
                try ServeCommand.run(words)
            }
            // So are the words after `launch`, which are another command's.
            if words.first == LaunchCommand.configuration.commandName,
                !["-h", "--help"].contains(words.dropFirst().first)
            {
                try LaunchCommand.run(Array(words.dropFirst()))
            }
            let arguments: [String]
            switch try Invocation.prepare(words) {
            case .help(let text):
                print(text)
                endProcess(Results.exitCodeIfLost() ?? 0)
            case .parse(let prepared): arguments = prepared
            }
            var command = try Invocation.parse(arguments)
            Runtime.keepFreedMemory()
            Runtime.reportTruncatedFiles()
            // Throws tokenizer failures that no narrower scope threw.
            try withTokenizerErrors { try command.run() }
            endProcess(Results.exitCodeIfLost() ?? 0)
        } catch let error as UsageError {
            if !ProcessTeam.repeatsFirst { Console.error(error.description) }
            endProcess(64)
        } catch let error as PEFTError {
            Console.error(error.description)
            endProcess(error.isUsage ? 64 : 1)
        } catch let failure as RankFailure {
            if failure.isShown { Console.error(failure.description) }
            endProcess(1)
        } catch let diverged as TrainingDiverged {
            Console.error(diverged.description)
            endProcess(1)
        } catch let error as TrainingInterrupted {
            Console.error(
                error.step > 0
                    ? "interrupted after step \(error.step); add --resume to the command to continue"
                    : "interrupted before the first step; nothing was saved")
            endProcess(Interrupt.exitCode)
        } catch {
            // Help, the version, or an invalid command line.
            let (code, text) = (Peft.exitCode(for: error), Peft.fullMessage(for: error))
            if !text.isEmpty { code == .success ? print(text) : Console.note(text) }
            endProcess(Results.exitCodeIfLost() ?? code.rawValue)
        }
    }
}
