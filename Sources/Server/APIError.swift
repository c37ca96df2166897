import Foundation
import HTTPTypes
import Hummingbird
import PEFTSupport
import Serving

/// An error in OpenAI's form: `{"error": {"message", "type", "param", "code"}}`.
struct APIError: Error, HTTPResponseError {
    let status: HTTPResponse.Status
    let message: String
    var type = "invalid_request_error"
    var parameter: String?
    var code: String?
    /// Seconds for `Retry-After`.
    var retryAfter: Int?

    init(
        _ status: HTTPResponse.Status, _ message: String, type: String = "invalid_request_error",
        parameter: String? = nil,
        code: String? = nil
    ) {
        (self.status, self.message, self.type) = (status, message, type)
        (self.parameter, self.code) = (parameter, code)
    }

    static func invalid(_ message: String, _ parameter: String? = nil) -> APIError {
        APIError(.badRequest, message, parameter: parameter)
    }

    init(_ error: any Error) {
        switch error {
        case let error as APIError: self = error
        case let error as ServingError: self.init(serving: error)
        case let error as PEFTError: self.init(.badRequest, error.description)
        case let error as HTTPError:
            self.init(error.status, error.body ?? error.status.reasonPhrase.lowercased())
        case is CancellationError:
            self.init(.clientLeft, "the client closed the connection", type: "server_error")
        case let error as any HTTPResponseError:
            self.init(error.status, error.status.reasonPhrase.lowercased())
        default: self.init(.internalServerError, "internal error", type: "server_error")
        }
    }

    private init(serving error: ServingError) {
        switch error.kind {
        case .invalid: self.init(.badRequest, error.message, parameter: error.parameter)
        case .unknownModel:
            self.init(
                .notFound, error.message, type: "not_found_error", parameter: error.parameter, code: "model_not_found"
            )
        case .tooLong:
            self.init(
                .badRequest, error.message, parameter: error.parameter, code: "context_length_exceeded")
        case .busy(let seconds):
            self.init(.tooManyRequests, error.message, type: "rate_limit_error", code: "rate_limit_exceeded")
            retryAfter = seconds
        case .deadline: self.init(.gatewayTimeout, error.message, type: "timeout_error", code: "timeout")
        case .shuttingDown:
            self.init(.serviceUnavailable, error.message, type: "server_error", code: "shutting_down")
            retryAfter = 10
        case .adapter: self.init(.badRequest, error.message, parameter: error.parameter, code: "adapter_rejected")
        case .failed: self.init(.internalServerError, error.message, type: "server_error")
        }
    }

    var json: JSON {
        [
            "error": [
                "message": .string(message), "type": .string(type), "param": parameter.map { .string($0) } ?? .null,
                "code": code.map { .string($0) } ?? .null,
            ]
        ]
    }

    func response(from request: Request, context: some RequestContext) throws -> Response {
        var response = Response(request.uri.path == "/v1/messages" ? messagesJSON : json, status: status)
        if let retryAfter { response.headers[.retryAfter] = String(retryAfter) }
        if status == .unauthorized { response.headers[.wwwAuthenticate] = "Bearer" }
        return response
    }
}

extension HTTPResponse.Status {
    /// nginx's status, for the log.
    static let clientLeft = HTTPResponse.Status(code: 499, reasonPhrase: "Client Closed Request")
}

extension Response {
    /// A JSON response.
    init(_ json: JSON, status: HTTPResponse.Status = .ok) {
        self.init(
            status: status, headers: [.contentType: "application/json"],
            body: ResponseBody(byteBuffer: ByteBuffer(string: json.text(indent: nil))))
    }
}
