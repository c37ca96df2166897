import Foundation
import Torch

/// Values that the processes of a job give each other by name, for one thread.
package final class JobBoard: @unchecked Sendable {
    private let store: KeyValueStore
    private let job: DistributedJob

    fileprivate init(_ store: KeyValueStore, _ job: DistributedJob) { (self.store, self.job) = (store, job) }

    /// Sets a value.
    package func put(_ name: String, _ data: Data) throws { try collecting { try store.set(name, data) } }

    /// A value; `nil` if no process has set it.
    package func value(_ name: String) throws -> Data? {
        try collecting { try store.has(name) ? try store.data(name, within: .seconds(60)) : nil }
    }

    /// A value, once a process has set it, however long that takes.
    /// - Throws: ``CollectiveFailure`` if a process fails.
    package func awaited(_ name: String) throws -> Data {
        while true {
            if let value = try value(name) { return value }
            usleep(20_000)
        }
    }

    /// The next number of a counter that all processes share, from 0.
    package func ticket(_ name: String) throws -> Int { try collecting { try store.add(name, 1) - 1 } }

    private func collecting<Value>(_ body: () throws -> Value) throws -> Value {
        if job.hasFailed { throw CollectiveFailure(message: "a process failed") }
        do { return try body() } catch { throw CollectiveFailure(message: "\(error)") }
    }
}

extension DistributedJob {
    /// A board with a connection of its own.
    package func board() throws -> JobBoard { try JobBoard(connection("board"), self) }
}
