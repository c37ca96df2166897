import Foundation
import PEFTSupport
import Torch

/// Independent runs of a comparison or a sweep in several processes. Each process repeats the command's preparation, makes
/// one run, and stores its results in the state beside the output; this process then reads them there.
struct ConcurrentRuns {
    static let indexVariable = "PEFT_RUN_INDEX"
    static let threadsVariable = "PEFT_RUN_THREADS"

    /// The run that this process makes for another one; `nil` if it is the one that the user started.
    static var index: Int? { ProcessInfo.processInfo.environment[indexVariable].flatMap { Int($0) } }

    /// Whether this process only computes what the runs share.
    static var isPreparing: Bool { ProcessInfo.processInfo.environment[indexVariable] == SlurmArray.preparation }

    /// Sets this process's part of the threads.
    static func prepare() {
        guard index != nil || isPreparing else { return }
        Console.isMuted = true
        if let threads = ProcessInfo.processInfo.environment[threadsVariable].flatMap({ Int($0) }) {
            Runtime.threads = threads
        }
    }

    /// Runs that are left, by index.
    let pending: [Int]
    let labels: [String]
    let jobs: Int
    /// The state's lock, which a signal removes.
    let lock: URL?
    let isQuiet: Bool

    /// Makes all runs.
    /// - Throws: ``PEFTError`` if one fails; the results of the others remain.
    func run() throws {
        var waiting = pending[...]
        var running: [pid_t: Int] = [:]
        var failed: PEFTError?
        let variables = ProcessInfo.processInfo.environment.merging([
            Self.threadsVariable: "\(max(1, Runtime.threads / max(1, min(jobs, pending.count))))"
        ]) { $1 }
        Interrupt.install()
        while !running.isEmpty || !waiting.isEmpty && failed == nil {
            if Interrupt.isRequested {
                for process in running.keys { kill(process, SIGKILL) }
                endAsBySignal()
            }
            if failed == nil, running.count < jobs, let next = waiting.popFirst() {
                if !isQuiet { Console.note("[\(next + 1)/\(labels.count)] \(labels[next])") }
                let process = try ChildProcess.start(
                    Array(CommandLine.arguments.dropFirst()),
                    variables.merging([Self.indexVariable: "\(next)"]) { $1 })
                running[process] = next
                continue
            }
            guard let exit = ChildProcess.nextExit() else {
                usleep(20_000)
                continue
            }
            guard let index = running.removeValue(forKey: exit.process) else { continue }
            if exit.code == 0 {
                if !isQuiet { Console.note("  \(labels[index]) finished") }
            } else if failed == nil {
                let cause =
                    exit.signal != 0
                    ? "was killed by signal \(exit.signal)" : "failed with exit code \(exit.code)"
                failed = PEFTError("the run of \(labels[index]) \(cause)", remedy: "add --resume to run the rest")
                for process in running.keys { kill(process, SIGTERM) }
            }
        }
        if let lock { Interrupt.removing(lock) } else { Interrupt.remove() }
        if let failed { throw failed }
    }

    /// Ends this process as a signal without other runs does: the lock is removed, finished results stay.
    private func endAsBySignal() {
        let signal = Interrupt.exitCode - 128
        if let lock { Interrupt.removing(lock) } else { Interrupt.remove() }
        kill(getpid(), signal)
        sleep(5)
    }
}
