import Foundation
import PEFTSupport
import Serving

/// Answers of `/v1/messages`, in Anthropic's form.
struct MessagesFormat: AnswerFormat {
    let id: String
    let model: String
    let promptTokens: Int
    let tools: ToolUse?
    /// The tool calls of a stream.
    private var reader: ToolCallReader?
    /// Number of complete blocks, and the type of the open one.
    private var blocks = 0
    private var open: String?
    private var ending: (reason: String, stop: JSON) = ("end_turn", .null)

    init(id: String, model: String, promptTokens: Int, tools: ToolUse?) {
        (self.id, self.model, self.promptTokens, self.tools) = (id, model, promptTokens, tools)
        reader = tools.map { ToolCallReader($0) }
    }

    private func message(_ content: [JSON], _ ending: (reason: JSON, stop: JSON), _ usage: JSON) -> JSON {
        [
            "id": .string(id), "type": "message", "role": "assistant", "model": .string(model),
            "content": .array(content), "stop_reason": ending.reason, "stop_sequence": ending.stop, "usage": usage,
        ]
    }

    private static func usage(_ usage: Usage) -> JSON {
        [
            "input_tokens": .integer(usage.promptTokens - usage.cachedTokens),
            "cache_read_input_tokens": .integer(usage.cachedTokens), "cache_creation_input_tokens": 0,
            "output_tokens": .integer(usage.completionTokens),
        ]
    }

    private static func ending(_ reason: FinishReason, calls: Int) -> (reason: String, stop: JSON) {
        switch reason {
        case .length: ("max_tokens", .null)
        case .stop(let text?): ("stop_sequence", .string(text))
        case .stop: (calls > 0 ? "tool_use" : "end_turn", .null)
        }
    }

    func answer(_ choices: [ChoiceAnswer], _ usage: Usage) -> JSON {
        guard let answer = choices.first else { return .null }
        var reader = reader
        let events = reader.map { _ in [] } ?? [ToolCallReader.Event.text(answer.text)]
        let all = events + (reader?.append(answer.text) ?? []) + (reader?.finish() ?? [])
        var content: [JSON] = []
        var text = ""
        func closeText() {
            if !text.isEmpty { content.append(["type": "text", "text": .string(text)]) }
            text = ""
        }
        for event in all {
            switch event {
            case .text(let part): text += part
            case .call(_, let id, let name, let arguments):
                closeText()
                let input = (try? JSON.parse(Data(arguments.utf8), name: "arguments")) ?? [:]
                content.append(["type": "tool_use", "id": .string(id), "name": .string(name), "input": input])
            case .arguments: break
            }
        }
        closeText()
        let ending = Self.ending(answer.reason, calls: reader?.count ?? 0)
        return message(content, (.string(ending.reason), ending.stop), Self.usage(usage))
    }

    // MARK: Streams

    func opening(_ choice: Int) -> [JSON] {
        let usage = Self.usage(Usage(promptTokens: promptTokens, completionTokens: 0))
        return [["type": "message_start", "message": message([], (.null, .null), usage)]]
    }

    mutating func chunks(_ choice: Int, _ text: String, _ logProbability: TokenLogProbability?) -> [JSON] {
        let events = reader == nil ? (text.isEmpty ? [] : [.text(text)]) : reader?.append(text) ?? []
        return chunks(events)
    }

    private mutating func chunks(_ events: [ToolCallReader.Event]) -> [JSON] {
        var result: [JSON] = []
        for event in events {
            switch event {
            case .text(let text):
                result += begin("text", ["type": "text", "text": ""])
                result.append(delta(["type": "text_delta", "text": .string(text)]))
            case .call(let index, let id, let name, let arguments):
                result += begin(
                    "call \(index)", ["type": "tool_use", "id": .string(id), "name": .string(name), "input": [:]])
                result.append(delta(["type": "input_json_delta", "partial_json": .string(arguments)]))
            case .arguments(_, let arguments):
                result.append(delta(["type": "input_json_delta", "partial_json": .string(arguments)]))
            }
        }
        return result
    }

    private func delta(_ delta: JSON) -> JSON {
        ["type": "content_block_delta", "index": .integer(blocks), "delta": delta]
    }

    /// Begins a block, unless it is the open one.
    private mutating func begin(_ name: String, _ block: JSON) -> [JSON] {
        guard open != name else { return [] }
        let end = endBlock()
        open = name
        return end + [["type": "content_block_start", "index": .integer(blocks), "content_block": block]]
    }

    private mutating func endBlock() -> [JSON] {
        guard open != nil else { return [] }
        defer { (open, blocks) = (nil, blocks + 1) }
        return [["type": "content_block_stop", "index": .integer(blocks)]]
    }

    mutating func closing(_ choice: Int, _ text: String, _ reason: FinishReason) -> [JSON] {
        let result = chunks(choice, text, nil) + chunks(reader?.finish() ?? []) + endBlock()
        ending = Self.ending(reason, calls: reader?.count ?? 0)
        return result
    }

    func usageChunk(_ usage: Usage) -> JSON {
        [
            "type": "message_delta",
            "delta": ["stop_reason": .string(ending.reason), "stop_sequence": ending.stop],
            "usage": Self.usage(usage),
        ]
    }

    var lastEvent: String { Self.event(["type": "message_stop"]) }

    func event(_ chunk: JSON) -> String { Self.event(chunk) }

    func failure(_ error: APIError) -> JSON { error.messagesJSON }

    private static func event(_ chunk: JSON) -> String {
        "event: \(chunk["type"]?.string ?? "error")\ndata: \(chunk.text(indent: nil))\n\n"
    }
}

extension APIError {
    /// The error in Anthropic's form.
    var messagesJSON: JSON {
        let type =
            switch status.code {
            case 401: "authentication_error"
            case 403: "permission_error"
            case 404: "not_found_error"
            case 413: "request_too_large"
            case 429: "rate_limit_error"
            case 503: "overloaded_error"
            case 504: "timeout_error"
            case 500...: "api_error"
            default: "invalid_request_error"
            }
        return ["type": "error", "error": ["type": .string(type), "message": .string(message)]]
    }
}
