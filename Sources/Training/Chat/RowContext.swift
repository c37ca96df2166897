import PEFTJinja
import PEFTSupport

/// The fields of a row besides its messages, as arguments of transformers' `apply_chat_template`.
///
/// | field | becomes |
/// |---|---|
/// | `system`, `system_prompt` | the system message, where the messages have none |
/// | `tools` | the template's `tools` |
/// | `functions` | the same, each in OpenAI's envelope for tools |
/// | `documents` | the template's `documents` |
/// | `chat_template_kwargs` | further variables of the template |
struct RowContext {
    private(set) var system: String?
    private(set) var tools: JinjaValue?
    private(set) var variables: [String: JinjaValue] = [:]
    /// Ignored fields.
    private(set) var unused: [String] = []

    private static let known = ["system", "system_prompt", "tools", "functions", "documents", "chat_template_kwargs"]

    /// - Parameters:
    ///   - fields: the row's, with the order of their keys.
    ///   - messages: the fields that hold the messages.
    /// - Throws: ``PEFTError`` for a field of the wrong type.
    init(_ fields: JinjaDictionary, messages: [String], _ row: Row) throws {
        unused = fields.entries.compactMap { entry in
            let name = entry.key.text ?? ""
            return messages.contains(name) || Self.known.contains(name) || entry.value.isNone ? nil : name
        }
        for name in ["system", "system_prompt"] {
            guard let value = fields[name], !value.isNone else { continue }
            guard let text = value.text else {
                throw PEFTError(
                    "'\(name)' in \(row.location) is not a string", remedy: "use a string or remove the field")
            }
            if !text.isEmpty { system = system ?? text }
        }
        for name in ["tools", "functions"] where tools == nil {
            guard let list = try Self.list(fields[name], name, row) else { continue }
            tools = .list(name == "tools" ? list : list.map(Self.enveloped))
        }
        if let documents = try Self.list(fields["documents"], "documents", row) {
            variables["documents"] = .list(documents)
        }
        if let more = fields["chat_template_kwargs"], !more.isNone {
            guard let values = try Self.parsed(more, "chat_template_kwargs", row).dictionary else {
                throw PEFTError(
                    "'chat_template_kwargs' in \(row.location) is not an object",
                    remedy: "use an object or remove the field")
            }
            for (key, value) in values.entries { variables[key.text ?? ""] = value }
        }
    }

    /// A list, parsed if it is JSON text; `nil` if missing or empty.
    private static func list(_ value: JinjaValue?, _ field: String, _ row: Row) throws -> [JinjaValue]? {
        guard let value, !value.isNone, value.text?.allSatisfy(\.isWhitespace) != true else { return nil }
        guard let list = try parsed(value, field, row).elements else {
            throw PEFTError("'\(field)' in \(row.location) is not a list", remedy: "use a list or remove the field")
        }
        return list.isEmpty ? nil : list
    }

    private static func enveloped(_ function: JinjaValue) -> JinjaValue {
        guard let fields = function.dictionary, fields["function"] == nil else { return function }
        return JinjaValue(fields: ["type": .string("function"), "function": function])
    }

    /// The value, parsed if it is JSON text.
    static func parsed(_ value: JinjaValue, _ field: String, _ row: Row) throws -> JinjaValue {
        guard let text = value.text else { return value }
        return try JinjaValue(json: text, name: "'\(field)' in \(row.location)")
    }
}
