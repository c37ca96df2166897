import Jinja
import Support
import Tokenizers

/// Which tokens of a row bear loss.
public enum ChatLoss: String, CaseIterable, Sendable, Codable {
    /// What the assistant wrote, in every turn.
    case assistant
    /// The assistant's last turn.
    case last
    /// Every token.
    case all
}

/// A conversation written down, and which parts of the text are the model's.
struct AssistantSpans {
    let text: String
    /// Bytes of the text, in order.
    let spans: [Range<Int>]
    /// Whether the template's generation blocks say so, whose word is final; else the turns' ends are found here.
    let isByTemplate: Bool

    /// - Throws: ``PEFTError`` where the template fails, or where a turn can't be told from the text around it.
    init(_ conversation: Conversation, _ template: ChatTemplate, _ loss: ChatLoss, _ variables: [String: JinjaValue])
        throws
    {
        let variables = variables.merging(conversation.variables) { _, own in own }
        func render(_ count: Int, prompts: Bool = false) throws -> JinjaTemplate.Rendering {
            do {
                return try template.render(
                    Array(conversation.messages.prefix(count)), tools: conversation.tools,
                    addGenerationPrompt: prompts,
                    variables: variables)
            } catch let error as PEFTError {
                throw PEFTError("\(conversation.row): \(error.problem)", remedy: error.remedy)
            }
        }
        let whole = try render(conversation.messages.count)
        text = whole.text
        let turns = conversation.assistantTurns
        if loss == .all || turns.isEmpty {
            spans = loss == .all ? [0..<whole.text.utf8.count] : []
            isByTemplate = true
            return
        }
        let wanted = loss == .last ? Array(turns.suffix(1)) : turns
        if template.hasGenerationBlocks(tools: conversation.tools) {
            isByTemplate = true
            let all = conversation.messages.indices.filter {
                Conversation.role(conversation.messages[$0]) == "assistant"
            }
            if wanted == all {
                spans = whole.generated
            } else {
                // A block for each turn: the last ones are those that are wanted.
                guard whole.generated.count == all.count else {
                    throw PEFTError(
                        "\(conversation.row): the template marks \(whole.generated.count) parts of \(all.count) assistant turns",
                        remedy: "use --loss assistant, or a template with one generation block a turn")
                }
                spans = zip(all, whole.generated).filter { wanted.contains($0.0) }.map(\.1)
            }
            return
        }
        isByTemplate = false
        spans = try wanted.map { turn in
            guard turn > 0 else {
                throw PEFTError(
                    "\(conversation.row) begins with an assistant turn, which nothing sets apart from the rest",
                    remedy: "begin with a user turn, or use a template with {% generation %} blocks")
            }
            let mayBeLast = turn != wanted.last
            let before = try render(turn, prompts: true).text
            let through = turn + 1 == conversation.messages.count ? whole.text : try render(turn + 1).text
            guard whole.text.hasBytes(atStart: before) else {
                throw Self.failure(conversation, turn, "differs from what the generation prompt begins", mayBeLast)
            }
            let end = try Self.end(of: through, in: whole.text, endToken: template.specialTokens["eos_token"]) {
                Self.failure(conversation, turn, "is written in another way when more turns follow", mayBeLast)
            }
            guard before.utf8.count <= end else {
                throw Self.failure(conversation, turn, "is shorter than the prompt that begins it", mayBeLast)
            }
            return before.utf8.count..<end
        }
    }

    /// How far the text up to a turn goes in the whole text. Some templates close every text with an end token, which
    /// the whole text has only at its end.
    private static func end(of part: String, in whole: String, endToken: String?, or error: () -> PEFTError) throws
        -> Int
    {
        if whole.hasBytes(atStart: part) { return part.utf8.count }
        guard let endToken, part.hasBytes(atEnd: endToken) else { throw error() }
        let shorter = String(decoding: part.utf8.dropLast(endToken.utf8.count), as: UTF8.self)
        guard whole.hasBytes(atStart: shorter) else { throw error() }
        return shorter.utf8.count
    }

    /// - Parameter mayBeLast: whether the last turn alone may do better.
    private static func failure(
        _ conversation: Conversation, _ turn: Int, _ what: String, _ mayBeLast: Bool
    ) -> PEFTError {
        PEFTError(
            "\(conversation.row): the assistant's turn in message \(turn + 1) \(what), so that its tokens can't be told exactly",
            remedy: (mayBeLast ? "use --loss last, or " : "use ")
                + "a template with {% generation %} blocks (--chat-template)")
    }
}

extension String {
    fileprivate func hasBytes(atStart part: String) -> Bool { utf8.starts(with: part.utf8) }
    fileprivate func hasBytes(atEnd part: String) -> Bool {
        utf8.count >= part.utf8.count && utf8.suffix(part.utf8.count).elementsEqual(part.utf8)
    }
}
