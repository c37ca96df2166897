import ArgumentParser
import Foundation
import Support
import Torch
import Training

struct Peft: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "peft",
        abstract: "Fine-tune language models with few parameters, and learn which method suits your data.",
        discussion: """
            A first run:  peft compare --methods base,full,lora --data train.jsonl --test test.jsonl \\
                            --prompt 'Summarize: {dialogue}' --target '{summary}'
            Any command takes --config FILE with the same options in YAML; options on the command line win.
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
        // A write beyond a limit on file sizes then fails like one on a full disk, instead of ending the program.
        signal(SIGXFSZ, SIG_IGN)
        do {
            let arguments = try ConfigurationFile.expand(Array(CommandLine.arguments.dropFirst()))
            var command = try parse(MethodArguments.extract(arguments))
            Runtime.keepFreedMemory()
            try command.run()
        } catch let error as PEFTError {
            Console.error(error.description)
            Foundation.exit(1)
        } catch let diverged as TrainingDiverged {
            Console.error(diverged.description)
            Foundation.exit(1)
        } catch let error as TrainingInterrupted {
            Console.error("stopped after step \(error.step); the same command with --resume continues")
            Foundation.exit(130)
        } catch {
            Peft.exit(withError: error)
        }
    }

    private static func parse(_ arguments: [String]) throws -> any ParsableCommand {
        do { return try Peft.parseAsRoot(arguments) } catch {
            let message = Peft.message(for: error)
            guard let name = message.firstMatch(of: #/Unknown option '--([^']+)'/#)?.1,
                let hint = MethodArguments.hint(for: String(name))
            else { throw error }
            // The parser knows the command's own options, and not those that methods declare.
            let own = message.firstMatch(of: #/Did you mean '--([^']+)'/#).map { String($0.1) }
            guard own == nil || nearestName(to: String(name), in: [own ?? "", hint]) == hint
            else { throw error }
            Console.error("unknown option --\(name); did you mean --\(hint)?")
            Foundation.exit(64)
        }
    }
}
