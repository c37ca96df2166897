import Foundation
import HTTPTypes
import Hummingbird
import Logging
import PEFTSupport

/// Context of a request.
struct ServerContext: RequestContext {
    var coreContext: CoreRequestContextStorage
    /// `X-Request-Id` of the client, or a new id.
    var requestID = ""

    init(source: Source) { coreContext = .init(source: source) }
}

/// Gives each request an id, logs one line when it is answered, and turns errors into OpenAI's form.
struct RequestLog: RouterMiddleware {
    typealias Context = ServerContext

    func handle(
        _ request: Request, context: ServerContext, next: (Request, ServerContext) async throws -> Response
    ) async throws -> Response {
        let start = ContinuousClock.now
        var context = context
        context.requestID = Self.accepted(request.headers[.requestID]) ?? UUID().uuidString.lowercased()
        context.logger[metadataKey: "request_id"] = .string(context.requestID)
        var response: Response
        var metadata: Logger.Metadata = [
            "method": .string(request.method.rawValue), "path": .string(request.uri.path),
        ]
        do { response = try await next(request, context) } catch {
            let failure = APIError(error)
            metadata["error"] = .string(failure.message)
            if failure.status == .internalServerError { metadata["cause"] = .string(String(describing: error)) }
            response = try failure.response(from: request, context: context)
        }
        response.headers[.requestID] = context.requestID
        let duration = start.duration(to: .now)
        metadata["status"] = .stringConvertible(response.status.code)
        metadata["milliseconds"] = .stringConvertible(
            Int(Double(duration.components.seconds) * 1e3 + Double(duration.components.attoseconds) * 1e-15))
        let isPolled =
            ["/health", "/ready", "/metrics"].contains(request.uri.path) || request.uri.path.hasSuffix("/live")
        let isQuiet = isPolled && response.status == .ok
        context.logger.log(
            level: isQuiet ? .debug : response.status.code >= 500 ? .error : .info, "request", metadata: metadata)
        return response
    }

    /// A client's id, if it is short and plain, so that it can't forge log lines.
    private static func accepted(_ id: String?) -> String? {
        guard let id, (1...128).contains(id.utf8.count),
            id.utf8.allSatisfy({
                (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0)
                    || "-_.".utf8.contains($0)
            })
        else { return nil }
        return id
    }
}

extension HTTPField.Name {
    /// The name is valid, so that the fallback is never used.
    static let requestID = HTTPField.Name("X-Request-Id") ?? .eTag
}

/// Log lines on standard error, as JSON objects or as text.
struct ServerLogHandler: LogHandler {
    var logLevel: Logger.Level
    var metadata: Logger.Metadata = [:]
    let isJSON: Bool

    init(level: Logger.Level, isJSON: Bool) { (logLevel, self.isJSON) = (level, isJSON) }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let all = metadata.merging(event.metadata ?? [:]) { $1 }.filter { $0.key != "hb.request.id" }
        let time = Date().formatted(.iso8601.year().month().day().time(includingFractionalSeconds: true))
        let line: String
        if isJSON {
            var fields = all.mapValues { value -> JSON in
                let text = "\(value)"
                return Int(text).map { .integer($0) } ?? .string(text)
            }
            fields["time"] = .string(time)
            fields["level"] = .string(event.level.rawValue)
            fields["message"] = .string("\(event.message)")
            line = JSON.object(fields).text(indent: nil)
        } else {
            let rest = all.sorted { $0.key < $1.key }.map { " \($0.key)=\($0.value)" }.joined()
            line = "\(time) \(event.level.rawValue) \(event.message)\(rest)".filter { $0 != "\n" && $0 != "\r" }
        }
        _ = StandardStreams.write(line + "\n", to: STDERR_FILENO, .milliseconds(1000))
    }
}
