import PEFTSupport

/// A common dataset format, which determines the prompt and the target of a row.
public enum RowFormat: String, CaseIterable, Sendable {
    /// Alpaca: `instruction`, `input` (optional) and `output`.
    case alpaca
    /// ShareGPT: `conversations`, a list of messages with `from` and `value`.
    case sharegpt
    /// OpenAI and TRL: `messages`, a list of messages with `role` and `content`, or such lists as `prompt` and `completion`.
    case messages
    /// The texts `prompt` and `completion`.
    case completion
    /// `text`, all of which is the target (language modeling).
    case text

    /// Whether rows hold messages to be rendered by a chat template.
    package var isChat: Bool { self == .sharegpt || self == .messages }

    /// The display name.
    package var title: String {
        switch self {
        case .alpaca: "Alpaca"
        case .sharegpt: "ShareGPT"
        case .messages: "chat messages"
        case .completion: "prompts and completions"
        case .text: "text"
        }
    }

    /// What is the prompt and what the target, for messages to the user.
    package var summary: String {
        switch self {
        case .alpaca: "instruction and input are the prompt, output is the target"
        case .sharegpt, .messages: "the assistant's messages are the targets"
        case .completion: "prompt is the prompt, completion is the target"
        case .text: "all of text is the target"
        }
    }

    /// The required fields.
    package var requiredFields: [String] {
        switch self {
        case .alpaca: ["instruction", "output"]
        case .sharegpt: ["conversations"]
        case .messages: ["messages"]
        case .completion: ["prompt", "completion"]
        case .text: ["text"]
        }
    }

    /// Metadata fields, which don't affect recognition.
    private static let aside: Set<String> = [
        "id", "idx", "meta", "metadata", "source", "url", "date", "timestamp", "lang", "language",
    ]

    /// The format of a row; `nil` if its fields are ambiguous.
    package static func recognized(in row: Row) -> RowFormat? {
        let texts = Set(row.fields.filter { $0.value.string != nil }.keys)
        if ChatRows.areIn(row) { return ChatRows.hasShareGPT(row) ? .sharegpt : .messages }
        if texts.isSuperset(of: ["instruction", "output"]) { return .alpaca }
        if texts.isSuperset(of: ["prompt", "completion"]) { return .completion }
        if texts.contains("text"), Set(row.fields.keys).subtracting(aside) == ["text"] { return .text }
        return nil
    }

    /// Whether a row has the required fields.
    package func fits(_ row: Row) -> Bool {
        if isChat { return ChatRows.areIn(row) && (self == .sharegpt) == ChatRows.hasShareGPT(row) }
        return requiredFields.allSatisfy { row[$0]?.string != nil }
    }

    /// The templates of a prompt and its target; `nil` for rows of messages.
    /// - Parameter asTurns: whether both become the turns of a chat, which need no headings.
    package func templates(asTurns: Bool) -> (prompt: String, target: String)? {
        switch self {
        case .alpaca where asTurns: ("{instruction}{?input}\n\n{input}{/input}", "{output}")
        case .alpaca:
            (
                "### Instruction:\n{instruction}{?input}\n\n### Input:\n{input}{/input}\n\n### Response:\n",
                "{output}"
            )
        case .completion: ("{prompt}", "{completion}")
        case .text: ("", "{text}")
        case .sharegpt, .messages: nil
        }
    }
}
