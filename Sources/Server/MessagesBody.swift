import PEFTSupport

/// A body of Anthropic's `/v1/messages` in the form of `/v1/chat/completions`.
enum MessagesBody {
    /// Fields that mean the same in both.
    private static let common = ["model", "max_tokens", "temperature", "top_p", "top_k", "stream"]
    /// Fields that would change the answer, with the values that change nothing.
    private static let unsupported: [(name: String, neutral: JSON)] = [
        ("thinking", ["type": "disabled"]), ("mcp_servers", []), ("container", .null), ("context_management", .null),
    ]

    /// - Throws: ``APIError`` for what has no counterpart.
    static func chat(_ body: OrderedJSON) throws -> OrderedJSON {
        for (name, neutral) in unsupported {
            guard let value = body[name]?.json, value != .null, value != neutral else { continue }
            throw APIError(
                .badRequest, "'\(name)' is not supported; leave it out", parameter: name,
                code: "unsupported_parameter")
        }
        guard body["max_tokens"]?.scalar ?? .null != .null else {
            throw APIError.invalid("'max_tokens' is missing", "max_tokens")
        }
        var members = common.compactMap { name in body[name].map { OrderedJSON.Member(name, $0) } }
        if let stops = body["stop_sequences"] { members.append(.init("stop", stops)) }
        var messages: [OrderedJSON] = []
        if let system = body["system"], system.scalar != .null {
            messages.append(message("system", .scalar(.string(try text(system, "system")))))
        }
        guard let list = body["messages"]?.elements, !list.isEmpty else {
            throw APIError.invalid("'messages' is missing, empty or no list", "messages")
        }
        for (index, own) in list.enumerated() { messages += try converted(own, "messages[\(index)]") }
        members.append(.init("messages", .array(messages)))
        if let tools = body["tools"]?.elements, !tools.isEmpty {
            members.append(.init("tools", .array(try tools.map(tool))))
            members += try choice(body["tool_choice"])
        }
        return .object(members)
    }

    private static func message(_ role: String, _ content: OrderedJSON, _ more: [OrderedJSON.Member] = [])
        -> OrderedJSON
    {
        .object([.init("role", .scalar(.string(role))), .init("content", content)] + more)
    }

    /// A text, or blocks of text.
    private static func text(_ content: OrderedJSON, _ name: String) throws -> String {
        if let text = content.scalar?.string { return text }
        let texts = (content.elements ?? []).compactMap { block in
            block["type"]?.scalar == "text" ? block["text"]?.scalar?.string : nil
        }
        guard let blocks = content.elements, texts.count == blocks.count else {
            throw APIError.invalid("'\(name)' has content other than text, which is not supported", name)
        }
        return texts.joined(separator: "\n")
    }

    /// The turns that one message stands for: results of tools are turns of their own.
    private static func converted(_ own: OrderedJSON, _ name: String) throws -> [OrderedJSON] {
        guard let role = own["role"]?.scalar?.string, ["user", "assistant"].contains(role) else {
            throw APIError.invalid("'\(name)' has no role; use user or assistant", name)
        }
        guard let content = own["content"] else { throw APIError.invalid("'\(name)' has no content", name) }
        guard let blocks = content.elements else {
            return [message(role, .scalar(.string(try text(content, name))))]
        }
        var results: [OrderedJSON] = []
        var calls: [OrderedJSON] = []
        var texts: [OrderedJSON] = []
        for block in blocks {
            switch block["type"]?.scalar?.string {
            case "tool_result":
                let content = try block["content"].map { try text($0, name) } ?? ""
                results.append(
                    message(
                        "tool", .scalar(.string(content)),
                        [.init("tool_call_id", block["tool_use_id"] ?? .scalar(.null))]))
            case "tool_use":
                let function: [OrderedJSON.Member] = [
                    .init("name", block["name"] ?? .scalar(.null)), .init("arguments", block["input"] ?? .object([])),
                ]
                calls.append(
                    .object([
                        .init("id", block["id"] ?? .scalar(.null)), .init("type", .scalar("function")),
                        .init("function", .object(function)),
                    ]))
            // What an earlier answer has thought isn't shown to the model again.
            case "thinking", "redacted_thinking": continue
            default: texts.append(block)
            }
        }
        let rest = try text(.array(texts), name)
        if results.isEmpty || !texts.isEmpty {
            let more: [OrderedJSON.Member] = calls.isEmpty ? [] : [.init("tool_calls", .array(calls))]
            results.append(message(role, .scalar(.string(rest)), more))
        }
        return results
    }

    private static func tool(_ tool: OrderedJSON) throws -> OrderedJSON {
        guard let name = tool["name"], let schema = tool["input_schema"] else {
            throw APIError.invalid("a tool has no name or no input_schema", "tools")
        }
        var function: [OrderedJSON.Member] = [.init("name", name)]
        if let description = tool["description"] { function.append(.init("description", description)) }
        function.append(.init("parameters", schema))
        return .object([.init("type", .scalar("function")), .init("function", .object(function))])
    }

    private static func choice(_ choice: OrderedJSON?) throws -> [OrderedJSON.Member] {
        guard let choice, choice.scalar != .null else { return [] }
        let value: OrderedJSON
        switch choice["type"]?.scalar?.string {
        case "auto": value = .scalar("auto")
        case "any": value = .scalar("required")
        case "none": value = .scalar("none")
        case "tool":
            value = .object([.init("function", .object([.init("name", choice["name"] ?? .scalar(.null))]))])
        default: throw APIError.invalid("the type of 'tool_choice' is not auto, any, tool or none", "tool_choice")
        }
        var members: [OrderedJSON.Member] = [.init("tool_choice", value)]
        if choice["disable_parallel_tool_use"]?.scalar == true {
            members.append(.init("parallel_tool_calls", .scalar(false)))
        }
        return members
    }
}
