import Foundation
import PEFTJinja
import PEFTSupport
import TestSupport
import Testing

@testable import Training

@Suite struct ChatRowsTests {
    private func rows(_ text: String, _ name: String = "rows.jsonl", _ chats: ChatRows = ChatRows()) throws
        -> [Conversation]
    {
        try withTemporaryFile(name, text.utf8) { try chats.read($0) }
    }

    private func roles(_ conversation: Conversation) -> [String] {
        conversation.messages.compactMap(Conversation.role)
    }

    @Test func messagesAndShareGPT() throws {
        let read = try rows(
            #"""
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
            {"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "weight": 1}]}
            """#)
        #expect(roles(read[0]) == ["user", "assistant"])
        #expect(roles(read[1]) == ["system", "user", "assistant"])
        #expect(read[1].lastAnswer == "b")
        #expect(read[1].messages[2].dictionary?["weight"] != nil)
    }

    @Test func promptsAndCompletions() throws {
        let read = try rows(
            #"""
            {"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "x"}, {"role": "user", "content": "b"}], "completion": [{"role": "assistant", "content": "y"}]}
            {"prompt": [{"role": "user", "content": "a"}], "completion": "text"}
            """#)
        #expect(read[0].firstToLearn == 3 && read[0].assistantTurns == [3])
        #expect(read[1].lastAnswer == "text")
    }

    /// The order of keys is what a template shows that writes tools down.
    @Test(arguments: ["rows.jsonl", "rows.json"])
    func toolsKeepTheirOrder(name: String) throws {
        let row =
            #"{"tools": [{"z": 1, "a": {"y": 2, "b": 3}}], "messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": {"think": false}}"#
        let read = try rows(name == "rows.json" ? "[\(row)]" : row, name)
        let text = try JinjaTemplate("{{ tools | tojson }}").render(["tools": try #require(read[0].tools)]).text
        #expect(text == #"[{"z": 1, "a": {"y": 2, "b": 3}}]"#)
        #expect(read[0].variables["think"] != nil)
    }

    @Test func namedFieldsTablesAndSystemMessages() throws {
        let named = try rows(
            #"{"talk": [{"role": "user", "content": "a"}]}"#, "rows.jsonl", ChatRows(field: "talk", system: "S"))
        #expect(roles(named[0]) == ["system", "user"])
        let table = try rows(
            "id,messages\n1,\"[{\"\"role\"\": \"\"user\"\", \"\"content\"\": \"\"a\"\"}]\"\n", "rows.csv")
        #expect(roles(table[0]) == ["user"])
        let kept = try rows(
            #"{"messages": [{"role": "system", "content": "own"}]}"#, "rows.jsonl", ChatRows(system: "S"))
        #expect(kept[0].messages[0].dictionary?["content"]?.text == "own")
    }

    // MARK: Beside the messages

    private let turns = #"{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}"#

    @Test func systemFieldsBecomeTheSystemMessage() throws {
        let read = try rows(
            """
            {"system": "S", "conversations": [\(turns)]}
            {"system": "S", "conversations": [{"from": "system", "value": "own"}, \(turns)]}
            {"system": "", "conversations": [\(turns)]}
            {"system_prompt": "P", "conversations": [\(turns)], "id": 3, "note": null}
            """, "rows.jsonl", ChatRows(system: "option"))
        let systems = read.map { $0.messages[0].dictionary?["content"]?.text }
        #expect(systems == ["S", "own", "option", "P"])
        #expect(read[3].unusedFields == ["id"] && read[0].unusedFields.isEmpty)
    }

    @Test func functionsAndDocumentsReachTheTemplate() throws {
        let read = try rows(
            #"""
            {"messages": [{"role": "user", "content": "a"}], "functions": [{"name": "f"}], "documents": [{"title": "D"}]}
            {"conversations": [{"from": "human", "value": "a"}], "tools": ""}
            """#)
        #expect(read[0].tools?.jsonText == #"[{"type": "function", "function": {"name": "f"}}]"#)
        #expect(read[0].variables["documents"]?.jsonText == #"[{"title": "D"}]"#)
        #expect(read[1].tools == nil)
    }

    @Test func argumentsOfCallsAreObjects() throws {
        let read = try rows(
            #"""
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{\"z\": 1, \"a\": \"x\"}"}}]}]}
            {"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{\"z\": 1}"}, {"name": "g", "arguments": "none"}]}]}
            {"messages": [{"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}}]}
            {"conversations": [{"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"z\": 1}}"}]}
            """#)
        let calls = read.map { $0.messages[0].dictionary?["tool_calls"]?.jsonText }
        #expect(calls[0] == #"[{"function": {"name": "f", "arguments": {"z": 1, "a": "x"}}}]"#)
        #expect(calls[1] == #"[{"name": "f", "arguments": {"z": 1}}, {"name": "g", "arguments": "none"}]"#)
        #expect(calls[2] == #"[{"type": "function", "function": {"name": "f", "arguments": {}}}]"#)
        #expect(calls[3] == #"[{"type": "function", "function": {"name": "f", "arguments": {"z": 1}}}]"#)
    }

    @Test func weightsLeaveTurnsOut() throws {
        func turn(_ more: String) -> String { #"{"role": "assistant", "content": "x"\#(more)}"# }
        let read = try rows(
            "{\"messages\": [\(turn(#", "weight": 0"#)), \(turn(#", "weight": 1"#)), \(turn(#", "train": false"#)), \(turn(#", "train": true, "weight": 1.0"#)), \(turn(#", "weight": null"#))]}"
        )
        #expect(read[0].assistantTurns == [1, 3, 4] && read[0].turnsWithoutLoss == [0, 2])
    }

    @Test(arguments: [
        (#""weight": 0.5"#, "0.5"), (#""weight": "1""#, "weight"), (#""train": "no""#, "train"),
        (#""weight": 2"#, "weight"),
    ])
    func otherWeightsAreRefused(field: String, word: String) throws {
        let error = try #require(throws: PEFTError.self) {
            try rows(
                #"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", \#(field)}]}"#
            )
        }
        #expect(error.problem.contains(word) && error.problem.contains("message 2 in"), "\(error)")
    }

    @Test(arguments: [
        (#"{"messages": []}"#, "empty"), (#"{"messages": "hi"}"#, "no messages"), (#"{"text": "hi"}"#, "no messages"),
        (#"{"messages": [1]}"#, "message 1"), (#"{"messages": [{"content": "x"}]}"#, "no role"),
        (#"{"conversations": [{"from": "martian", "value": "x"}]}"#, "martian"),
        (#"{"prompt": [], "completion": 3}"#, "completion"),
        (#"{"messages": [{"role": "user", "content": "x"}], "tools": "{"}"#, "tools"),
        (#"{"messages": [{"role": "user", "content": "x"}], "documents": 3}"#, "documents"),
        (#"{"messages": [{"role": "user", "content": "x"}], "system": 3}"#, "system"),
        (#"{"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": 3}"#, "chat_template_kwargs"),
    ])
    func whatIsNoConversation(text: String, word: String) throws {
        let error = try #require(throws: PEFTError.self) { try rows(text) }
        #expect(error.problem.contains(word) && error.problem.contains("line 1"), "\(error)")
    }

    @Test func wrongFieldsAreNamed() throws {
        let error = try #require(throws: PEFTError.self) {
            try rows(#"{"messages": [{"role": "user", "content": "a"}]}"#, "rows.jsonl", ChatRows(field: "mesages"))
        }
        #expect(error.remedy?.contains("did you mean 'messages'") == true)
    }
}
