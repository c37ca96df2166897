import Foundation
import PEFTSupport
import Torch

/// Processes that train together, with the variables by which they find each other. If one fails, the others end too.
final class ProcessTeam {
    private var running: [pid_t: Int] = [:]
    private var status: Int32 = 0
    /// How long the others may take to end by themselves, after one failed.
    private static let patience = Duration.seconds(10)

    /// Whether this process has the command line of a first one, which says what is wrong with it.
    static var repeatsFirst: Bool {
        let variables = ProcessInfo.processInfo.environment
        return variables["PEFT_LAUNCH"] != nil && variables["RANK"] != "0"
    }

    /// - Throws: ``PEFTError`` if a process can't be started.
    init(_ count: Int, _ arguments: [String]) throws {
        let (socket, port) = try NetworkAddress.listenLocally()
        defer { close(socket) }
        var shared = ProcessInfo.processInfo.environment
        if shared["OMP_NUM_THREADS"] == nil {
            shared["OMP_NUM_THREADS"] = "\(max(1, ProcessInfo.processInfo.activeProcessorCount / count))"
        }
        for rank in 0..<count {
            let variables = [
                "RANK": "\(rank)", "WORLD_SIZE": "\(count)", "LOCAL_RANK": "\(rank)", "LOCAL_WORLD_SIZE": "\(count)",
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "\(port)", "PEFT_LAUNCH": "1",
                "PEFT_LAUNCH_SOCKET": rank == 0 ? "\(socket)" : "",
            ]
            do {
                let process = try ChildProcess.start(
                    arguments, shared.merging(variables) { $1 }, inheritsInput: rank == 0,
                    closed: rank == 0 ? nil : socket)
                running[process] = rank
            } catch {
                signalAll(SIGKILL)
                throw error
            }
        }
    }

    /// Waits for all processes.
    /// - Returns: 0, or the exit code of the first that failed (128 + signal number for one that was killed).
    func run() -> Int32 {
        Interrupt.install()
        var hasForwarded = false
        var deadline: ContinuousClock.Instant?
        while !running.isEmpty {
            if Interrupt.isRequested, !hasForwarded {
                hasForwarded = true
                signalAll(Interrupt.exitCode - 128)
            }
            if let exit = ChildProcess.nextExit() {
                guard let rank = running.removeValue(forKey: exit.process), exit.code != 0, deadline == nil else {
                    continue
                }
                status = exit.code
                deadline = .now + Self.patience
                if exit.signal != 0, !Interrupt.isRequested { note(exit, rank) }
                continue
            }
            if let end = deadline, ContinuousClock.now > end {
                signalAll(SIGKILL)
                deadline = .now + Self.patience
            }
            usleep(20_000)
        }
        return status
    }

    private func note(_ exit: ChildProcess.Exit, _ rank: Int) {
        let name = String(cString: strsignal(exit.signal))
        Console.note("rank \(rank) (process \(exit.process)) was killed by signal \(exit.signal) (\(name))")
    }

    private func signalAll(_ number: Int32) { for process in running.keys { kill(process, number) } }
}
