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

    init(id: String, model: String, hasLogProbabilities: Bool, sendsUsage: Bool) {
        (self.id, self.model) = (id, model)
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
                [
                    "index": .integer(index),
                    "message": ["role": "assistant", "content": .string(answer.text), "refusal": .null],
                    "logprobs": logProbabilities(answer.logProbabilities),
                    "finish_reason": .string(answer.reason.name),
                    "stop_reason": answer.reason.stopText.map { .string($0) } ?? .null,
                ]
            }, usage.json)
    }

    private func chunk(_ choice: Int, _ delta: JSON, _ scores: JSON = .null, _ reason: FinishReason? = nil) -> JSON {
        object(
            "chat.completion.chunk",
            [
                [
                    "index": .integer(choice), "delta": delta, "logprobs": scores,
                    "finish_reason": reason.map { .string($0.name) } ?? .null,
                    "stop_reason": reason.flatMap(\.stopText).map { .string($0) } ?? .null,
                ]
            ], sendsUsage ? .null : nil)
    }

    func opening(_ choice: Int) -> [JSON] { [chunk(choice, ["role": "assistant", "content": ""])] }

    func chunk(_ choice: Int, _ text: String, _ logProbability: TokenLogProbability?) -> JSON? {
        let scores = logProbability.map { logProbabilities([$0]) } ?? .null
        guard !text.isEmpty || scores != .null else { return nil }
        return chunk(choice, ["content": .string(text)], scores)
    }

    func closing(_ choice: Int, _ text: String, _ reason: FinishReason) -> JSON {
        chunk(choice, text.isEmpty ? [:] : ["content": .string(text)], .null, reason)
    }

    func usageChunk(_ usage: Usage) -> JSON { object("chat.completion.chunk", [], usage.json) }
}
