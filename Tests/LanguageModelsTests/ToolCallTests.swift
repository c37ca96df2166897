import PEFTSupport
import Testing

@testable import LanguageModels

/// Calls of tools in the formats of well-known chat templates, read whole and in pieces of any size.
@Suite struct ToolCallTests {
    static let cases: [(ToolCallParser.Format, String, [ToolCallParser.Event])] = [
        (.hermes, "Hello <b>", [.text("Hello <b>")]),
        (
            .hermes,
            "I look.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": \"é</tool_call>\"}}\n</tool_call>\n",
            [.text("I look.\n"), .call(ToolCall(name: "f", arguments: #"{"b": 1, "a": "é</tool_call>"}"#))]
        ),
        (
            .hermes,
            "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>\n<tool_call>{\"name\": \"g\", \"arguments\": \"{\\\"x\\\": 2}\", \"id\": \"7\"}</tool_call> ok",
            [
                .call(ToolCall(name: "f", arguments: "{}")),
                .call(ToolCall(name: "g", arguments: #"{"x": 2}"#, id: "7")),
                .text(" ok"),
            ]
        ),
        (.hermes, "<tool_call>{\"name\": \"f\", \"arguments\": [1]}", [.call(ToolCall(name: "f", arguments: "[1]"))]),
        (
            .hermes, "a<tool_call>{\"x\": 1}</tool_call><tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>",
            [.text("a<tool_call>{\"x\": 1}</tool_call>"), .call(ToolCall(name: "f", arguments: "{}"))]
        ),
        (.hermes, "a <tool_cal", [.text("a <tool_cal")]),
        (
            .llama3, "{\"name\": \"f\", \"parameters\": {\"q\": \"a;b\"}}",
            [.call(ToolCall(name: "f", arguments: #"{"q": "a;b"}"#))]
        ),
        (
            .llama3,
            " <|python_tag|>{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {\"n\": {}}}\n",
            [.call(ToolCall(name: "f", arguments: "{}")), .call(ToolCall(name: "g", arguments: #"{"n": {}}"#))]
        ),
        (.llama3, "{\"name\": 1} and more", [.text("{\"name\": 1} and more")]),
        (
            .llama3, "Text {\"name\": \"f\", \"parameters\": {}}",
            [.text("Text {\"name\": \"f\", \"parameters\": {}}")]
        ),
        (.llama3, "  {\"name\": \"f", [.text("{\"name\": \"f")]), (.llama3, " <|pyth", [.text(" <|pyth")]),
        (
            .mistral,
            "Yes.[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": \"]\"}, \"id\": \"i1\"}, {\"name\": \"g\", \"arguments\": {}}]",
            [
                .text("Yes."), .call(ToolCall(name: "f", arguments: #"{"a": "]"}"#, id: "i1")),
                .call(ToolCall(name: "g", arguments: "{}")),
            ]
        ),
        (
            .mistral, "[TOOL_CALLS]get_it[ARGS]{\"a\": {}}[TOOL_CALLS]other{\"b\": 2}",
            [
                .call(ToolCall(name: "get_it", arguments: #"{"a": {}}"#)),
                .call(ToolCall(name: "other", arguments: #"{"b": 2}"#)),
            ]
        ),
        (.mistral, "[TOOL_CALLS] [{\"x\": 1}] z", [.text("[TOOL_CALLS] [{\"x\": 1}] z")]),
        (.mistral, "[TOOL_CALLS] [{\"name\": ", [.text("[TOOL_CALLS] [{\"name\": ")]),
        (.mistral, "[TOOL", [.text("[TOOL")]),
    ]

    /// Neighboring texts as one.
    private func joined(_ events: [ToolCallParser.Event]) -> [ToolCallParser.Event] {
        events.reduce(into: []) { result, event in
            guard case .text(let text) = event, case .text(let before) = result.last else {
                return result.append(event)
            }
            result[result.count - 1] = .text(before + text)
        }
    }

    @Test(arguments: cases.indices)
    func callsAreFoundInPiecesOfAnySize(index: Int) throws {
        let (format, text, expected) = Self.cases[index]
        for size in [1, 2, 3, 7, 1_000] {
            var parser = ToolCallParser(format)
            var events: [ToolCallParser.Event] = []
            var rest = Substring(text)
            while !rest.isEmpty {
                events += parser.append(String(rest.prefix(size)))
                rest = rest.dropFirst(size)
            }
            events += parser.finish()
            #expect(joined(events) == expected, "pieces of \(size)")
            #expect(parser.finish().isEmpty)
        }
    }

    /// Text is returned as soon as it can't be the beginning of a call.
    @Test func textIsNotHeldBack() {
        var parser = ToolCallParser(.hermes)
        #expect(parser.append("Well, <to") == [.text("Well, ")])
        #expect(parser.append("day>") == [.text("<today>")])
        var llama = ToolCallParser(.llama3)
        #expect(llama.append("  ").isEmpty && llama.append("Hi") == [.text("  Hi")])
        #expect(llama.append(" {") == [.text(" {")])
    }

    @Test func templatesTellTheFormat() {
        #expect(ToolCallParser.Format(chatTemplate: "{{ '<tool_call>' }}") == .hermes)
        #expect(ToolCallParser.Format(chatTemplate: "[TOOL_CALLS]") == .mistral)
        #expect(ToolCallParser.Format(chatTemplate: "<|python_tag|>") == .llama3)
        #expect(ToolCallParser.Format(chatTemplate: "{{ messages }}") == nil)
    }
}
