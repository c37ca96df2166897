import Foundation
import PEFTDistributed
import Training

/// Runs a command in several processes that a launcher started.
enum ParallelRun {
    /// Joins the other processes, if there are any, runs `body`, and tells them how it ended.
    static func run(_ launch: LaunchEnvironment?, _ body: (DistributedJob?) throws -> Void) throws {
        guard let launch else { return try body(nil) }
        Console.isMuted = launch.rank > 0
        let job = try DistributedJob(launch, timing: CollectiveTiming(ProcessInfo.processInfo.environment))
        do {
            try body(job)
            job.finish()
        } catch let error where error is TrainingInterrupted || error is TrainingDiverged {
            // All processes know.
            job.leave(error is TrainingDiverged ? "ended: \(error)" : "was interrupted")
            guard job.isFirst else { endProcess(error is TrainingDiverged ? 1 : Interrupt.exitCode) }
            throw error
        } catch { throw job.failure(of: error) }
    }
}
