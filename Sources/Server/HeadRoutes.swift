import Foundation
import Hummingbird
import LanguageModels
import PEFTSupport
import Serving
import Training

/// `/classify` and `/v1/embeddings`, for models with a head.
struct HeadRoutes: Sendable {
    let engine: Engine
    let names: ModelNames
    let frontEnds: FrontEnds
    let limits: RequestLimits
    let maxBody: Int
    /// Whether the base's head is trained, so that it answers without an adapter.
    let baseHasHead: Bool

    func add(to router: Router<ServerContext>) {
        router.post("/classify", use: classify)
        router.post("/v1/embeddings", use: embed)
    }

    /// A text, a pair of texts, or token ids.
    private enum Input: Decodable {
        case text(String, pair: String?)
        case tokens([Int])

        private struct Pair: Decodable {
            var text: String
            var pair: String?
        }

        init(from decoder: any Decoder) throws {
            let value = try decoder.singleValueContainer()
            if let text = try? value.decode(String.self) {
                self = .text(text, pair: nil)
            } else if let tokens = try? value.decode([Int].self) {
                self = .tokens(tokens)
            } else {
                let pair = try value.decode(Pair.self)
                self = .text(pair.text, pair: pair.pair)
            }
        }
    }

    private struct Fields: Decodable {
        var model: String?
        var input: OneOrMany<Input>
        var encoding_format: String?
        var dimensions: Int?
    }

    /// The outputs of the inputs, with the tokens that were read.
    private func outputs(
        _ incoming: Request, _ context: ServerContext, for tasks: [ModelTask], _ purpose: String
    ) async throws -> (fields: Fields, head: ModelHead, rows: [TrainingRow], outputs: [[Float]]) {
        var request = incoming
        let fields: Fields = try await JSONBody(&request, limit: maxBody).decoded()
        let adapter = try names.adapter(fields.model)
        let model = engine.model
        guard tasks.contains(model.head.task) else {
            throw APIError.invalid(
                "the model is for \(model.head.task.rawValue) and has no \(purpose)", "model")
        }
        guard adapter != nil || baseHasHead else {
            throw APIError.invalid("the base model has no trained head; name an adapter in 'model'", "model")
        }
        guard (1...2048).contains(fields.input.values.count) else {
            throw APIError.invalid("'input' has \(fields.input.values.count) texts; use 1 to 2048", "input")
        }
        let frontEnd = try frontEnds[adapter]
        guard
            let encoder = HeadEncoder(
                frontEnd.head, frontEnd.tokenizer, hasSegments: model.hasSegments, maxTokens: model.contextLength)
        else { throw APIError.invalid("the model has no \(purpose)", "model") }
        let rows = try fields.input.values.enumerated().map { index, input -> TrainingRow in
            switch input {
            case .tokens(let ids): return TrainingRow(input: ids, target: ids.map { _ in 0 })
            case .text(let text, let pair):
                if pair != nil, !frontEnd.head.task.scoresRows {
                    throw APIError.invalid("the task \(frontEnd.head.task.rawValue) has no pairs of texts", "input")
                }
                let (row, isTruncated) = try encoder.encode(text, pair: pair)
                guard !isTruncated else {
                    throw ServingError(
                        .tooLong, "input \(index) has more than \(model.contextLength) tokens; shorten it",
                        parameter: "input")
                }
                return row
            }
        }
        var encoding = EncodingRequest(rows, adapter: adapter)
        encoding.deadline = .now + .seconds(limits.seconds)
        if let client = Client.current {
            encoding.client = client.name
            client.take(tokens: rows.reduce(0) { $0 + $1.input.count })
        }
        let final = encoding
        let outputs = try await request.body.consumeWithCancellationOnInboundClose { _ in
            try await engine.encode(final)
        }
        return (fields, frontEnd.head, rows, outputs)
    }

    private func response(
        _ kind: String?, _ fields: Fields, _ context: ServerContext, _ data: [JSON], _ rows: [TrainingRow]
    )
        -> Response
    {
        let tokens = rows.reduce(0) { $0 + $1.input.count }
        context.logger.info("completed", metadata: ["prompt_tokens": .stringConvertible(tokens)])
        var answer: [String: JSON] = [
            "object": "list", "data": .array(data), "model": .string(fields.model ?? names.base),
            "usage": ["prompt_tokens": .integer(tokens), "total_tokens": .integer(tokens)],
        ]
        if let kind {
            answer["id"] = .string("\(kind)-\(context.requestID)")
            answer["created"] = .integer(Int(Date().timeIntervalSince1970))
        }
        var response = Response(.object(answer))
        // The body has been read to its end, to notice a client that leaves.
        response.headers[.connection] = "close"
        return response
    }

    // MARK: Labels

    @Sendable private func classify(_ request: Request, context: ServerContext) async throws -> Response {
        let (fields, head, rows, outputs) = try await outputs(
            request, context, for: [.classification, .multiLabel, .regression, .tokenClassification],
            "labels; use /v1/embeddings or /v1/completions")
        let data = outputs.enumerated().map { index, scores -> JSON in
            var result = Self.result(scores.map { Double($0) }, head)
            result["index"] = .integer(index)
            return .object(result)
        }
        return response("classify", fields, context, data, rows)
    }

    private static func result(_ scores: [Double], _ head: ModelHead) -> [String: JSON] {
        func named(_ values: [Double]) -> JSON {
            .object(Dictionary(zip(head.labels, values.map { .number($0) }), uniquingKeysWith: { first, _ in first }))
        }
        func best(_ values: [Double]) -> Int { values.indices.max { values[$0] < values[$1] } ?? 0 }
        func label(_ index: Int) -> String {
            head.labels.indices.contains(index) ? head.labels[index] : "LABEL_\(index)"
        }
        switch head.task {
        case .regression: return ["score": .number(scores.first ?? 0)]
        case .multiLabel:
            let values = scores.map { 1 / (1 + exp(-$0)) }
            return [
                "labels": .array(values.indices.filter { values[$0] > 0.5 }.map { .string(label($0)) }),
                "scores": named(values), "probs": .array(values.map { .number($0) }),
                "num_classes": .integer(values.count),
            ]
        case .tokenClassification:
            let size = max(1, head.labels.count)
            let tokens = stride(from: 0, to: scores.count, by: size).map { start in
                softmax(Array(scores[start..<min(start + size, scores.count)]))
            }
            return [
                "labels": .array(tokens.map { .string(label(best($0))) }),
                "scores": .array(tokens.map { .number($0[best($0)]) }), "num_classes": .integer(size),
            ]
        default:
            let values = softmax(scores)
            return [
                "label": .string(label(best(values))), "scores": named(values),
                "probs": .array(values.map { .number($0) }), "num_classes": .integer(values.count),
            ]
        }
    }

    private static func softmax(_ scores: [Double]) -> [Double] {
        let largest = scores.max() ?? 0
        let powers = scores.map { exp($0 - largest) }
        let sum = powers.reduce(0, +)
        return powers.map { $0 / sum }
    }

    // MARK: Embeddings

    @Sendable private func embed(_ request: Request, context: ServerContext) async throws -> Response {
        let (fields, _, rows, outputs) = try await outputs(
            request, context, for: [.embeddings],
            "embeddings; serve an encoder with --task embeddings, or a sentence-transformers folder")
        let format = fields.encoding_format ?? "float"
        guard ["float", "base64"].contains(format) else {
            throw APIError.invalid("'encoding_format' is '\(format)'; use float or base64", "encoding_format")
        }
        if let size = fields.dimensions, let own = outputs.first?.count, size != own {
            throw APIError.invalid("'dimensions' is \(size), but the model's embeddings have \(own)", "dimensions")
        }
        let data = outputs.enumerated().map { index, vector -> JSON in
            let value: JSON
            if format == "base64" {
                let bytes = vector.flatMap { withUnsafeBytes(of: $0.bitPattern.littleEndian) { Array($0) } }
                value = .string(Data(bytes).base64EncodedString())
            } else {
                value = .array(vector.map { .number(Double($0)) })
            }
            return ["object": "embedding", "index": .integer(index), "embedding": value]
        }
        return response(nil, fields, context, data, rows)
    }
}
