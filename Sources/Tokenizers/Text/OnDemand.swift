import Foundation

/// A value that is made when it is first asked for, once for all threads.
final class OnDemand<Value: Sendable>: @unchecked Sendable {
    // Touched only under the lock.
    private var value: Value?
    private let lock = NSLock()

    func value(_ make: () -> Value) -> Value {
        lock.lock()
        defer { lock.unlock() }
        if let value { return value }
        let made = make()
        value = made
        return made
    }
}
