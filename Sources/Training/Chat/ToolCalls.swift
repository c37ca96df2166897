import PEFTJinja
import PEFTSupport

/// Tool calls in the form that chat templates expect: in `tool_calls`, with arguments as objects.
///
/// OpenAI's format has the arguments as JSON text. Templates use `arguments | tojson`, which would quote that text again,
/// or iterate over `arguments.items()`.
package enum ToolCalls {
    /// The message with the arguments of its calls as objects, and with OpenAI's older `function_call` among the calls.
    package static func normalized(_ message: JinjaValue) -> JinjaValue {
        guard var fields = message.dictionary else { return message }
        if fields["tool_calls"] == nil, let call = fields["function_call"], call.dictionary?["name"]?.text != nil {
            fields["tool_calls"] = .list([JinjaValue(fields: ["type": .string("function"), "function": call])])
            fields["function_call"] = nil
        }
        return changed(.dictionary(fields), object) ?? .dictionary(fields)
    }

    /// The calls that ShareGPT's messages from `function_call` hold: the text of one object with a name, or of several.
    static func read(_ value: JinjaValue) -> JinjaValue? {
        let parsed = value.text.map { try? JinjaValue(json: $0, name: "a function call") } ?? value
        guard let parsed else { return nil }
        let calls = parsed.elements ?? [parsed]
        guard !calls.isEmpty, calls.allSatisfy({ $0.dictionary?["name"]?.text != nil }) else { return nil }
        return .list(calls.map { JinjaValue(fields: ["type": .string("function"), "function": $0]) })
    }

    /// The messages with the arguments as JSON text, for templates that add them to strings; `nil` if there are none.
    package static func asText(_ messages: [JinjaValue]) -> [JinjaValue]? {
        var isChanged = false
        let result = messages.map { message -> JinjaValue in
            guard let other = changed(message, text) else { return message }
            isChanged = true
            return other
        }
        return isChanged ? result : nil
    }

    /// - Returns: `nil` where no arguments change.
    private static func changed(_ message: JinjaValue, _ change: (JinjaValue) -> JinjaValue?) -> JinjaValue? {
        guard var fields = message.dictionary, let calls = fields["tool_calls"]?.elements else { return nil }
        var isChanged = false
        let others = calls.map { call -> JinjaValue in
            guard var call = call.dictionary else { return call }
            if var function = call["function"]?.dictionary {
                guard let arguments = function["arguments"].flatMap(change) else { return .dictionary(call) }
                function["arguments"] = arguments
                call["function"] = .dictionary(function)
            } else {
                guard let arguments = call["arguments"].flatMap(change) else { return .dictionary(call) }
                call["arguments"] = arguments
            }
            isChanged = true
            return .dictionary(call)
        }
        guard isChanged else { return nil }
        fields["tool_calls"] = .list(others)
        return .dictionary(fields)
    }

    private static func object(_ arguments: JinjaValue) -> JinjaValue? {
        guard let text = arguments.text, text.first(where: { !$0.isWhitespace }) == "{",
            let value = try? JinjaValue(json: text, name: "arguments"), value.dictionary != nil
        else { return nil }
        return value
    }

    private static func text(_ arguments: JinjaValue) -> JinjaValue? {
        arguments.dictionary == nil ? nil : arguments.jsonText.map { .string($0) }
    }
}
