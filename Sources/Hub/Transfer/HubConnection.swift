import Foundation
import PEFTSupport

/// Requests to a hub: the token is sent to the hub only, redirects are followed, and transient errors are retried.
final class HubConnection {
    private let session: HTTPSession
    private let settings: HubSettings
    private let isCancelled: @Sendable () -> Bool
    private let origin: Origin

    /// Scheme, host and port that the token may be sent to.
    struct Origin: Equatable {
        let scheme: String
        let host: String
        let port: Int

        init?(_ url: String) {
            guard let parts = URLComponents(string: url), let scheme = parts.scheme?.lowercased(),
                ["http", "https"].contains(scheme), let host = parts.host?.lowercased(), !host.isEmpty
            else { return nil }
            (self.scheme, self.host, port) = (scheme, host, parts.port ?? (scheme == "https" ? 443 : 80))
        }
    }

    init(_ settings: HubSettings, isCancelled: @escaping @Sendable () -> Bool) throws {
        guard let origin = Origin(settings.endpoint) else {
            throw PEFTError(
                "'\(settings.endpoint)' is not a valid hub address",
                remedy: "set HF_ENDPOINT to an address that begins with https://")
        }
        self.origin = origin
        (self.settings, self.isCancelled) = (settings, isCancelled)
        session = try HTTPSession(settings, isCancelled: isCancelled)
    }

    /// One request with its redirects.
    ///
    /// - Parameter stopsAtOtherHosts: whether to return a redirect to another host instead of following it, as its headers
    ///   have the checksum and size.
    /// - Parameter body: what to send. A redirect of status 303 asks for a GET, the others for the same request.
    /// - Returns: the last response, with the hub's own headers (`X-…`) of those before it.
    func send(
        _ address: String, headers: [String: String] = [:], isHead: Bool = false, stopsAtOtherHosts: Bool = false,
        body: RequestBody? = nil,
        sink: @escaping (HTTPResponse) throws -> HTTPSession.Sink? = { _ in nil }
    ) throws -> HTTPResponse {
        var address = address
        var body = body
        var carried: [String: String] = [:]
        for _ in 0..<10 {
            guard let here = Origin(address) else {
                throw HTTPFailure.impossible("the hub redirects to '\(address)'")
            }
            var headers = headers
            // The length of a compressed body would differ from the file's.
            headers["Accept-Encoding"] = "identity"
            headers["User-Agent"] = "swift-peft/\(Version.current)"
            if here == origin, let token = settings.token { headers["Authorization"] = "Bearer \(token)" }
            var response = try session.request(address, headers: headers, isHead: isHead, body: body) { head in
                guard (200..<300).contains(head.status) else { return nil }
                return try sink(head)
            }
            for (name, value) in response.headers where name.hasPrefix("x-") && carried[name] == nil {
                carried[name] = value
            }
            guard response.isRedirect, let location = response["location"],
                let next = URL(string: location, relativeTo: URL(string: address))?.absoluteString
            else {
                response.headers.merge(carried) { _, first in first }
                return response
            }
            let there = Origin(next)
            if here.scheme == "https", there?.scheme != "https" {
                throw HTTPFailure.impossible("the hub redirects from https to '\(there?.scheme ?? next)'")
            }
            if stopsAtOtherHosts, there != origin {
                response.headers.merge(carried) { _, first in first }
                return response
            }
            if response.status == 303 { body = nil }
            address = next
        }
        throw HTTPFailure.impossible("the hub redirects without end")
    }

    /// Retries transient failures up to the maximum number of attempts.
    ///
    /// - Parameter progress: bytes received so far. Progress resets the number of attempts.
    func retrying(progress: () -> Int = { 0 }, _ attempt: () throws -> HTTPResponse) throws -> HTTPResponse {
        var failures = 0
        var reached = progress()
        while true {
            let wait: Double?
            do {
                let response = try attempt()
                guard Self.isTemporary(response.status) else { return response }
                failures += 1
                if failures >= settings.attempts { return response }
                wait = response["retry-after"].flatMap(Self.seconds)
            } catch HTTPFailure.cut(let reason) {
                if progress() > reached { failures = 0 }
                failures += 1
                if failures >= settings.attempts { throw HTTPFailure.cut(reason) }
                wait = nil
            } catch HTTPFailure.unreachable(let reason) {
                failures += 1
                // A host that can't be found is rarely found a second later.
                if failures >= min(2, settings.attempts) { throw HTTPFailure.unreachable(reason) }
                wait = nil
            }
            reached = progress()
            // Random jitter, so that clients that failed together don't retry together.
            let own = settings.retryDelay * Double(1 << min(failures - 1, 6)) * Double.random(in: 0.75...1.25)
            try pause(max(wait ?? 0, own))
        }
    }

    private static func isTemporary(_ status: Int) -> Bool { [408, 429, 500, 502, 503, 504].contains(status) }

    /// A `Retry-After`, in seconds or as a date; 2 minutes at most.
    static func seconds(_ text: String) -> Double? {
        if let seconds = Double(text), seconds.isFinite { return min(max(0, seconds), 120) }
        let reader = DateFormatter()
        reader.locale = Locale(identifier: "en_US_POSIX")
        reader.dateFormat = "EEE, dd MMM yyyy HH:mm:ss zzz"
        return reader.date(from: text).map { min(max(0, $0.timeIntervalSinceNow), 120) }
    }

    private func pause(_ seconds: Double) throws {
        let end = ContinuousClock.now + .seconds(seconds)
        while ContinuousClock.now < end {
            if isCancelled() { throw HTTPFailure.cancelled }
            Thread.sleep(forTimeInterval: min(0.05, seconds))
        }
    }
}
