import CTorch
import Foundation

/// The allocations of tensors on the meta device, in order: a step there uses no memory, but shows how much it would
/// use on another device.
package struct MemoryLog: Sendable {
    package enum Event: Sendable {
        case made(block: Int, bytes: Int)
        case freed(block: Int)
        /// Start or end of a chunk of logits.
        case logits(begin: Bool)
    }

    /// Allocations and releases in order.
    package private(set) var events: [Event] = []
    /// Named positions in ``events``, in order.
    package private(set) var marks: [(name: String, place: Int)] = []

    private static let turn = NSLock()

    /// Logs the allocations of `body`; `mark` names a position. There is one log at a time: other threads wait.
    package static func record(_ body: (_ mark: (String) -> Void) throws -> Void) throws -> MemoryLog {
        try turn.withLock { try recordAlone(body) }
    }

    private static func recordAlone(_ body: (_ mark: (String) -> Void) throws -> Void) throws -> MemoryLog {
        var log = MemoryLog()
        try withTorchErrors {
            if ct_memory_log_begin() != 0 { FailureLog.record(String(cString: ct_last_error())) }
        }
        do {
            try withTorchErrors { try body { log.marks.append(($0, Int(ct_memory_log_count()))) } }
        } catch {
            _ = ct_memory_log_end(nil, 0)
            throw error
        }
        let count = Int(ct_memory_log_count())
        var pairs = [Int64](repeating: 0, count: 2 * count)
        let copied = Int(ct_memory_log_end(&pairs, Int64(count)))
        log.events = (0..<copied).map {
            let block = Int(pairs[2 * $0])
            if block == 0 { return .logits(begin: pairs[2 * $0 + 1] == 1) }
            return block > 0 ? .made(block: block, bytes: Int(pairs[2 * $0 + 1])) : .freed(block: -block)
        }
        return log
    }
}
