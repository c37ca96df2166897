import CHub
import Foundation
import PEFTSupport

/// The head of a response, and its body unless a sink received it.
struct HTTPResponse {
    var status = 0
    /// Headers by lowercase name; the last of several with the same name.
    var headers: [String: String] = [:]
    var body = Data()

    subscript(_ name: String) -> String? { headers[name.lowercased()] }
    var isRedirect: Bool { [301, 302, 303, 307, 308].contains(status) && self["location"] != nil }
}

/// Why there is no response.
enum HTTPFailure: Error {
    /// The host can't be found or doesn't respond.
    case unreachable(String)
    /// The connection was lost; a retry may succeed.
    case cut(String)
    /// A retry would fail as well.
    case impossible(String)
    case cancelled
}

/// A persistent connection; for one thread at a time.
///
/// It uses libcurl, as Foundation's `URLSession` does on Linux. `URLSession` adds about 20 ms to every start of the
/// program for its libraries, and buffers received data in an unbounded queue: a disk slower than the
/// network fills the memory. Here each chunk is written before the next is received.
final class HTTPSession {
    typealias Sink = (UnsafeRawBufferPointer) throws -> Void
    /// Maximum size of a body kept in memory.
    static let bodyLimit = 64 << 20

    private let session: OpaquePointer
    private let settings: HubSettings
    private let isCancelled: @Sendable () -> Bool

    /// - Throws: ``PEFTError`` if libcurl isn't installed.
    init(_ settings: HubSettings, isCancelled: @escaping @Sendable () -> Bool) throws {
        guard let session = chub_session_open() else {
            throw PEFTError(
                "can't reach a hub: \(chub_load().map { String(cString: $0) } ?? "out of memory")",
                remedy: "install the package libcurl4, or transfer the files by other means")
        }
        (self.session, self.settings, self.isCancelled) = (session, settings, isCancelled)
    }

    deinit { chub_session_close(session) }

    /// The context of libcurl's callbacks.
    private final class Exchange {
        var response = HTTPResponse()
        var sink: Sink?
        var error: (any Error)?
        var isDecided = false
        let decide: (HTTPResponse) throws -> Sink?
        let body: RequestBody?
        let isCancelled: () -> Bool

        init(
            decide: @escaping (HTTPResponse) throws -> Sink?, body: RequestBody?, isCancelled: @escaping () -> Bool
        ) {
            (self.decide, self.body, self.isCancelled) = (decide, body, isCancelled)
        }

        func header(_ line: String) {
            if line.hasPrefix("HTTP/") {
                // Interim responses and proxies send further heads; the last one counts.
                response = HTTPResponse()
                response.status = line.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
            } else if let colon = line.firstIndex(of: ":") {
                let name = line[..<colon].lowercased()
                response.headers[name] = line[line.index(after: colon)...].trimmingCharacters(
                    in: .whitespacesAndNewlines)
            }
        }

        func receive(_ bytes: UnsafeRawBufferPointer) throws {
            if !isDecided {
                isDecided = true
                sink = try decide(response)
            }
            if let sink { return try sink(bytes) }
            guard response.body.count + bytes.count <= HTTPSession.bodyLimit else {
                throw HTTPFailure.impossible("the answer is larger than \(HTTPSession.bodyLimit) bytes")
            }
            response.body.append(contentsOf: bytes)
        }
    }

    /// Makes one request; a redirect is a response like any other.
    ///
    /// - Parameters:
    ///   - body: the method and the data to send; `nil` for GET or HEAD.
    ///   - sink: returns the receiver of the body for the head of the response; `nil` to keep it in memory.
    /// - Throws: ``HTTPFailure``, or the sink's error.
    func request(
        _ url: String, headers: [String: String] = [:], isHead: Bool = false, body: RequestBody? = nil,
        sink: @escaping (HTTPResponse) throws -> Sink? = { _ in nil }
    ) throws -> HTTPResponse {
        if isCancelled() { throw HTTPFailure.cancelled }
        let exchange = Exchange(decide: sink, body: body, isCancelled: isCancelled)
        var lines = headers.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }
        // Without it, libcurl waits a second for a server that doesn't answer to Expect: 100-continue.
        if body != nil { lines.append("Expect:") }
        let result = withCStrings(lines) { lines in
            url.withCString { url in
                withOptionalCString(settings.authorities, body?.method) { authorities, method in
                    var request = chub_request()
                    request.url = url
                    request.headers = lines.baseAddress
                    request.header_count = Int32(lines.count)
                    request.is_head = isHead ? 1 : 0
                    request.connect_timeout = settings.connectTimeout
                    // A server may take its time to store what it received.
                    request.stall_timeout = body == nil ? settings.stallTimeout : max(settings.stallTimeout, 120)
                    request.method = method
                    request.body_size = Int64(body?.size ?? 0)
                    request.on_read = { bytes, count, offset, context in
                        guard let bytes, let context else { return -1 }
                        let exchange = Unmanaged<Exchange>.fromOpaque(context).takeUnretainedValue()
                        do {
                            return Int64(
                                try exchange.body?.read(
                                    into: UnsafeMutableRawBufferPointer(start: bytes, count: count),
                                    from: Int(offset)) ?? 0)
                        } catch {
                            exchange.error = error
                            return -1
                        }
                    }
                    request.authorities = authorities
                    request.context = Unmanaged.passUnretained(exchange).toOpaque()
                    request.on_header = { bytes, count, context in
                        guard let bytes, let context else { return 1 }
                        let line = String(decoding: UnsafeRawBufferPointer(start: bytes, count: count), as: UTF8.self)
                        Unmanaged<Exchange>.fromOpaque(context).takeUnretainedValue().header(line)
                        return 0
                    }
                    request.on_body = { bytes, count, context in
                        guard let context else { return 1 }
                        let exchange = Unmanaged<Exchange>.fromOpaque(context).takeUnretainedValue()
                        do { try exchange.receive(UnsafeRawBufferPointer(start: bytes, count: count)) } catch {
                            exchange.error = error
                            return 1
                        }
                        return 0
                    }
                    request.on_tick = { context in
                        guard let context else { return 1 }
                        return Unmanaged<Exchange>.fromOpaque(context).takeUnretainedValue().isCancelled() ? 1 : 0
                    }
                    return chub_perform(session, &request)
                }
            }
        }
        if let error = exchange.error { throw error }
        let message = withUnsafeBytes(of: result.message) { bytes in
            String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
        switch result.outcome {
        case CHUB_OK: break
        case CHUB_UNREACHABLE: throw HTTPFailure.unreachable(message)
        case CHUB_CUT: throw HTTPFailure.cut(message)
        case CHUB_STOPPED: throw HTTPFailure.cancelled
        default: throw HTTPFailure.impossible(message)
        }
        // Choose the sink for an empty body as well: the file may be empty.
        if !exchange.isDecided, !isHead { _ = try sink(exchange.response) }
        return exchange.response
    }
}

private func withOptionalCString<Result>(
    _ first: String?, _ second: String?, _ body: (UnsafePointer<CChar>?, UnsafePointer<CChar>?) -> Result
) -> Result {
    switch (first, second) {
    case (nil, nil): body(nil, nil)
    case (let first?, nil): first.withCString { body($0, nil) }
    case (nil, let second?): second.withCString { body(nil, $0) }
    case (let first?, let second?): first.withCString { first in second.withCString { body(first, $0) } }
    }
}

private func withCStrings<Result>(
    _ texts: [String], _ body: (UnsafeBufferPointer<UnsafePointer<CChar>?>) -> Result
) -> Result {
    let copies = texts.map { strdup($0) }
    defer { copies.forEach { free($0) } }
    return copies.map { UnsafePointer($0) }.withUnsafeBufferPointer(body)
}
