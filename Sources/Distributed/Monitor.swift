import Foundation
import PEFTSupport
import Synchronization
import Torch

/// Watches the processes of a job: each process counts up in the store, and watches the next rank's count. The first
/// failure that a process finds or reports is the job's, and cancels what the others wait for.
final class Monitor: @unchecked Sendable {
    private struct State {
        var verdict: String?
        var isStopped = false
        /// Set by the monitoring thread at each turn, cleared by the watchdog.
        var hasTurned = true
    }

    private let store: KeyValueStore
    private let rank: Int
    private let names: [String]
    private let timing: CollectiveTiming
    private let storeName: String
    private let onVerdict: @Sendable (String) -> Void
    private let state = Mutex(State())
    private let wake = DispatchSemaphore(value: 0)
    private let ended = DispatchSemaphore(value: 0)

    /// - Parameters:
    ///   - names: what each rank is called in messages.
    ///   - storeName: what hosts the store, for messages.
    ///   - onVerdict: called once, on another thread.
    init(
        _ store: KeyValueStore, rank: Int, names: [String], timing: CollectiveTiming, storeName: String,
        onVerdict: @escaping @Sendable (String) -> Void
    ) {
        (self.store, self.rank, self.names, self.timing) = (store, rank, names, timing)
        (self.storeName, self.onVerdict) = (storeName, onVerdict)
        Thread.detachNewThread { [self] in watch() }
        Thread.detachNewThread { [self] in watchTheWatch() }
    }

    /// The job's failure, if there is one.
    var verdict: String? { state.withLock { $0.verdict } }

    /// Ends the monitoring, after which this process may be silent.
    func stop() {
        state.withLock { $0.isStopped = true }
        wake.signal()
        _ = ended.wait(timeout: .now() + .seconds(2))
    }

    /// Waits for the verdict on a connection that failed.
    func awaitVerdict() -> String? {
        let end = ContinuousClock.now + timing.silenceAfterFailure + .seconds(4)
        while verdict == nil, ContinuousClock.now < end { usleep(50_000) }
        return verdict
    }

    private var isOver: Bool { state.withLock { $0.isStopped || $0.verdict != nil } }

    private func conclude(_ text: String) {
        let isFirst = state.withLock { state in
            guard state.verdict == nil, !state.isStopped else { return false }
            state.verdict = text
            return true
        }
        if isFirst { onVerdict(text) }
    }

    private func watch() {
        defer { ended.signal() }
        var neighbor = Neighbor()
        while !isOver {
            let start = ContinuousClock.now
            do { try turn(&neighbor) } catch {
                // The store's host ends first when a job ends well.
                if !isOver { conclude("\(storeName) is gone: it died, or the network failed") }
                return
            }
            state.withLock { $0.hasTurned = true }
            let rest = timing.beat - start.duration(to: .now)
            _ = wake.wait(timeout: .now() + .milliseconds(Int(max(rest, .milliseconds(1)) / .milliseconds(1))))
        }
    }

    /// What is known about the next rank.
    private struct Neighbor {
        var beats = -1
        var silence = Duration.zero
        var lastTurn = ContinuousClock.now
    }

    private func turn(_ neighbor: inout Neighbor) throws {
        try store.add(Keys.beats(rank), 1)
        if try store.has(Keys.failure) { return conclude(try store.text(Keys.failure, within: .seconds(5))) }
        let next = (rank + 1) % names.count
        let beats = try store.add(Keys.beats(next), 0)
        // A process that was itself suspended doesn't count that time.
        let elapsed = min(neighbor.lastTurn.duration(to: .now), timing.beat * 2)
        neighbor.lastTurn = .now
        neighbor.silence = beats == neighbor.beats ? neighbor.silence + elapsed : .zero
        neighbor.beats = beats
        let hasBroken = try store.has(Keys.broken)
        guard neighbor.silence > (hasBroken ? timing.silenceAfterFailure : timing.silence),
            try !store.has(Keys.done(next))
        else { return }
        let seconds = timing.silence.components.seconds
        try store.setOnce(
            Keys.failure,
            hasBroken
                ? "\(names[next]) died: its connections were closed"
                : "\(names[next]) has been silent for \(seconds) s; it hangs, or its host is unreachable")
    }

    /// A store whose host hangs doesn't answer, and the monitoring thread waits.
    private func watchTheWatch() {
        var silence = Duration.zero
        while !isOver {
            usleep(500_000)
            let hasTurned = state.withLock { state in
                defer { state.hasTurned = false }
                return state.hasTurned
            }
            silence = hasTurned ? .zero : silence + .milliseconds(500)
            if silence > timing.silence {
                conclude(
                    "\(storeName) has been silent for \(timing.silence.components.seconds) s; it hangs, or its host is unreachable"
                )
            }
        }
    }
}

/// Keys of a job's store.
enum Keys {
    static let failure = "failure"
    /// Set by a process whose connection failed.
    static let broken = "broken"
    static let acknowledged = "acknowledged"
    static let doneCount = "done"
    static let start = "start"
    static func beats(_ rank: Int) -> String { "beats/\(rank)" }
    static func done(_ rank: Int) -> String { "done/\(rank)" }
    static func hello(_ rank: Int) -> String { "hello/\(rank)" }
    static func value(_ name: String) -> String { "value/\(name)" }
}
