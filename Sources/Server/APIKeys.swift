import CHub
import HTTPTypes
import Hummingbird
import Synchronization

/// The clients with API keys, which a reload replaces. Only the keys' SHA-256 digests stay in memory.
final class APIKeys: Sendable {
    private let clients: Mutex<[Client]>
    /// Whether the server needs no key. One that was started with keys never becomes open.
    let isEmpty: Bool

    init(_ clients: [Client]) {
        isEmpty = clients.isEmpty
        self.clients = Mutex(clients)
    }

    /// Replaces the clients. Those that stay as they are keep what is left of their rates.
    /// - Returns: whether a key without limits is gone, with which a browser may have begun a session.
    func replace(_ new: [Client]) -> Bool {
        clients.withLock { clients in
            let kept = new.map { client in clients.first { $0.isSame(as: client) } ?? client }
            defer { clients = kept }
            return clients.contains { old in old.isAdministrator && !kept.contains { $0 === old } }
        }
    }

    /// The client with this key. Compares with all keys, in a time that does not depend on where they differ.
    func client(_ key: String) -> Client? {
        let digest = Self.digest(key)
        return clients.withLock { $0 }.reduce(nil) { found, client in
            let difference = zip(client.digest, digest).reduce(UInt8(0)) { $0 | ($1.0 ^ $1.1) }
            return difference == 0 ? client : found
        }
    }

    static func digest(_ key: String) -> [UInt8] {
        var state = chub_digest()
        chub_sha256_begin(&state)
        Array(key.utf8).withUnsafeBytes { chub_sha256_add(&state, $0.baseAddress, $0.count) }
        var sum = [UInt8](repeating: 0, count: 32)
        sum.withUnsafeMutableBufferPointer { chub_sha256_end(&state, $0.baseAddress) }
        return sum
    }
}

/// Rejects requests without an accepted key, except for health checks, and those that the key's limits don't allow.
struct APIKeyMiddleware<Context: RequestContext>: RouterMiddleware {
    let keys: APIKeys

    /// What a client with limits may ask for.
    private static var open: Set<String> {
        ["/v1/completions", "/v1/chat/completions", "/v1/messages", "/classify", "/v1/embeddings"]
    }
    private static var free: Set<String> { ["/v1/models", "/tokenize", "/detokenize"] }

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
        guard let key, let client = keys.client(key) else {
            throw APIError(
                .unauthorized, "missing or unknown API key; send 'Authorization: Bearer KEY'",
                type: "authentication_error",
                code: "invalid_api_key")
        }
        let path = request.uri.path
        let isCounted = Self.open.contains(path)
        guard client.isAdministrator || isCounted || Self.free.contains(path) || path.hasPrefix("/v1/models/") else {
            throw APIError(
                .forbidden, "the API key '\(client.name)' may not use \(path)", type: "permission_error",
                code: "insufficient_permissions")
        }
        if isCounted { try client.admit() }
        return try await Client.$current.withValue(client) { try await next(request, context) }
    }
}
