import Foundation

/// A value created lazily at its first use, once for all threads.
final class OnDemand<Value: Sendable>: @unchecked Sendable {
    // Accessed only under the lock.
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
