import Foundation
import Hummingbird
import Logging
import PEFTSupport
import Serving

/// The events of one or more requests, with the index of the request.
typealias AnswerEvents = AsyncStream<(request: Int, event: GenerationEvent)>

/// Merges the events of requests as they come. Ending the iteration cancels all of them.
func merged(_ streams: [AsyncStream<GenerationEvent>]) -> AnswerEvents {
    let (merged, continuation) = AnswerEvents.makeStream()
    let task = Task {
        await withTaskGroup(of: Void.self) { group in
            for (index, stream) in streams.enumerated() {
                group.addTask {
                    for await event in stream { continuation.yield((index, event)) }
                }
            }
        }
        continuation.finish()
    }
    continuation.onTermination = { _ in task.cancel() }
    return merged
}

/// A complete choice.
struct ChoiceAnswer: Sendable {
    var text = ""
    var logProbabilities: [TokenLogProbability] = []
    var reason = FinishReason.length
}

/// How an endpoint writes answers.
protocol AnswerFormat: Sendable {
    /// The complete answer.
    func answer(_ choices: [ChoiceAnswer], _ usage: Usage) -> JSON
    /// Chunks of a stream before the first token of a choice.
    func opening(_ choice: Int) -> [JSON]
    /// Chunks with text; none if there is nothing to send.
    mutating func chunks(_ choice: Int, _ text: String, _ logProbability: TokenLogProbability?) -> [JSON]
    /// The last chunks of a choice.
    mutating func closing(_ choice: Int, _ text: String, _ reason: FinishReason) -> [JSON]
    /// A chunk with the usage.
    func usageChunk(_ usage: Usage) -> JSON
    /// The server-sent event of a chunk.
    func event(_ chunk: JSON) -> String
    /// The last event of a stream.
    var lastEvent: String { get }
    /// The chunk of a request that fails after its answer began.
    func failure(_ error: APIError) -> JSON
}

extension AnswerFormat {
    func event(_ chunk: JSON) -> String { "data: \(chunk.text(indent: nil))\n\n" }
    var lastEvent: String { "data: [DONE]\n\n" }
    func failure(_ error: APIError) -> JSON { error.json }
}

extension Usage {
    var json: JSON {
        [
            "prompt_tokens": .integer(promptTokens), "completion_tokens": .integer(completionTokens),
            "total_tokens": .integer(promptTokens + completionTokens),
            "prompt_tokens_details": ["cached_tokens": .integer(cachedTokens)],
        ]
    }
}

/// Sends answers.
struct Answering {
    let request: Request
    let context: ServerContext
    /// Number of choices of each request.
    let choices: Int
    let count: Int

    /// The complete answer, or a stream of server-sent events.
    func respond(_ events: AnswerEvents, _ format: some AnswerFormat, streams: Bool, includesUsage: Bool) async throws
        -> Response
    {
        streams ? stream(events, format, includesUsage: includesUsage) : try await whole(events, format)
    }

    private func whole(_ events: AnswerEvents, _ format: some AnswerFormat) async throws -> Response {
        let (answers, usage) = try await request.body.consumeWithCancellationOnInboundClose { _ in
            var answers = [ChoiceAnswer](repeating: ChoiceAnswer(), count: choices * count)
            var usage = Usage(promptTokens: 0, completionTokens: 0)
            var open = count
            for await (index, event) in events {
                switch event {
                case .token(let choice, _, let text, let score):
                    answers[index * choices + choice].text += text
                    if let score { answers[index * choices + choice].logProbabilities.append(score) }
                case .finished(let choice, let text, let reason):
                    answers[index * choices + choice].text += text
                    answers[index * choices + choice].reason = reason
                case .done(let part):
                    usage.promptTokens += part.promptTokens
                    usage.completionTokens += part.completionTokens
                    usage.cachedTokens += part.cachedTokens
                    open -= 1
                case .failed(let error): throw error
                }
            }
            guard open == 0 else { throw CancellationError() }
            return (answers, usage)
        }
        log(usage)
        var response = Response(format.answer(answers, usage))
        // The body has been read to its end, to notice a client that leaves.
        response.headers[.connection] = "close"
        return response
    }

    private func stream(_ events: AnswerEvents, _ format: some AnswerFormat, includesUsage: Bool) -> Response {
        let body = ResponseBody { writer in
            let start = ContinuousClock.now
            var isComplete = false
            // The line of the request itself was logged when its answer began.
            defer {
                if !isComplete {
                    context.logger.info("client left", metadata: ["after": "\(start.duration(to: .now))"])
                }
            }
            try await request.body.consumeWithCancellationOnInboundClose { _ in
                var format = format
                var usage = Usage(promptTokens: 0, completionTokens: 0)
                var opened: Set<Int> = []
                func data(_ json: JSON) -> ByteBuffer { ByteBuffer(string: format.event(json)) }
                for await (index, event) in events {
                    var chunks: [JSON] = []
                    func open(_ choice: Int) {
                        if opened.insert(choice).inserted { chunks += format.opening(choice) }
                    }
                    switch event {
                    case .token(let choice, _, let text, let score):
                        open(index * choices + choice)
                        chunks += format.chunks(index * choices + choice, text, score)
                    case .finished(let choice, let text, let reason):
                        open(index * choices + choice)
                        chunks += format.closing(index * choices + choice, text, reason)
                    case .done(let part):
                        usage.promptTokens += part.promptTokens
                        usage.completionTokens += part.completionTokens
                        usage.cachedTokens += part.cachedTokens
                    case .failed(let error):
                        context.logger.error("request failed", metadata: ["error": .string(error.message)])
                        try await writer.write(data(format.failure(APIError(error))))
                        try await writer.write(ByteBuffer(string: format.lastEvent))
                        isComplete = true
                        return
                    }
                    for chunk in chunks { try await writer.write(data(chunk)) }
                }
                guard !Task.isCancelled else { throw CancellationError() }
                if includesUsage { try await writer.write(data(format.usageChunk(usage))) }
                try await writer.write(ByteBuffer(string: format.lastEvent))
                isComplete = true
                log(usage)
            }
            try await writer.finish(nil)
        }
        return Response(
            status: .ok,
            headers: [.contentType: "text/event-stream", .cacheControl: "no-cache", .connection: "close"], body: body)
    }

    private func log(_ usage: Usage) {
        context.logger.info(
            "completed",
            metadata: [
                "prompt_tokens": .stringConvertible(usage.promptTokens),
                "completion_tokens": .stringConvertible(usage.completionTokens),
            ])
    }
}
