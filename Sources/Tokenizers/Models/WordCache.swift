import Foundation

/// The ids of words that were met before: text repeats itself.
///
/// One caller at a time has it; whoever finds it taken goes without, which is faster than to wait.
final class WordCache: @unchecked Sendable {
    // Everything below is touched only between `begin` and `end`, that is, under the lock.
    private let lock = NSLock()
    private var words = ByteTable()
    private var ids: [Int] = []
    private var ends: [Int] = []

    /// Longer words hardly come twice.
    static let longestWord = 64
    private static let capacity = 1 << 15

    /// - Returns: whether the caller may use the cache until it calls ``end()``.
    func begin() -> Bool { lock.try() }
    func end() { lock.unlock() }

    /// Appends the ids of `word` if they are known.
    func find(_ word: UnsafeBufferPointer<UInt8>, into result: inout [Int]) -> Bool {
        guard let number = words.number(of: word) else { return false }
        result.append(contentsOf: ids[(number == 0 ? 0 : ends[number - 1])..<ends[number]])
        return true
    }

    /// Remembers the ids of a word that is not known yet.
    func store(_ word: UnsafeBufferPointer<UInt8>, _ newIDs: ArraySlice<Int>) {
        if words.count >= WordCache.capacity {
            words = ByteTable()
            ids.removeAll()
            ends.removeAll()
        }
        words.insert(word)
        ids.append(contentsOf: newIDs)
        ends.append(ids.count)
    }
}
