import Foundation
import PEFTSupport
import Serving

/// Answers of `/v1/chat/completions`.
struct ChatFormat: AnswerFormat {
    let id: String
    let model: String
    let created = Int(Date().timeIntervalSince1970)
    let hasLogProbabilities: Bool
    let sendsUsage: Bool
    let tools: ToolUse?
    /// The tool calls of each choice of a stream.
    private var readers: [Int: ToolCallReader] = [:]

    init(id: String, model: String, hasLogProbabilities: Bool, sendsUsage: Bool, tools: ToolUse? = nil) {
        (self.id, self.model, self.tools) = (id, model, tools)
        (self.hasLogProbabilities, self.sendsUsage) = (hasLogProbabilities, sendsUsage)
    }

    private func object(_ kind: String, _ choices: [JSON], _ usage: JSON?) -> JSON {
        var fields: [String: JSON] = [
            "id": .string(id), "object": .string(kind), "created": .integer(created), "model": .string(model),
            "choices": .array(choices),
        ]
        if let usage { fields["usage"] = usage }
        return .object(fields)
    }

    private func logProbabilities(_ scores: [TokenLogProbability]) -> JSON {
        guard hasLogProbabilities else { return .null }
        func entry(_ entry: TokenLogProbability.Entry) -> [String: JSON] {
            let isWhole = !entry.text.unicodeScalars.contains("\u{FFFD}")
            return [
                "token": .string(entry.text), "logprob": .number(entry.logProbability),
                "bytes": isWhole ? .array(entry.text.utf8.map { .integer(Int($0)) }) : .null,
            ]
        }
        let content = scores.map { score -> JSON in
            var fields = entry(score.chosen)
            fields["top_logprobs"] = .array(score.best.map { .object(entry($0)) })
            return .object(fields)
        }
        return ["content": .array(content), "refusal": .null]
    }

    func answer(_ choices: [ChoiceAnswer], _ usage: Usage) -> JSON {
        object(
            "chat.completion",
            choices.enumerated().map { index, answer in
                let (message, reason) = message(answer)
                return [
                    "index": .integer(index), "message": message,
                    "logprobs": logProbabilities(answer.logProbabilities), "finish_reason": .string(reason),
                    "stop_reason": answer.reason.stopText.map { .string($0) } ?? .null,
                ]
            }, usage.json)
    }

    /// The message of a complete choice, and why it ended.
    private func message(_ answer: ChoiceAnswer) -> (JSON, reason: String) {
        var fields: [String: JSON] = ["role": "assistant", "content": .string(answer.text), "refusal": .null]
        guard let tools else { return (.object(fields), answer.reason.name) }
        var reader = ToolCallReader(tools)
        var text = ""
        var calls: [JSON] = []
        for event in reader.append(answer.text) + reader.finish() {
            switch event {
            case .text(let part): text += part
            case .call(_, let id, let name, let arguments): calls.append(Self.call(id, name, arguments))
            case .arguments: break
            }
        }
        fields["content"] = text.isEmpty && !calls.isEmpty ? .null : .string(text)
        if !calls.isEmpty { fields["tool_calls"] = .array(calls) }
        return (.object(fields), reader.reason(answer.reason))
    }

    private static func call(_ id: String, _ name: String, _ arguments: String) -> JSON {
        [
            "id": .string(id), "type": "function",
            "function": ["name": .string(name), "arguments": .string(arguments)],
        ]
    }

    private func chunk(
        _ choice: Int, _ delta: JSON, _ scores: JSON = .null, reason: String? = nil, stop: String? = nil
    )
        -> JSON
    {
        object(
            "chat.completion.chunk",
            [
                [
                    "index": .integer(choice), "delta": delta, "logprobs": scores,
                    "finish_reason": reason.map { .string($0) } ?? .null,
                    "stop_reason": stop.map { .string($0) } ?? .null,
                ]
            ], sendsUsage ? .null : nil)
    }

    func opening(_ choice: Int) -> [JSON] { [chunk(choice, ["role": "assistant", "content": ""])] }

    mutating func chunks(_ choice: Int, _ text: String, _ logProbability: TokenLogProbability?) -> [JSON] {
        let scores = logProbability.map { logProbabilities([$0]) } ?? .null
        guard let tools else {
            guard !text.isEmpty || scores != .null else { return [] }
            return [chunk(choice, ["content": .string(text)], scores)]
        }
        let events = readers[choice, default: ToolCallReader(tools)].append(text)
        var chunks = events.map { chunk(choice, Self.delta($0)) }
        if scores != .null { chunks.append(chunk(choice, [:], scores)) }
        return chunks
    }

    /// What an event adds to the message.
    private static func delta(_ event: ToolCallReader.Event) -> JSON {
        switch event {
        case .text(let text): return ["content": .string(text)]
        case .call(let index, let id, let name, let arguments):
            var fields = call(id, name, arguments).object ?? [:]
            fields["index"] = .integer(index)
            return ["tool_calls": [.object(fields)]]
        case .arguments(let index, let arguments):
            return ["tool_calls": [["index": .integer(index), "function": ["arguments": .string(arguments)]]]]
        }
    }

    mutating func closing(_ choice: Int, _ text: String, _ reason: FinishReason) -> [JSON] {
        guard let tools else {
            return [
                chunk(
                    choice, text.isEmpty ? [:] : ["content": .string(text)], reason: reason.name,
                    stop: reason.stopText)
            ]
        }
        var reader = readers[choice] ?? ToolCallReader(tools)
        let events = reader.append(text) + reader.finish()
        readers[choice] = nil
        return events.map { chunk(choice, Self.delta($0)) } + [
            chunk(choice, [:], reason: reader.reason(reason), stop: reason.stopText)
        ]
    }

    func usageChunk(_ usage: Usage) -> JSON { object("chat.completion.chunk", [], usage.json) }
}
