import Jinja
import Support

/// A row as messages, which a chat template writes down.
public struct Conversation {
    /// Dictionaries with `role` and `content`, and what else the template reads.
    public var messages: [JinjaValue]
    /// What the model may call, as JSON schemas.
    public var tools: JinjaValue?
    /// What else the template is given for this row.
    public var variables: [String: JinjaValue]
    /// The first message that the model may learn; those before it belong to the prompt.
    public var firstToLearn = 0
    /// Fields of the row that neither messages nor variables were made of.
    public var unusedFields: [String] = []
    public var row: Row.Location

    public init(
        messages: [JinjaValue], tools: JinjaValue? = nil, variables: [String: JinjaValue] = [:], row: Row.Location
    ) {
        (self.messages, self.tools, self.variables, self.row) = (messages, tools, variables, row)
    }

    /// A prompt and its answer as two turns.
    public init(_ example: Example, system: String? = nil) {
        self.init(
            messages: [Self.message("user", example.prompt), Self.message("assistant", example.target)],
            row: example.row)
        if let system { insert(system: system) }
    }

    public static func message(_ role: String, _ content: String) -> JinjaValue {
        JinjaValue(fields: ["role": .string(role), "content": .string(content)])
    }

    /// Puts a system message in front, unless there is one.
    public mutating func insert(system: String) {
        guard messages.first.flatMap(Self.role) != "system" else { return }
        messages.insert(Self.message("system", system), at: 0)
        firstToLearn += 1
    }

    static func role(_ message: JinjaValue) -> String? { message.dictionary?["role"]?.text }

    /// The turns of the model that contribute to the loss, by their place among the messages: not those that a `weight` of
    /// 0 or `train: false` leaves out.
    var assistantTurns: [Int] {
        messages.indices.filter {
            $0 >= firstToLearn && Self.role(messages[$0]) == "assistant" && MessageLoss.isLearned(messages[$0])
        }
    }

    /// The turns of the model that a `weight` of 0 or `train: false` leaves out.
    var turnsWithoutLoss: [Int] {
        messages.indices.filter {
            Self.role(messages[$0]) == "assistant" && !MessageLoss.isLearned(messages[$0])
        }
    }

    /// Whether the model's turn is the last message.
    public var endsWithAssistant: Bool { messages.last.flatMap(Self.role) == "assistant" }

    /// The text of the model's last turn, which an evaluation compares with; empty where it only calls tools.
    public var lastAnswer: String? {
        guard let turn = assistantTurns.last else { return nil }
        guard let content = messages[turn].dictionary?["content"] else { return "" }
        if let text = content.text { return text }
        // Content in parts, as multimodal templates have it.
        return content.elements?.compactMap { $0.dictionary?["text"]?.text }.joined() ?? ""
    }
}
