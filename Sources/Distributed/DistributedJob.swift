import Foundation
import PEFTSupport
import Torch

/// Processes that train together: they join, agree on what they do, and learn why one of them fails.
package final class DistributedJob: @unchecked Sendable {
    package let launch: LaunchEnvironment
    package let group: ProcessGroup
    private let store: KeyValueStore
    private let monitor: Monitor
    private let names: [String]
    private let interface: ProcessGroup.Interface
    private let canceled: Canceled
    /// Further groups of the same ranks.
    private var others: [ProcessGroup] = []

    package var rank: Int { launch.rank }
    package var size: Int { launch.size }
    /// Whether this process writes files and shows progress.
    package var isFirst: Bool { rank == 0 }

    /// Whether a failure of any rank is known, so that a collective would throw.
    package var hasFailed: Bool { monitor.verdict != nil }

    /// Joins the other processes.
    /// - Throws: ``PEFTError`` naming the ranks that didn't start or that run another version.
    package init(_ launch: LaunchEnvironment, timing: CollectiveTiming = CollectiveTiming()) throws {
        self.launch = launch
        store = try Self.connect(launch, timing)
        let rendezvous = try Rendezvous(store, launch, timing)
        names = rendezvous.names
        let host = launch.hostsStore ? rendezvous.names[0] : "the store of \(launch.launcher)"
        let canceled = Canceled()
        (interface, self.canceled) = (rendezvous.interface, canceled)
        monitor = Monitor(
            try store.clone(), rank: launch.rank, names: rendezvous.names, timing: timing, storeName: host
        ) { canceled.cancel($0) }
        do {
            group = try ProcessGroup(
                store, rank: launch.rank, size: launch.size, interface: rendezvous.interface, timeout: .seconds(60))
        } catch {
            monitor.stop()
            throw PEFTError(
                "\(rendezvous.names[launch.rank]) can't connect to the other processes: \(error)",
                remedy: "set GLOO_SOCKET_IFNAME to the network interface that all hosts share")
        }
        canceled.add(group)
    }

    /// Another group of the same ranks, whose operations don't wait for those of ``group``.
    package func makeGroup(_ name: String) throws -> ProcessGroup {
        let group = try ProcessGroup(
            store.prefixed(name), rank: rank, size: size, interface: interface, timeout: .seconds(60))
        others.append(group)
        canceled.add(group)
        return group
    }

    /// The groups that a verdict cancels.
    private final class Canceled: @unchecked Sendable {
        private let lock = NSLock()
        private var verdict: String?
        private var groups: [ProcessGroup] = []
        func add(_ group: ProcessGroup) {
            let verdict = lock.withLock {
                groups.append(group)
                return self.verdict
            }
            if let verdict { group.cancel(verdict) }
        }
        func cancel(_ text: String) {
            let groups = lock.withLock {
                verdict = text
                return self.groups
            }
            for group in groups { group.cancel(text) }
        }
    }

    private static func connect(_ launch: LaunchEnvironment, _ timing: CollectiveTiming) throws -> KeyValueStore {
        do {
            return try KeyValueStore(
                host: launch.host, port: launch.port, isHost: launch.rank == 0 && launch.hostsStore,
                listeningSocket: launch.listeningSocket, prefix: "peft/\(launch.attempt)", timeout: timing.join)
        } catch {
            guard launch.rank == 0, launch.hostsStore else {
                throw PEFTError(
                    "rank \(launch.rank) can't reach rank 0 at \(launch.host):\(launch.port) within \(timing.join.components.seconds) s",
                    remedy: "check MASTER_ADDR and MASTER_PORT, the firewall, and that rank 0 runs")
            }
            throw PEFTError(
                "rank 0 can't listen at port \(launch.port): \(error)", remedy: "set MASTER_PORT to a free port")
        }
    }

    /// Another connection to the store, for keys of their own.
    func connection(_ name: String) throws -> KeyValueStore { try store.clone().prefixed(name) }

    // MARK: Agreement

    /// Compares a value with that of rank 0.
    /// - Parameter difference: what differs, given rank 0's value; called on the other ranks.
    /// - Throws: ``PEFTError`` naming the rank and the difference.
    package func requireAgreement(
        on name: String, _ value: Data, difference: (Data) throws -> String?
    ) throws {
        guard rank > 0 else { return try store.set(Keys.value(name), value) }
        let first = try awaiting(Keys.value(name))
        guard let difference = try difference(first) else { return }
        throw PEFTError("its run differs from that of rank 0: \(difference)", remedy: "start all ranks alike")
    }

    /// A value that another rank will set, however long it takes as long as no rank fails.
    private func awaiting(_ key: String) throws -> Data {
        while true {
            if let verdict = monitor.verdict { throw CollectiveFailure(message: verdict) }
            if let value = briefly({ try $0.has(key) ? try $0.data(key, within: .seconds(5)) : nil }) ?? nil {
                return value
            }
            usleep(20_000)
        }
    }

    /// The result of a request to the store; `nil` if it fails, or if the store, whose host may hang, doesn't answer soon.
    private func briefly<Value: Sendable>(_ request: @escaping @Sendable (KeyValueStore) throws -> Value) -> Value? {
        let answer = Answer<Value>()
        Thread.detachNewThread { [store] in
            answer.value = try? request(store)
            answer.isThere.signal()
        }
        return answer.isThere.wait(timeout: .now() + .seconds(3)) == .success ? answer.value : nil
    }

    /// Written by one thread before the signal, and read by another after it.
    private final class Answer<Value: Sendable>: @unchecked Sendable {
        let isThere = DispatchSemaphore(value: 0)
        var value: Value?
    }

    // MARK: The end

    /// Ends the job well; rank 0 waits for the others, as it hosts the store.
    package func finish() {
        monitor.stop()
        do {
            try store.set(Keys.done(rank), "1")
            var count = try store.add(Keys.doneCount, 1)
            let end = ContinuousClock.now + .seconds(10)
            while isFirst, count < size, ContinuousClock.now < end {
                usleep(20_000)
                count = try store.add(Keys.doneCount, 0)
            }
        } catch {}
    }

    /// Ends this process's part after an interruption or a divergence, of which all processes know or learn now.
    /// - Parameter cause: what ended it, such as "was interrupted".
    package func leave(_ cause: String) {
        let text = "\(names[rank]) \(cause)"
        _ = briefly { try $0.setOnce(Keys.failure, text) }
        finish()
        guard !isFirst else { return }
        // Rank 0 may still be writing its checkpoint, and a launcher ends all processes soon after one has failed.
        let end = ContinuousClock.now + Self.savingTime
        while ContinuousClock.now < end, briefly({ try $0.has(Keys.done(0)) }) == false { usleep(100_000) }
    }

    /// How long a checkpoint may take to be written.
    private static let savingTime = Duration.seconds(600)

    /// Reports an error of this rank to the others, or finds out which rank is the cause of a failed collective.
    /// - Returns: the error that this process ends with.
    package func failure(of error: any Error) -> any Error {
        if let verdict = monitor.verdict { return ended(by: verdict) }
        // Errors of a forward or backward pass follow from that of a group.
        if error is CollectiveFailure || others.contains(where: \.hasFailed) {
            _ = briefly { try $0.set(Keys.broken, "1") }
            let cause = monitor.awaitVerdict()
            return ended(by: cause ?? "\(names[rank]) lost its connection to another rank: \(error)")
        }
        let text = "\(names[rank]): \(error)"
        _ = briefly { try $0.setOnce(Keys.failure, text) }
        guard !isFirst else {
            // The others read the failure in the store that this process hosts.
            linger()
            return error
        }
        return ended(by: briefly { try $0.text(Keys.failure, within: .seconds(2)) } ?? text)
    }

    private func ended(by verdict: String) -> RankFailure {
        guard !isFirst else {
            defer { linger() }
            return RankFailure(description: verdict, isShown: true)
        }
        let end = ContinuousClock.now + .seconds(4)
        while ContinuousClock.now < end {
            guard let isAcknowledged = briefly({ try $0.has(Keys.acknowledged) }) else { break }
            if isAcknowledged { return RankFailure(description: verdict, isShown: false) }
            usleep(50_000)
        }
        return RankFailure(description: verdict, isShown: true)
    }

    /// Lets the other processes see what the store holds before its host ends.
    private func linger() {
        guard briefly({ try $0.set(Keys.acknowledged, "1") }) != nil else { return }
        usleep(1_500_000)
    }
}

/// A job ended because of one of its ranks.
package struct RankFailure: Error, CustomStringConvertible {
    package let description: String
    /// Whether this process shows it; rank 0 does, unless it is gone.
    package let isShown: Bool
}
