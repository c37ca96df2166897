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
                "can't download: \(chub_load().map { String(cString: $0) } ?? "out of memory")",
                remedy: "install the package libcurl4, or download the model by other means and pass its folder")
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
        let isCancelled: () -> Bool

        init(decide: @escaping (HTTPResponse) throws -> Sink?, isCancelled: @escaping () -> Bool) {
            (self.decide, self.isCancelled) = (decide, isCancelled)
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

        func body(_ bytes: UnsafeRawBufferPointer) throws {
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
    /// - Parameter sink: returns the receiver of the body for the head of the response; `nil` to keep it in memory.
    /// - Throws: ``HTTPFailure``, or the sink's error.
    func request(
        _ url: String, headers: [String: String] = [:], isHead: Bool = false,
        sink: @escaping (HTTPResponse) throws -> Sink? = { _ in nil }
    ) throws -> HTTPResponse {
        if isCancelled() { throw HTTPFailure.cancelled }
        let exchange = Exchange(decide: sink, isCancelled: isCancelled)
        let lines = headers.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }
        let result = withCStrings(lines) { lines in
            url.withCString { url in
                withOptionalCString(settings.authorities) { authorities in
                    var request = chub_request()
                    request.url = url
                    request.headers = lines.baseAddress
                    request.header_count = Int32(lines.count)
                    request.is_head = isHead ? 1 : 0
                    request.connect_timeout = settings.connectTimeout
                    request.stall_timeout = settings.stallTimeout
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
                        do { try exchange.body(UnsafeRawBufferPointer(start: bytes, count: count)) } catch {
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

private func withOptionalCString<Result>(_ text: String?, _ body: (UnsafePointer<CChar>?) -> Result) -> Result {
    guard let text else { return body(nil) }
    return text.withCString { body($0) }
}

private func withCStrings<Result>(
    _ texts: [String], _ body: (UnsafeBufferPointer<UnsafePointer<CChar>?>) -> Result
) -> Result {
    let copies = texts.map { strdup($0) }
    defer { copies.forEach { free($0) } }
    return copies.map { UnsafePointer($0) }.withUnsafeBufferPointer(body)
}
