import Foundation
import PEFTSupport
import Yams

/// Who sends a request: an API key with what it may use.
final class Client: Sendable {
    /// The client of the current request; `nil` on servers without keys.
    @TaskLocal static var current: Client?

    let name: String
    let digest: [UInt8]
    /// Names that it may use as `model`; all if `nil`.
    private let models: Set<String>?
    private let requests: RateLimit?
    private let tokens: RateLimit?

    /// A key without limits.
    convenience init(name: String, key: String) {
        self.init(name: name, digest: APIKeys.digest(key), models: nil, requests: nil, tokens: nil)
    }

    private init(name: String, digest: [UInt8], models: Set<String>?, requests: RateLimit?, tokens: RateLimit?) {
        (self.name, self.digest, self.models) = (name, digest, models)
        (self.requests, self.tokens) = (requests, tokens)
    }

    /// Whether it may see all adapters and metrics, and load and unload adapters.
    var isAdministrator: Bool { models == nil }

    /// Whether another entry says the same.
    func isSame(as other: Client) -> Bool {
        name == other.name && digest == other.digest && models == other.models
            && requests?.perMinute == other.requests?.perMinute && tokens?.perMinute == other.tokens?.perMinute
    }

    func mayUse(_ model: String) -> Bool { models?.contains(model) ?? true }

    /// Counts a request.
    /// - Throws: ``APIError`` with status 429 while a limit is reached.
    func admit(now: ContinuousClock.Instant = .now) throws {
        for (limit, unit, cost) in [(tokens, "tokens", 0), (requests, "requests", 1)] {
            guard let limit, let seconds = limit.take(cost, ifAvailable: now) else { continue }
            var error = APIError(
                .tooManyRequests,
                "the API key '\(name)' has used its \(limit.perMinute) \(unit) per minute; try again later",
                type: "rate_limit_error", code: "rate_limit_exceeded")
            error.retryAfter = seconds
            throw error
        }
    }

    /// Counts tokens that were processed.
    func take(tokens count: Int) { tokens?.take(count, now: .now) }
}

/// A number per minute, which may be used at once: a token bucket.
private final class RateLimit: @unchecked Sendable {
    let perMinute: Int
    private let lock = NSLock()
    private var left: Double
    private var updated: ContinuousClock.Instant?

    init(perMinute: Int) { (self.perMinute, left) = (perMinute, Double(perMinute)) }

    /// Takes `count` if anything is left, in one step, so that requests at the same time can't share what is left for one.
    /// - Returns: seconds until something is left; `nil` if it was taken.
    func take(_ count: Int, ifAvailable now: ContinuousClock.Instant) -> Int? {
        lock.withLock {
            refill(now)
            // One request must fit; tokens are counted after their use, and may have been more than were left.
            let missing = 1 - left
            guard missing <= 0 else { return max(1, Int((missing * 60 / Double(perMinute)).rounded(.up))) }
            left -= Double(count)
            return nil
        }
    }

    func take(_ count: Int, now: ContinuousClock.Instant) {
        lock.withLock {
            refill(now)
            left -= Double(count)
        }
    }

    private func refill(_ now: ContinuousClock.Instant) {
        if let updated {
            let seconds = updated.duration(to: now).components
            let passed = Double(seconds.seconds) + Double(seconds.attoseconds) * 1e-18
            left = min(Double(perMinute), left + max(0, passed) * Double(perMinute) / 60)
        }
        updated = now
    }
}

extension Client {
    /// The clients of a file of `--keys`: a YAML or JSON list with `name`, `sha256` of the key, and optionally `models`,
    /// `requests_per_minute` and `tokens_per_minute`.
    /// - Throws: ``PEFTError`` for a file that can't be read, and entries that are not such.
    static func read(_ path: String) throws -> [Client] {
        guard let text = try? String(contentsOfFile: NSString(string: path).expandingTildeInPath, encoding: .utf8)
        else { throw PEFTError("can't read \(path)", remedy: "check that the file exists and is UTF-8") }
        guard let entries = (try? Yams.compose(yaml: text))?.flatMap({ $0.sequence }).map(Array.init) else {
            throw PEFTError(
                "\(path) is not a list of keys", remedy: "use entries with 'name' and 'sha256' (docs/serving.md)")
        }
        let clients = try entries.enumerated().map { try client($1, place: "\(path), entry \($0 + 1)") }
        for (index, client) in clients.enumerated()
        where clients[..<index].contains(where: { $0.name == client.name || $0.digest == client.digest }) {
            throw PEFTError(
                "\(path): the name or the key of '\(client.name)' occurs twice",
                remedy: "give each key a name of its own")
        }
        return clients
    }

    private static func client(_ entry: Node, place: String) throws -> Client {
        func failure(_ what: String, _ remedy: String) -> PEFTError { PEFTError("\(place): \(what)", remedy: remedy) }
        guard let mapping = entry.mapping else { throw failure("not a mapping", "use lines such as 'name: alice'") }
        let known = ["name", "sha256", "models", "requests_per_minute", "tokens_per_minute"]
        for key in mapping.keys where !known.contains(key.string ?? "") {
            // A limit with a typing error would be none.
            throw failure("unknown field '\(key.string ?? "")'", "use \(known.joined(separator: ", "))")
        }
        guard let name = mapping["name"]?.string, !name.isEmpty, name.utf8.count <= 128 else {
            throw failure("'name' is missing", "use 1 to 128 characters")
        }
        guard let digest = mapping["sha256"]?.string.flatMap(bytes), digest.count == 32 else {
            throw failure(
                "'sha256' is not a SHA-256 digest", "use the 64 digits that 'printf %s KEY | sha256sum' prints")
        }
        func rate(_ key: String) throws -> RateLimit? {
            guard let value = mapping[key] else { return nil }
            guard let number = value.int, (1...1_000_000_000).contains(number) else {
                throw failure("'\(key)' is no number", "use 1 or more, or leave it out")
            }
            return RateLimit(perMinute: number)
        }
        let models = try mapping["models"].map { node -> Set<String> in
            guard let list = node.sequence.map(Array.init), !list.isEmpty else {
                throw failure("'models' is not a list of names", "name adapters or the base, or leave it out for all")
            }
            return try Set(
                list.map { item in
                    guard let name = item.string else { throw failure("'models' has no names", "use texts") }
                    return name
                })
        }
        return Client(
            name: name, digest: digest, models: models, requests: try rate("requests_per_minute"),
            tokens: try rate("tokens_per_minute"))
    }

    private static func bytes(_ hexadecimal: String) -> [UInt8]? {
        let digits = Array(hexadecimal.utf8)
        guard digits.count.isMultiple(of: 2), hexadecimal.allSatisfy(\.isHexDigit),
            hexadecimal.utf8.count == hexadecimal.count
        else { return nil }
        var result: [UInt8] = []
        for start in stride(from: 0, to: digits.count, by: 2) {
            guard let byte = UInt8(String(decoding: digits[start..<(start + 2)], as: UTF8.self), radix: 16) else {
                return nil
            }
            result.append(byte)
        }
        return result
    }
}
