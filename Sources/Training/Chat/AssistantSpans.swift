import PEFTJinja
import PEFTSupport
import PEFTTokenizers

/// Which tokens of a conversation contribute to the loss.
public enum ChatLoss: String, CaseIterable, Sendable, Codable {
    /// The assistant's tokens in every turn.
    case assistant
    /// The assistant's tokens in its last turn.
    case last
    /// Every token.
    case all
}

/// A rendered conversation, and the parts of the text that the assistant wrote.
struct AssistantSpans {
    private(set) var text: String
    /// Byte ranges of the assistant's parts, in order.
    private(set) var spans: [Range<Int>]
    /// Whether the template's `{% generation %}` blocks give the spans; otherwise the turns are located in the text.
    let isByTemplate: Bool
    /// The reasoning tag that the generation prompt opens, if the last turn lacks it.
    private(set) var missingTag: String?

    /// - Throws: ``PEFTError`` if the template fails or a turn can't be located in the text.
    init(_ conversation: Conversation, _ template: ChatTemplate, _ loss: ChatLoss, _ variables: [String: JinjaValue])
        throws
    {
        let renderer = ConversationRenderer(conversation, template, variables)
        let whole = try renderer.render(conversation.messages)
        text = whole.text
        let turns = conversation.assistantTurns
        let left = loss == .all ? conversation.turnsWithoutLoss : []
        if loss == .all ? left.isEmpty : turns.isEmpty {
            spans = loss == .all ? [0..<whole.text.utf8.count] : []
            isByTemplate = true
            return
        }
        isByTemplate = template.hasGenerationBlocks(tools: conversation.tools)
        let found: [Range<Int>]
        var last: TurnLocator.Turn?
        let wanted = loss == .all ? left : loss == .last ? Array(turns.suffix(1)) : turns
        if isByTemplate {
            found = try Self.generated(conversation, wanted, whole)
        } else {
            let locator = TurnLocator(renderer, whole: whole.text)
            let located = try wanted.map { turn in
                do { return try locator.turn(turn) } catch let failure as TurnLocator.Failure {
                    throw Self.failure(conversation, turn, failure.reason, mayBeLast: turn != wanted.last)
                }
            }
            found = located.map(\.span)
            if loss != .all, wanted.last == conversation.messages.count - 1 { last = located.last }
        }
        spans = loss == .all ? Self.complement(of: found, in: whole.text.utf8.count) : found
        if let last { restoreReasoning(of: last, renderer) }
    }

    /// The spans of the template's generation blocks for the given turns.
    private static func generated(_ conversation: Conversation, _ wanted: [Int], _ whole: JinjaTemplate.Rendering)
        throws -> [Range<Int>]
    {
        let all = conversation.messages.indices.filter { Conversation.role(conversation.messages[$0]) == "assistant" }
        if wanted == all { return whole.generated }
        guard whole.generated.count == all.count else {
            throw PEFTError(
                "\(conversation.row): the template marks \(whole.generated.count) generation blocks for \(all.count) assistant turns",
                remedy:
                    "use --loss assistant without message weights, or a template with one generation block per turn")
        }
        return zip(all, whole.generated).filter { wanted.contains($0.0) }.map(\.1)
    }

    private static func complement(of spans: [Range<Int>], in count: Int) -> [Range<Int>] {
        var result: [Range<Int>] = []
        var start = 0
        for span in spans {
            if start < span.lowerBound { result.append(start..<span.lowerBound) }
            start = span.upperBound
        }
        return start < count ? result + [start..<count] : result
    }

    /// Renders the last turn after its generation prompt where that opens reasoning, the message has reasoning and the
    /// template omits it, as DeepSeek-R1's does: the model must learn to reason there.
    private mutating func restoreReasoning(of turn: TurnLocator.Turn, _ renderer: ConversationRenderer) {
        let messages = renderer.conversation.messages
        guard let tag = ReasoningTags.open(atEndOf: turn.missing), let closing = turn.closing else { return }
        missingTag = tag.tag
        let bytes = Array(text.utf8)
        guard let message = messages.last,
            let answer = LastAnswer.withReasoning(message, tag, endsLine: turn.missing.last == 0x0A),
            let prompt = renderer.bytes(Array(messages.dropLast()), prompts: true),
            prompt.starts(with: bytes[..<turn.span.lowerBound])
        else { return }
        missingTag = nil
        let restored = prompt + Array(answer.utf8) + closing
        text = String(decoding: restored, as: UTF8.self)
        spans[spans.count - 1] = prompt.count..<restored.count
    }

    /// - Parameter mayBeLast: whether training on the last turn only may succeed.
    private static func failure(
        _ conversation: Conversation, _ turn: Int, _ reason: String, mayBeLast: Bool
    ) -> PEFTError {
        PEFTError(
            "\(conversation.row): the assistant's turn in message \(turn + 1) \(reason), so its tokens can't be located exactly",
            remedy: (mayBeLast ? "use --loss last, or " : "use ")
                + "a template with {% generation %} blocks (--chat-template)")
    }
}
