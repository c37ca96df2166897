import CTorch
import Foundation
import PEFTSupport

/// A key-value store over TCP that processes share (c10d's `TCPStore`). A connection is used by one thread at a time.
package final class KeyValueStore: @unchecked Sendable {
    let pointer: OpaquePointer

    private init(owning pointer: OpaquePointer) { self.pointer = pointer }
    deinit { ct_store_release(pointer) }

    /// Connects, and first starts the store if this process hosts it.
    /// - Parameters:
    ///   - listeningSocket: a socket that the host listens on already.
    ///   - prefix: put before every key.
    /// - Throws: ``PEFTError`` with libtorch's message.
    package init(
        host: String, port: Int, isHost: Bool, listeningSocket: Int32? = nil, prefix: String, timeout: Duration
    ) throws {
        guard
            let pointer = ct_store_connect(
                host, Int32(clamping: port), isHost, listeningSocket ?? -1, prefix, timeout.wholeMilliseconds)
        else { throw lastError() }
        self.pointer = pointer
    }

    /// Another connection, for another thread.
    package func clone() throws -> KeyValueStore {
        guard let copy = ct_store_clone(pointer) else { throw lastError() }
        return KeyValueStore(owning: copy)
    }

    /// The same connection for keys of their own.
    package func prefixed(_ prefix: String) throws -> KeyValueStore {
        guard let copy = ct_store_prefixed(pointer, prefix) else { throw lastError() }
        return KeyValueStore(owning: copy)
    }

    package func set(_ key: String, _ value: Data) throws {
        try throwing(value.withUnsafeBytes { ct_store_set(pointer, key, $0.baseAddress, $0.count) })
    }

    package func set(_ key: String, _ value: String) throws { try set(key, Data(value.utf8)) }

    /// Sets a key unless it exists.
    package func setOnce(_ key: String, _ value: String) throws {
        try throwing(ct_store_set_once(pointer, key, value))
    }

    /// Adds to a counter, which is 0 at first, and returns its value.
    @discardableResult
    package func add(_ key: String, _ value: Int) throws -> Int {
        var sum: Int64 = 0
        try throwing(ct_store_add(pointer, key, Int64(value), &sum))
        return Int(sum)
    }

    package func has(_ key: String) throws -> Bool {
        var exists = false
        try throwing(ct_store_check(pointer, key, &exists))
        return exists
    }

    /// A value, once another process has set it.
    package func data(_ key: String, within timeout: Duration) throws -> Data {
        var (bytes, count): (UnsafeMutableRawPointer?, Int) = (nil, 0)
        try throwing(ct_store_get(pointer, key, timeout.wholeMilliseconds, &bytes, &count))
        defer { free(bytes) }
        return bytes.map { Data(bytes: $0, count: count) } ?? Data()
    }

    package func text(_ key: String, within timeout: Duration) throws -> String {
        String(decoding: try data(key, within: timeout), as: UTF8.self)
    }
}

func lastError() -> PEFTError {
    let message = String(cString: ct_last_error())
    return PEFTError(message.split(separator: "\n").first.map(String.init) ?? "an unknown error of libtorch")
}

func throwing(_ status: Int32) throws { if status != 0 { throw lastError() } }

extension Duration {
    var wholeMilliseconds: Int64 { components.seconds * 1000 + components.attoseconds / 1_000_000_000_000_000 }
}
