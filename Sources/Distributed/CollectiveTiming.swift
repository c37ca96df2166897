import Foundation

/// How long processes wait for each other.
package struct CollectiveTiming: Sendable {
    /// Between two signs of life of a process.
    var beat = Duration.milliseconds(500)
    /// Silence after which a process counts as hung.
    var silence = Duration.seconds(10)
    /// Silence after which a process counts as dead once a connection has failed.
    var silenceAfterFailure = Duration.seconds(2)
    /// For all processes to start.
    package var join = Duration.seconds(300)

    package init() {}

    /// With `PEFT_JOIN_TIMEOUT` and `PEFT_HANG_TIMEOUT` in seconds.
    package init(_ variables: [String: String]) {
        func seconds(_ name: String) -> Duration? {
            variables[name].flatMap { Int($0) }.flatMap { $0 > 0 ? .seconds($0) : nil }
        }
        join = seconds("PEFT_JOIN_TIMEOUT") ?? join
        silence = seconds("PEFT_HANG_TIMEOUT") ?? silence
    }
}
