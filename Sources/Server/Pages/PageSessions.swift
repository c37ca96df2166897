import Foundation
import HTTPTypes
import Hummingbird

/// Browsers that stated an API key at `/login`: a page can't be opened with an `Authorization` header, so a cookie that no
/// script and no other site can use stands for the key.
final class PageSessions: Sendable {
    static let shared = PageSessions()

    private static let cookie = "peft_session"
    private static let pages: Set = ["/", "/playground", "/runs"]
    /// Random tokens; a restart of the server ends all sessions, and so does a reload that removes a key.
    private let tokens = LockedSet()

    /// Whether a request needs no key in its header: the login itself, or one with the cookie of a session.
    func accept(_ request: Request) -> Bool {
        if request.uri.path == "/login" { return true }
        let cookies = request.headers[values: .cookie].flatMap { $0.split(separator: ";") }
        return cookies.contains { cookie in
            let parts = cookie.trimmingCharacters(in: .whitespaces).split(separator: "=", maxSplits: 1)
            return parts.count == 2 && parts[0] == Self.cookie && tokens.contains(String(parts[1]))
        }
    }

    /// Where a browser that opens a page is sent instead of getting an error; `nil` for requests of other programs.
    func login(_ request: Request) -> Response? {
        let path = request.uri.path
        guard request.method == .get, Self.pages.contains(path) || path.hasPrefix("/runs/"),
            request.headers[.authorization] == nil, request.headers[.accept]?.contains("text/html") == true
        else { return nil }
        return Response(status: .seeOther, headers: [.location: "/login?next=\(path)"])
    }

    /// The cookie of a new session.
    /// - Parameter isSecure: whether browsers send it over HTTPS alone.
    func begin(isSecure: Bool) -> String {
        var random = SystemRandomNumberGenerator()
        let token = (0..<4).map { _ in String(random.next(), radix: 36) }.joined()
        tokens.insert(token)
        return "\(Self.cookie)=\(token); Path=/; HttpOnly; SameSite=Strict\(isSecure ? "; Secure" : "")"
    }

    /// Ends all sessions.
    func endAll() { tokens.removeAll() }

    /// A set of texts that several threads use.
    private final class LockedSet: @unchecked Sendable {
        private let lock = NSLock()
        private var values: Set<String> = []

        func contains(_ value: String) -> Bool { lock.withLock { values.contains(value) } }
        func insert(_ value: String) { lock.withLock { _ = values.insert(value) } }
        func removeAll() { lock.withLock { values = [] } }
    }
}
