import Foundation
import PEFTSupport
import Serving

/// Answers of `/v1/completions`.
struct CompletionFormat: AnswerFormat {
    let id: String
    let model: String
    let created = Int(Date().timeIntervalSince1970)
    let hasLogProbabilities: Bool
    /// The prompt of each choice, if it precedes the answer.
    let echoes: [String]
    let sendsUsage: Bool
    /// Length of the text of each choice so far, for `text_offset`.
    private var offsets: [Int: Int] = [:]

    init(id: String, model: String, hasLogProbabilities: Bool, echoes: [String], sendsUsage: Bool) {
        (self.id, self.model, self.hasLogProbabilities) = (id, model, hasLogProbabilities)
        (self.echoes, self.sendsUsage) = (echoes, sendsUsage)
    }

    private func object(_ choices: [JSON], _ usage: JSON?) -> JSON {
        var fields: [String: JSON] = [
            "id": .string(id), "object": "text_completion", "created": .integer(created), "model": .string(model),
            "choices": .array(choices),
        ]
        if let usage { fields["usage"] = usage }
        return .object(fields)
    }

    private func choice(_ index: Int, _ text: String, _ logProbabilities: JSON, _ reason: FinishReason?) -> JSON {
        [
            "index": .integer(index), "text": .string(text), "logprobs": logProbabilities,
            "finish_reason": reason.map { .string($0.name) } ?? .null,
            "stop_reason": reason.flatMap(\.stopText).map { .string($0) } ?? .null,
        ]
    }

    private static func logProbabilities(_ scores: [TokenLogProbability], from offset: Int) -> (JSON, end: Int) {
        var offset = offset
        var offsets: [JSON] = []
        for score in scores {
            offsets.append(.integer(offset))
            offset += score.chosen.text.unicodeScalars.count
        }
        let best = scores.map { score -> JSON in
            let entries = score.best.map { ($0.text, JSON.number($0.logProbability)) }
            return .object(Dictionary(entries, uniquingKeysWith: { first, _ in first }))
        }
        return (
            [
                "tokens": .array(scores.map { .string($0.chosen.text) }),
                "token_logprobs": .array(scores.map { .number($0.chosen.logProbability) }),
                "top_logprobs": .array(best),
                "text_offset": .array(offsets),
            ], offset
        )
    }

    private func echo(_ index: Int) -> String { echoes.indices.contains(index) ? echoes[index] : "" }

    func answer(_ choices: [ChoiceAnswer], _ usage: Usage) -> JSON {
        object(
            choices.enumerated().map { index, answer in
                let scores =
                    hasLogProbabilities
                    ? Self.logProbabilities(answer.logProbabilities, from: echo(index).unicodeScalars.count).0 : .null
                return choice(index, echo(index) + answer.text, scores, answer.reason)
            }, usage.json)
    }

    func opening(_ choice: Int) -> [JSON] {
        let echo = echo(choice)
        return echo.isEmpty ? [] : [object([self.choice(choice, echo, .null, nil)], sendsUsage ? .null : nil)]
    }

    mutating func chunks(_ choice: Int, _ text: String, _ logProbability: TokenLogProbability?) -> [JSON] {
        var scores = JSON.null
        if hasLogProbabilities, let logProbability {
            let start = offsets[choice] ?? echo(choice).unicodeScalars.count
            (scores, offsets[choice]) = Self.logProbabilities([logProbability], from: start)
        }
        guard !text.isEmpty || scores != .null else { return [] }
        return [object([self.choice(choice, text, scores, nil)], sendsUsage ? .null : nil)]
    }

    func closing(_ choice: Int, _ text: String, _ reason: FinishReason) -> [JSON] {
        [object([self.choice(choice, text, .null, reason)], sendsUsage ? .null : nil)]
    }

    func usageChunk(_ usage: Usage) -> JSON { object([], usage.json) }
}

extension FinishReason {
    /// The stop text of the request that ended the choice.
    var stopText: String? { if case .stop(let text) = self { text } else { nil } }
}
