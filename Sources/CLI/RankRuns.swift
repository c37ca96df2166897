import Experiments
import Foundation
import PEFTDistributed
import PEFTSupport
import Torch

/// Independent runs of a comparison or a sweep, which the processes of a job take in turn. Rank 0 has the state and adds the
/// results of the others to it as they come, so that they need no common folder.
struct RankRuns {
    private let job: DistributedJob

    init(_ job: DistributedJob) { self.job = job }

    private struct Start: Codable {
        var pending: [Int]
        /// The state's files: settings, a learning rate, finished runs.
        var files: [String: Data]
    }

    private static let start = "start"
    private static let next = "next"
    /// Set when all results are in the state.
    private static let end = "end"
    private static func result(_ index: Int) -> String { "run/\(index)" }

    /// Rank 0's part: some of the runs, and the results of all.
    func lead(
        _ state: ComparisonState, _ pending: [Int], _ labels: [String], isQuiet: Bool, run: (Int) throws -> Void
    ) throws {
        let board = try job.board()
        try board.put(Self.start, JSONEncoder().encode(Start(pending: pending, files: state.files())))
        func note(_ index: Int, _ text: String) {
            if !isQuiet { Console.note("[\(index + 1)/\(labels.count)] \(labels[index])\(text)") }
        }
        let collector = try Collector(job, pending, state)
        let watcher = Watcher(job)
        defer { watcher.stop() }
        try take(pending, board) { index in
            note(index, "")
            try run(index)
            collector.isDone(index)
        }
        if !isQuiet, collector.count > 0 { Console.note("waiting for the other processes' runs") }
        try collector.wait()
        try board.put(Self.end, Data("1".utf8))
    }

    /// Another rank's part.
    func follow(_ run: (Int, ComparisonState) throws -> Void) throws {
        let board = try job.board()
        let start = try JSONDecoder().decode(Start.self, from: board.awaited(Self.start))
        let temporary = try TemporaryFolder()
        let state = try ComparisonState(copying: start.files, to: temporary.url)
        let watcher = Watcher(job)
        defer { watcher.stop() }
        try take(start.pending, board) { index in
            try run(index, state)
            let files = try state.files().filter { start.files[$0.key] != $0.value }
            try board.put(Self.result(index), JSONEncoder().encode(files))
        }
        // A rank that has left no longer watches the next one.
        _ = try board.awaited(Self.end)
        withExtendedLifetime(temporary) {}
    }

    /// Makes runs that no other process has begun, until there are none.
    private func take(_ pending: [Int], _ board: JobBoard, _ run: (Int) throws -> Void) throws {
        while case let ticket = try board.ticket(Self.next), ticket < pending.count { try run(pending[ticket]) }
    }

    /// Adds results of other ranks to the state while this one computes.
    private final class Collector: @unchecked Sendable {
        private let lock = NSLock()
        private var missing: Set<Int>
        private var failure: (any Error)?
        private let ended = DispatchSemaphore(value: 0)

        /// Number of runs whose results are missing.
        var count: Int { lock.withLock { missing.count } }

        init(_ job: DistributedJob, _ pending: [Int], _ state: ComparisonState) throws {
            missing = Set(pending)
            let board = try job.board()
            // The state is used by this thread only for files of other runs than this process's own.
            nonisolated(unsafe) let state = state
            Thread.detachNewThread { [self] in
                do {
                    while case let left = lock.withLock({ missing }), !left.isEmpty {
                        for index in left {
                            guard let data = try board.value(RankRuns.result(index)) else { continue }
                            try state.add(JSONDecoder().decode([String: Data].self, from: data))
                            isDone(index)
                        }
                        usleep(50_000)
                    }
                } catch { lock.withLock { failure = error } }
                ended.signal()
            }
        }

        func isDone(_ index: Int) { _ = lock.withLock { missing.remove(index) } }

        func wait() throws {
            ended.wait()
            if let failure = lock.withLock({ failure }) { throw failure }
        }
    }

    /// Ends this process within a run when another one fails: a run isn't interrupted otherwise.
    private final class Watcher: @unchecked Sendable {
        private let lock = NSLock()
        private var isStopped = false

        init(_ job: DistributedJob) {
            Thread.detachNewThread { [self] in
                while !lock.withLock({ isStopped }) {
                    usleep(100_000)
                    guard job.hasFailed, !lock.withLock({ isStopped }) else { continue }
                    let error = job.failure(of: CollectiveFailure(message: "a process failed"))
                    if (error as? RankFailure)?.isShown != false { Console.error("\(error)") }
                    endProcess(1)
                }
            }
        }

        func stop() { lock.withLock { isStopped = true } }
    }
}
