import Support

/// A layout of rows that data sets share, which tells what of a row is read and what is learned.
public enum RowFormat: String, CaseIterable, Sendable {
    /// Alpaca's: `instruction`, `input` (which may be missing or empty) and `output`.
    case alpaca
    /// ShareGPT's: `conversations`, a list of messages with `from` and `value`.
    case sharegpt
    /// OpenAI's and TRL's: `messages`, a list of messages with `role` and `content`, or lists as `prompt` and `completion`.
    case messages
    /// The texts `prompt` and `completion`.
    case completion
    /// `text`, all of which is learned.
    case text

    /// Whether rows hold messages, which a chat template writes.
    public var isChat: Bool { self == .sharegpt || self == .messages }

    /// The name as its users write it.
    public var title: String {
        switch self {
        case .alpaca: "Alpaca"
        case .sharegpt: "ShareGPT"
        case .messages: "chat messages"
        case .completion: "prompts and completions"
        case .text: "text"
        }
    }

    /// What the rows' fields are for.
    public var summary: String {
        switch self {
        case .alpaca: "instruction and input are read, output is learned"
        case .sharegpt, .messages: "the assistant's messages are learned"
        case .completion: "prompt is read, completion is learned"
        case .text: "all of text is learned"
        }
    }

    /// The fields without which a row isn't of this format.
    public var requiredFields: [String] {
        switch self {
        case .alpaca: ["instruction", "output"]
        case .sharegpt: ["conversations"]
        case .messages: ["messages"]
        case .completion: ["prompt", "completion"]
        case .text: ["text"]
        }
    }

    /// Fields that say where a text is from and leave no doubt what it is for.
    private static let aside: Set<String> = [
        "id", "idx", "meta", "metadata", "source", "url", "date", "timestamp", "lang", "language",
    ]

    /// The format of a row, where its fields leave no doubt.
    public static func recognized(in row: Row) -> RowFormat? {
        let texts = Set(row.fields.filter { $0.value.string != nil }.keys)
        if ChatRows.areIn(row) { return ChatRows.hasShareGPT(row) ? .sharegpt : .messages }
        if texts.isSuperset(of: ["instruction", "output"]) { return .alpaca }
        if texts.isSuperset(of: ["prompt", "completion"]) { return .completion }
        if texts.contains("text"), Set(row.fields.keys).subtracting(aside) == ["text"] { return .text }
        return nil
    }

    /// Whether a row has what the format needs.
    public func fits(_ row: Row) -> Bool {
        if isChat { return ChatRows.areIn(row) && (self == .sharegpt) == ChatRows.hasShareGPT(row) }
        return requiredFields.allSatisfy { row[$0]?.string != nil }
    }

    /// The templates of a prompt and its target; `nil` for rows of messages.
    /// - Parameter asTurns: whether both become the turns of a chat, which need no headings.
    public func templates(asTurns: Bool) -> (prompt: String, target: String)? {
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
