import PEFTJinja
import PEFTSupport

/// An example as a list of messages, to be rendered by a chat template.
public struct Conversation {
    /// Dictionaries with `role`, `content` and any other fields that the template reads.
    package var messages: [JinjaValue]
    /// Tools that the model may call, as JSON schemas.
    package var tools: JinjaValue?
    /// Further template variables of this example.
    package var variables: [String: JinjaValue]
    /// Index of the first message that may contribute to the loss; earlier ones belong to the prompt.
    package var firstToLearn = 0
    /// Fields of the row that were ignored.
    package var unusedFields: [String] = []
    package var row: Row.Location

    package init(
        messages: [JinjaValue], tools: JinjaValue? = nil, variables: [String: JinjaValue] = [:], row: Row.Location
    ) {
        (self.messages, self.tools, self.variables, self.row) = (messages, tools, variables, row)
    }

    /// A prompt and its answer as two turns.
    package init(_ example: Example, system: String? = nil) {
        self.init(
            messages: [Self.message("user", example.prompt), Self.message("assistant", example.target)],
            row: example.row)
        if let system { insert(system: system) }
    }

    package static func message(_ role: String, _ content: String) -> JinjaValue {
        JinjaValue(fields: ["role": .string(role), "content": .string(content)])
    }

    /// Inserts a system message at the front, unless there is one.
    package mutating func insert(system: String) {
        guard messages.first.flatMap(Self.role) != "system" else { return }
        messages.insert(Self.message("system", system), at: 0)
        firstToLearn += 1
    }

    static func role(_ message: JinjaValue) -> String? { message.dictionary?["role"]?.text }

    /// Indices of the assistant messages that contribute to the loss: all but those with a `weight` of 0 or
    /// `train: false`.
    var assistantTurns: [Int] {
        messages.indices.filter {
            $0 >= firstToLearn && Self.role(messages[$0]) == "assistant" && MessageLoss.isLearned(messages[$0])
        }
    }

    /// Indices of the assistant messages with a `weight` of 0 or `train: false`.
    var turnsWithoutLoss: [Int] {
        messages.indices.filter {
            Self.role(messages[$0]) == "assistant" && !MessageLoss.isLearned(messages[$0])
        }
    }

    /// Whether the last message is the assistant's.
    package var endsWithAssistant: Bool { messages.last.flatMap(Self.role) == "assistant" }

    /// The text of the assistant's last turn, the reference of evaluations; empty if it only calls tools.
    package var lastAnswer: String? {
        guard let turn = assistantTurns.last else { return nil }
        guard let content = messages[turn].dictionary?["content"] else { return "" }
        if let text = content.text { return text }
        // Content as a list of parts, as in multimodal templates.
        return content.elements?.compactMap { $0.dictionary?["text"]?.text }.joined() ?? ""
    }
}
