import CHub
import HTTPTypes
import Hummingbird

/// The API keys that clients may use. Only their SHA-256 digests stay in memory.
struct APIKeys: Sendable {
    private let digests: [[UInt8]]

    init(_ keys: [String]) { digests = keys.map(Self.digest) }

    /// Compares with all keys, in a time that does not depend on where they differ.
    func accept(_ key: String) -> Bool {
        let digest = Self.digest(key)
        return digests.reduce(false) { found, own in
            let difference = zip(own, digest).reduce(UInt8(0)) { $0 | ($1.0 ^ $1.1) }
            return found || difference == 0
        }
    }

    var isEmpty: Bool { digests.isEmpty }

    private static func digest(_ key: String) -> [UInt8] {
        var state = chub_digest()
        chub_sha256_begin(&state)
        Array(key.utf8).withUnsafeBytes { chub_sha256_add(&state, $0.baseAddress, $0.count) }
        var sum = [UInt8](repeating: 0, count: 32)
        sum.withUnsafeMutableBufferPointer { chub_sha256_end(&state, $0.baseAddress) }
        return sum
    }
}

/// Rejects requests without an accepted key, except for health checks.
struct APIKeyMiddleware<Context: RequestContext>: RouterMiddleware {
    let keys: APIKeys

    func handle(
        _ request: Request, context: Context, next: (Request, Context) async throws -> Response
    ) async throws -> Response {
        let isOpen = ["/health", "/ready"].contains(request.uri.path)
        guard !keys.isEmpty, !isOpen, !PageSessions.shared.accept(request) else {
            return try await next(request, context)
        }
        if let login = PageSessions.shared.login(request) { return login }
        let header = request.headers[.authorization] ?? ""
        let scheme = "bearer "
        // Anthropic's clients send a header of their own.
        let key =
            header.lowercased().hasPrefix(scheme)
            ? String(header.dropFirst(scheme.count)) : HTTPField.Name("X-Api-Key").flatMap { request.headers[$0] }
        guard let key, keys.accept(key) else {
            throw APIError(
                .unauthorized, "missing or unknown API key; send 'Authorization: Bearer KEY'",
                type: "authentication_error",
                code: "invalid_api_key")
        }
        return try await next(request, context)
    }
}
