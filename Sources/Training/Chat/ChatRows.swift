import Foundation
import PEFTJinja
import PEFTSupport

/// Reads conversations from the rows of a dataset: OpenAI's `messages`, ShareGPT's `conversations`, or `prompt` and
/// `completion`.
package struct ChatRows: Sendable {
    /// The field with the messages; `nil` to detect it.
    package var field: String?
    /// A system message for conversations that have none.
    package var system: String?

    package init(field: String? = nil, system: String? = nil) { (self.field, self.system) = (field, system) }

    /// Common names of fields with messages.
    private static let usual = ["messages", "conversations", "conversation"]

    /// Whether a row holds messages.
    package static func areIn(_ row: Row) -> Bool {
        usual.contains { list(row[$0]) != nil } || (list(row["prompt"]) != nil && row["completion"] != nil)
    }

    /// Whether a row's messages have ShareGPT's format, with `from` and `value`.
    static func hasShareGPT(_ row: Row) -> Bool {
        usual.lazy.compactMap { list(row[$0])?.first }.first?["from"]?.string != nil
    }

    /// Reads a file's rows as conversations.
    /// - Parameter limit: maximum number of rows.
    /// - Throws: ``PEFTError`` naming the row and the problem.
    package func read(_ url: URL, limit: Int? = nil) throws -> [Conversation] {
        try DataSet.read(url, limit: limit, keepsText: true).map(conversation)
    }

    /// - Throws: ``PEFTError`` naming the row and the invalid message.
    package func conversation(_ row: Row) throws -> Conversation {
        let fields = try Self.ordered(row)
        var firstToLearn = 0
        let name: String
        let names: [String]
        var messages: [JinjaValue]
        if let field = field ?? Self.usual.first(where: { Self.list(row[$0]) != nil }) {
            (name, names) = (field, [field])
            guard let value = fields[field] else {
                let hint = nearestName(to: field, in: row.fields.keys).map { " — did you mean '\($0)'?" } ?? ""
                throw PEFTError(
                    "\(row.location) has no field '\(field)'",
                    remedy: "it has \(row.fields.keys.sorted().joined(separator: ", "))\(hint)")
            }
            messages = try list(value, field, row)
        } else if let prompt = fields["prompt"], let completion = fields["completion"] {
            (name, names) = ("prompt", ["prompt", "completion"])
            messages = try list(prompt, "prompt", row)
            firstToLearn = messages.count
            if let text = completion.text {
                messages.append(Conversation.message("assistant", text))
            } else {
                messages += try list(completion, "completion", row)
            }
        } else {
            throw PEFTError(
                "\(row.location) has no messages",
                remedy:
                    "name their field with --messages; it has \(row.fields.keys.sorted().joined(separator: ", "))"
            )
        }
        guard !messages.isEmpty else {
            throw PEFTError("'\(name)' is empty in \(row.location)", remedy: "add messages or remove the row")
        }
        var result = Conversation(
            messages: try messages.enumerated().map { try Self.message($1, number: $0 + 1, row) }, row: row.location)
        result.firstToLearn = firstToLearn
        let context = try RowContext(fields, messages: names, row)
        (result.tools, result.variables, result.unusedFields) = (context.tools, context.variables, context.unused)
        if let system = context.system { result.insert(system: system) }
        if let system { result.insert(system: system) }
        return result
    }

    // MARK: Fields

    /// The row's fields in the order of the file's keys, if it is known.
    private static func ordered(_ row: Row) throws -> JinjaDictionary {
        if let text = row.text, let fields = try JinjaValue(json: text, name: "\(row.location)").dictionary {
            return fields
        }
        return JinjaValue(JSON.object(row.fields)).dictionary ?? JinjaDictionary()
    }

    /// An array, or JSON text of one, as in CSV tables.
    private static func list(_ value: JSON?) -> [JSON]? {
        if let list = value?.array { return list }
        guard let text = value?.string, text.first(where: { !$0.isWhitespace }) == "[" else { return nil }
        return (try? JSONParser.parse(Array(text.utf8)[...]))?.array
    }

    private func list(_ value: JinjaValue, _ field: String, _ row: Row) throws -> [JinjaValue] {
        guard let list = try RowContext.parsed(value, field, row).elements else {
            throw PEFTError(
                "'\(field)' in \(row.location) is not a list of messages",
                remedy: "write a list such as [{\"role\": \"user\", \"content\": \"…\"}, …]")
        }
        return list
    }

    // MARK: Messages

    /// ShareGPT's role names.
    private static let roles = [
        "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant",
        "chatgpt": "assistant", "bot": "assistant", "system": "system", "tool": "tool", "observation": "tool",
        "function_response": "tool", "function_call": "assistant",
    ]

    /// A message with `role` and `content`, also from ShareGPT's `from` and `value`.
    private static func message(_ value: JinjaValue, number: Int, _ row: Row) throws -> JinjaValue {
        let place = "message \(number) in \(row.location)"
        let message = ToolCalls.normalized(try named(value, place))
        try MessageLoss.check(message, place)
        return message
    }

    private static func named(_ value: JinjaValue, _ place: String) throws -> JinjaValue {
        guard let fields = value.dictionary else {
            throw PEFTError("\(place) is not an object", remedy: "write an object with a role and a content")
        }
        if fields["role"]?.text != nil { return value }
        guard let from = fields["from"]?.text, let content = fields["value"] else {
            throw PEFTError(
                "\(place) has no role", remedy: "add 'role' and 'content', or 'from' and 'value'")
        }
        guard let role = roles[from.lowercased()] else {
            throw PEFTError(
                "\(place) has the unknown sender '\(from)' in 'from'",
                remedy: "use one of \(roles.keys.sorted().joined(separator: ", ")), or add a 'role'")
        }
        var result = JinjaDictionary()
        result["role"] = .string(role)
        if from.lowercased() == "function_call", let calls = ToolCalls.read(content) {
            result["tool_calls"] = calls
        } else {
            result["content"] = content
        }
        for (key, value) in fields.entries {
            guard let name = key.text, !["from", "value"].contains(name) else { continue }
            result[name] = value
        }
        return .dictionary(result)
    }
}
