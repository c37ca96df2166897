import ArgumentParser
import Foundation
import Support
import Tokenizers
import Torch
import Training

struct Peft: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "peft",
        abstract: "Fine-tune language models with few parameters, and learn which method suits your data.",
        discussion: """
            A first run:
              peft compare --methods base,full,lora \\
                --data train.jsonl --test test.jsonl \\
                --prompt 'Summarize: {dialogue}' --target '{summary}'

            Any command takes --config FILE with the same options in YAML or JSON; options on the command line win.
            """,
        version: Version.current,
        subcommands: [
            Train.self, Evaluate.self, Generate.self, Predict.self, Compare.self, SweepCommand.self, PlanCommand.self,
            Inspect.self,
            VerifyCommand.self, MergeCommand.self, QuantizeCommand.self, CombineCommand.self, ConvertCommand.self,
            NeighborsCommand.self,
            MethodsCommand.self, PullCommand.self,
        ]
    )
}

@main
struct Main {
    static func main() {
        StandardStreams.reserveClosed()
        // Writing to a pipe without a reader, or beyond a limit on file sizes, is then an error like a full disk,
        // instead of ending the program.
        for number in [SIGPIPE, SIGXFSZ] { signal(number, SIG_IGN) }
        do {
            let arguments: [String]
            switch try Invocation.prepare(Array(CommandLine.arguments.dropFirst())) {
            case .help(let text):
                print(text)
                Foundation.exit(Results.exitCodeIfLost() ?? 0)
            case .parse(let prepared): arguments = prepared
            }
            var command = try Invocation.parse(arguments)
            Runtime.keepFreedMemory()
            Runtime.reportTruncatedFiles()
            // Failures of a tokenizer that no narrower scope throws.
            try withTokenizerErrors { try command.run() }
            Foundation.exit(Results.exitCodeIfLost() ?? 0)
        } catch let error as UsageError {
            Console.error(error.description)
            Foundation.exit(64)
        } catch let error as PEFTError {
            Console.error(error.description)
            Foundation.exit(1)
        } catch let diverged as TrainingDiverged {
            Console.error(diverged.description)
            Foundation.exit(1)
        } catch let error as TrainingInterrupted {
            Console.error(
                error.step > 0
                    ? "stopped after step \(error.step); the same command with --resume continues"
                    : "stopped before the first step was done; nothing is saved")
            Foundation.exit(Interrupt.exitCode)
        } catch {
            // Help and the version, or a mistake on the command line.
            let (code, text) = (Peft.exitCode(for: error), Peft.fullMessage(for: error))
            if !text.isEmpty { code == .success ? print(text) : Console.note(text) }
            Foundation.exit(Results.exitCodeIfLost() ?? code.rawValue)
        }
    }
}
