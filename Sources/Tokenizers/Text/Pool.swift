import Foundation

/// A pool of working memory: each encoding thread borrows an instance, whose caches are reused by the next.
final class Pool<Item: AnyObject>: @unchecked Sendable {
    // Accessed only under the lock.
    private var free: [Item] = []
    private let lock = NSLock()
    private let make: @Sendable () -> Item

    init(_ make: @escaping @Sendable () -> Item) { self.make = make }

    func with<Result>(_ body: (Item) throws -> Result) rethrows -> Result {
        lock.lock()
        let last = free.popLast()
        lock.unlock()
        let item = last ?? make()
        defer {
            lock.lock()
            free.append(item)
            lock.unlock()
        }
        return try body(item)
    }
}
