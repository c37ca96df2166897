import LanguageModels
import PEFTJinja
import PEFTSupport
import Serving

/// The tools of a chat request, and how the model is to call them.
struct ToolUse: Sendable {
    /// How calls are found in the generated text.
    enum Reading: Sendable {
        /// Calls in the format of the chat template, among text (`tool_choice` is `auto`).
        case parsed(ToolCallParser.Format)
        /// The text is a JSON list of calls (`tool_choice` is `required`).
        case list
        /// The text is the arguments of this function.
        case function(String)
    }

    /// The value of `tools`, for the chat template.
    let tools: OrderedJSON
    let reading: Reading
    /// Whether an answer may have several calls.
    let allowsSeveral: Bool
    /// The JSON Schema of the text, if calls are required.
    let responseFormat: ResponseFormat?
    /// Whether ids of calls have Mistral's form, which its templates check.
    let hasShortIDs: Bool

    /// - Parameter format: the format of calls that the chat template asks for, if it is a known one.
    /// - Returns: `nil` if the model can't call a tool.
    /// - Throws: ``APIError`` for invalid values.
    init?(_ body: OrderedJSON, format: ToolCallParser.Format?) throws {
        guard let value = body["tools"], value.scalar != .null, value.elements?.isEmpty != true else {
            guard body["tool_choice"].map({ ["none", "auto", .null].contains($0.json) }) ?? true else {
                throw APIError.invalid("'tool_choice' requires 'tools'", "tool_choice")
            }
            return nil
        }
        guard let list = value.elements else { throw APIError.invalid("'tools' is no list", "tools") }
        let functions = try list.enumerated().map { index, tool in
            guard tool["type"]?.scalar?.string == "function", let function = tool["function"],
                let name = function["name"]?.scalar?.string, !name.isEmpty
            else {
                throw APIError.invalid(
                    "'tools[\(index)]' is no function with a name; use {\"type\": \"function\", \"function\": {\"name\": …}}",
                    "tools")
            }
            return (name: name, parameters: function["parameters"].flatMap { $0.members == nil ? nil : $0 })
        }
        switch body["tool_choice"] {
        case nil, .scalar(.null), .scalar("auto"):
            guard let format else {
                throw APIError.invalid(
                    "the chat template's format of tool calls is unknown; set 'tool_choice' to 'required' or to a function",
                    "tools")
            }
            (reading, responseFormat) = (.parsed(format), nil)
        case .scalar("none"): return nil
        case .scalar("required"):
            reading = .list
            responseFormat = try Self.list(functions, several: body["parallel_tool_calls"]?.scalar != false)
        case .object(let members):
            let name = members.first { $0.name == "function" }?.value["name"]?.scalar?.string
            guard let function = functions.first(where: { $0.name == name }) else {
                throw APIError.invalid("'tool_choice' names none of 'tools'", "tool_choice")
            }
            reading = .function(function.name)
            responseFormat = .jsonSchema(function.parameters ?? Self.anyObject)
        default:
            throw APIError.invalid(
                "'tool_choice' is not one of none, auto, required and {\"type\": \"function\", \"function\": {\"name\": …}}",
                "tool_choice")
        }
        tools = value
        allowsSeveral = body["parallel_tool_calls"]?.scalar != false
        hasShortIDs = format == .mistral
    }

    private static let anyObject = OrderedJSON(["type": "object"] as JSON)

    /// The schema of a list of calls. Definitions of the functions' schemas move to its top, where references lead.
    private static func list(_ functions: [(name: String, parameters: OrderedJSON?)], several: Bool) throws
        -> ResponseFormat
    {
        var definitions: [OrderedJSON.Member] = []
        let calls = try functions.map { name, parameters -> OrderedJSON in
            let members = (parameters ?? anyObject).members ?? []
            for member in members.first(where: { $0.name == "$defs" })?.value.members ?? [] {
                guard let known = definitions.first(where: { $0.name == member.name }) else {
                    definitions.append(member)
                    continue
                }
                guard known == member else {
                    throw APIError.invalid(
                        "two functions of 'tools' define '\(member.name)' in '$defs'; rename one", "tools")
                }
            }
            return .object([
                .init("type", .scalar("object")),
                .init(
                    "properties",
                    .object([
                        .init("name", .object([.init("const", .scalar(.string(name)))])),
                        .init("arguments", .object(members.filter { $0.name != "$defs" })),
                    ])),
                .init("required", .array([.scalar("name"), .scalar("arguments")])),
            ])
        }
        var members: [OrderedJSON.Member] = [
            .init("type", .scalar("array")), .init("minItems", .scalar(1)),
            .init("items", calls.count == 1 ? calls[0] : .object([.init("anyOf", .array(calls))])),
        ]
        if !several { members.append(.init("maxItems", .scalar(1))) }
        if !definitions.isEmpty { members.append(.init("$defs", .object(definitions))) }
        return .jsonSchema(.object(members))
    }

    /// A new id of a call.
    var newID: String {
        let signs = Array("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
        let text = String((0..<(hasShortIDs ? 9 : 24)).compactMap { _ in signs.randomElement() })
        return hasShortIDs ? text : "call_" + text
    }
}

/// The tool calls of one choice, while its text grows.
struct ToolCallReader {
    enum Event: Equatable {
        case text(String)
        /// A call with its index, and the first part of its arguments.
        case call(Int, id: String, name: String, arguments: String)
        /// A further part of a call's arguments.
        case arguments(Int, String)
    }

    private let use: ToolUse
    private var parser: ToolCallParser?
    private static let listMarker = "[TOOL_CALLS]"
    /// Number of calls so far.
    private(set) var count = 0

    init(_ use: ToolUse) {
        self.use = use
        switch use.reading {
        case .parsed(let format): parser = ToolCallParser(format)
        case .list:
            parser = ToolCallParser(.mistral)
            _ = parser?.append(Self.listMarker)
        case .function: parser = nil
        }
    }

    mutating func append(_ text: String) -> [Event] {
        guard parser != nil else { return arguments(text) }
        return events(parser?.append(text) ?? [])
    }

    /// The rest, after the last text.
    mutating func finish() -> [Event] { events(parser?.finish() ?? []) }

    /// The name of a choice's reason to end.
    func reason(_ reason: FinishReason) -> String {
        guard count > 0, case .stop = reason else { return reason.name }
        if case .function = use.reading { return reason.name }
        return "tool_calls"
    }

    private mutating func arguments(_ text: String) -> [Event] {
        guard case .function(let name) = use.reading, !text.isEmpty else { return [] }
        guard count == 0 else { return [.arguments(0, text)] }
        count = 1
        return [.call(0, id: use.newID, name: name, arguments: text)]
    }

    private mutating func events(_ events: [ToolCallParser.Event]) -> [Event] {
        events.compactMap { event in
            switch event {
            case .text(let text):
                // A list that was cut off.
                if case .list = use.reading, text.hasPrefix(Self.listMarker) {
                    return .text(String(text.dropFirst(Self.listMarker.count)))
                }
                return .text(text)
            case .call(let call):
                guard use.allowsSeveral || count == 0 else { return nil }
                defer { count += 1 }
                return .call(count, id: call.id ?? use.newID, name: call.name, arguments: call.arguments)
            }
        }
    }
}

extension JinjaValue {
    /// A value whose objects keep the order of their members, which templates that print them show.
    init(_ json: OrderedJSON) {
        switch json {
        case .scalar(let value): self.init(value)
        case .array(let values): self = .list(values.map { JinjaValue($0) })
        case .object(let members):
            var dictionary = JinjaDictionary()
            for member in members { dictionary[member.name] = JinjaValue(member.value) }
            self = .dictionary(dictionary)
        }
    }
}
