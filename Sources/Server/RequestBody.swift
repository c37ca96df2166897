import Foundation
import Hummingbird
import PEFTSupport

/// A request's JSON body.
struct JSONBody: Sendable {
    let json: JSON
    private let data: Data
    /// The body with its fields in their order, if it is known.
    private var order: OrderedJSON?

    /// A body that another one stands for.
    init(_ body: OrderedJSON) {
        (json, order) = (body.json, body)
        data = Data(json.text(indent: nil).utf8)
    }

    /// Reads the body.
    /// - Throws: ``APIError`` if it is too large or no JSON object.
    init(_ request: inout Request, limit: Int) async throws {
        if let length = request.headers[.contentLength].flatMap({ Int($0) }), length > limit {
            throw Self.tooLarge(limit)
        }
        let buffer: ByteBuffer
        do { buffer = try await request.collectBody(upTo: limit) } catch let error as any HTTPResponseError
            where error.status == .contentTooLarge
        {
            throw Self.tooLarge(limit)
        }
        data = Data(buffer.readableBytesView)
        do { json = try JSON.parse(data, name: "the body") } catch {
            throw APIError(.badRequest, "the body is not valid JSON", code: "invalid_json")
        }
        guard json.object != nil else { throw APIError.invalid("the body is not a JSON object") }
    }

    private static func tooLarge(_ limit: Int) -> APIError {
        APIError(.contentTooLarge, "the body has more than \(limit) bytes", code: "body_too_large")
    }

    /// The body with its fields in their order.
    /// - Throws: ``PEFTError`` for a name that occurs twice.
    func ordered() throws -> OrderedJSON { try order ?? OrderedJSON.parse(data, name: "the body") }

    /// The body as a value.
    /// - Throws: ``APIError`` that names a field of the wrong type.
    func decoded<Value: Decodable>(as _: Value.Type = Value.self) throws -> Value {
        do { return try JSONDecoder().decode(Value.self, from: data) } catch let error as DecodingError {
            let (path, problem): ([any CodingKey], String) =
                switch error {
                case .typeMismatch(_, let context): (context.codingPath, "has the wrong type")
                case .valueNotFound(_, let context): (context.codingPath, "is null")
                case .keyNotFound(let key, let context): (context.codingPath + [key], "is missing")
                case .dataCorrupted(let context): (context.codingPath, "is invalid")
                @unknown default: ([], "is invalid")
                }
            let name = path.map { $0.intValue.map { "[\($0)]" } ?? $0.stringValue }.joined(separator: ".")
            throw APIError.invalid("'\(name)' \(problem)", name.isEmpty ? nil : name)
        }
    }
}
