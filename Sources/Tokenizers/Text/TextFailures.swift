import Foundation
import PEFTSupport

/// Encoding and decoding don't throw. If a tokenizer file makes them take unbounded time or memory, the stage leaves
/// its text unchanged and records the error here, for the enclosing ``withTokenizerErrors(_:)`` to throw.
enum TextFailures {
    final class Entry { var first: (any Error)? }
    private static let key = "swift-peft.tokenizer-failures"

    /// Per thread: a text is encoded on one.
    static var current: Entry {
        if let entry = Thread.current.threadDictionary[key] as? Entry { return entry }
        let entry = Entry()
        Thread.current.threadDictionary[key] = entry
        return entry
    }

    static func record(_ error: any Error) {
        let entry = current
        if entry.first == nil { entry.first = error }
    }

    /// Maximum bytes after replacements; ordinary ones expand a text at most a few times.
    static func limit(for count: Int) -> Int { max(1 << 20, 64 * count) }

    static func recordGrowth(_ count: Int) {
        record(
            PEFTError(
                "the tokenizer's replacements expand a short text to \(count) bytes",
                remedy: "check 'Replace' in tokenizer.json"))
    }
}

/// Runs `body` and throws the first failure that a tokenizer had in it on this thread.
/// - Throws: what `body` throws, or a ``PEFTError`` for a regular expression or a replacement of the tokenizer's file that goes
///   beyond all bounds.
package func withTokenizerErrors<Result>(_ body: () throws -> Result) throws -> Result {
    let entry = TextFailures.current
    let outer = entry.first
    entry.first = nil
    defer { entry.first = outer }
    let result = try body()
    if let error = entry.first { throw error }
    return result
}
