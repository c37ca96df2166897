import Foundation
import PEFTSupport

/// A script that makes the runs of a comparison or a sweep as a Slurm job array. `bash FILE` submits it: the runs, each of
/// which stores its results beside the output, and a last job that reads them.
struct SlurmArray {
    /// Set in the script's jobs.
    private static let variable = "PEFT_SLURM_ARRAY"
    /// In place of a run's number.
    static let preparation = "prepare"

    static var isTask: Bool { ProcessInfo.processInfo.environment[variable] != nil }

    let labels: [String]
    /// Runs at the same time; 1 for as many as Slurm starts.
    let jobs: Int
    /// Whether a job computes what the runs share before them.
    let isPrepared: Bool
    var program = Bundle.main.executableURL?.path ?? CommandLine.arguments[0]
    var words = Array(CommandLine.arguments.dropFirst())
    var directory = FileManager.default.currentDirectoryPath

    func write(to file: URL) throws {
        try Output.write(text(file), to: file.path)
        Console.note("\(counted(labels.count, "run")); submit them with: bash \(Self.quoted(file.path))")
    }

    func text(_ file: URL) -> String {
        let name = words.first ?? "compare"
        let runs = labels.enumerated().map { "#   \($0): \(Self.comment($1))" }.joined(separator: "\n")
        let prepares = isPrepared ? "prepared=$(sbatch --parsable \"$script\" prepare)\n    " : ""
        let dependency = isPrepared ? "--dependency=\"afterok:$prepared\" " : ""
        let limit = jobs > 1 ? "%\(jobs)" : ""
        return """
            #!/usr/bin/env bash
            # \(counted(labels.count, "run")) of peft \(name) as a Slurm job array. Submit with: bash \(Self.comment(file.lastPathComponent))
            # After an interruption submit it again: finished runs are not repeated.
            \(runs)
            #SBATCH --job-name=peft-\(name)
            #SBATCH --ntasks=1
            #SBATCH --cpus-per-task=8
            #SBATCH --time=24:00:00
            set -euo pipefail

            script=\(Self.quoted(file.path))
            command=(
                \(commandWords.map(Self.quoted).joined(separator: "\n    "))
            )
            cd \(Self.quoted(directory))
            export \(Self.variable)=1
            export \(ConcurrentRuns.threadsVariable)=${SLURM_CPUS_PER_TASK:-1}
            export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

            case ${1:-submit} in
            submit)
                \(prepares)runs=$(sbatch --parsable \(dependency)--array='0-\(labels.count - 1)\(limit)' "$script" run)
                sbatch --dependency="afterok:$runs" "$script" merge
                ;;
            prepare) \(ConcurrentRuns.indexVariable)=\(Self.preparation) exec "${command[@]}" ;;
            run) \(ConcurrentRuns.indexVariable)=$SLURM_ARRAY_TASK_ID exec "${command[@]}" ;;
            merge) exec "${command[@]}" --resume ;;
            *)
                echo "usage: bash $script" >&2
                exit 64
                ;;
            esac

            """
    }

    /// The program with this command's words, without the options of the script itself.
    private var commandWords: [String] {
        var result = [program]
        var rest = words[...]
        while let word = rest.popFirst() {
            if word == "--slurm-array" {
                rest = rest.dropFirst()
            } else if word == "--jobs" {
                rest = rest.dropFirst()
            } else if word != "--resume", !word.hasPrefix("--slurm-array="), !word.hasPrefix("--jobs=") {
                result.append(word)
            }
        }
        return result
    }

    /// A word that the shell reads as it is.
    static func quoted(_ word: String) -> String { "'" + word.replacingOccurrences(of: "'", with: "'\\''") + "'" }

    /// Text that can't end a comment.
    private static func comment(_ text: String) -> String { Console.shownInOneLine(text) }
}
