import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import Training

/// Whether rows are prompts and targets or chats, for training, evaluation and generation alike.
@Suite struct ExampleFormatTests {
    private static let messages = #""messages": [{"role": "user", "content": "a"}]"#

    /// The settings of an adapter that was trained with this template, on chats or not.
    private static func record(_ prompt: String, isChat: Bool) -> TrainingRecord {
        let result = TrainingResult(history: .init(), tokensPerSecond: 1, seconds: 1, steps: 1, peakBytes: nil)
        var record = TrainingRecord(
            model: "m", method: "lora", methodFields: [:], prompt: prompt, target: prompt.isEmpty ? "" : "{a}",
            maxInputTokens: 9, data: "d", trainingRows: 1, validationRows: 0, configuration: TrainingConfiguration(),
            trainable: 1, total: 1, result: result)
        if isChat { record.chat = ChatSettings() }
        return record
    }

    /// `texts PROMPT`, `turns PROMPT` or `messages`.
    private static func format(_ row: String, _ settings: DataSettings, record: TrainingRecord?) throws -> String {
        try withTemporaryFile("rows.jsonl", row) { file in
            let format = try settings.exampleFormat(
                of: [file.path], tokenizerFolder: file.deletingLastPathComponent(), record: record,
                needsTarget: false)
            switch format {
            case .texts(let templates): return "texts \(templates.prompt.text)"
            case .chats(_, let turns?): return "turns \(turns.prompt.text)"
            case .chats(_, nil): return "messages"
            }
        }
    }

    @Test(arguments: [
        // Without an adapter, the first row tells.
        ("{\(messages)}", nil, false, nil, false, "messages"),
        (#"{"q": "a"}"#, "{q}", false, nil, false, "texts {q}"),
        (#"{"q": "a"}"#, "{q}", true, nil, false, "turns {q}"),
        ("{\(messages)}", nil, true, nil, false, "messages"),
        // An adapter brings its template, which `--prompt` replaces.
        (#"{"q": "a"}"#, nil, false, "{q}", false, "texts {q}"),
        (#"{"q": "a"}"#, nil, false, "{q}", true, "turns {q}"),
        (#"{"q": "a"}"#, nil, true, "{q}", false, "turns {q}"),
        (#"{"q": "a"}"#, "Say {q}", true, "{q}", true, "turns Say {q}"),
        ("{\(messages)}", nil, false, "", true, "messages"),
        // Rows that hold messages and lack the template's fields are chats.
        ("{\(messages)}", nil, false, "{q}", false, "messages"),
        ("{\(messages)}", nil, false, "{q}", true, "messages"),
        ("{\(messages), \"q\": \"a\"}", nil, false, "{q}", false, "texts {q}"),
        ("{\(messages), \"q\": \"a\"}", nil, false, "{q}", true, "turns {q}"),
    ])
    func rowsAreReadAlike(
        row: String, prompt: String?, wraps: Bool, trained: String?, onChats: Bool, expected: String
    ) throws {
        var settings = DataSettings(prompt: prompt)
        settings.chat.wrapsTemplates = wraps
        let record = trained.map { Self.record($0, isChat: onChats) }
        #expect(try Self.format(row, settings, record: record) == expected)
    }

    @Test func trainingNeedsTargets() throws {
        try withTemporaryFile("rows.jsonl", #"{"q": "a"}"#) { file in
            var settings = DataSettings(prompt: "{q}")
            for wraps in [false, true] {
                settings.chat.wrapsTemplates = wraps
                #expect {
                    try settings.exampleFormat(of: [file.path], tokenizerFolder: file.deletingLastPathComponent())
                } throws: { ($0 as? PEFTError)?.problem == "--target is missing" }
            }
        }
    }

    /// A pipe's rows can be read once, so that none is read to learn its format.
    @Test(.timeLimit(.minutes(1))) func pipesAreNotRead() throws {
        try withTemporaryFolder { folder in
            let pipe = folder.appendingPathComponent("rows.jsonl")
            try #require(mkfifo(pipe.path, 0o600) == 0)
            let handle = try #require(FileHandle(forUpdatingAtPath: pipe.path))
            let row = "{\(Self.messages)}\n"
            try handle.write(contentsOf: Data(row.utf8))
            let record = Self.record("{q}", isChat: false)
            let format = try DataSettings().exampleFormat(of: [pipe.path], tokenizerFolder: folder, record: record)
            #expect(format.chat == nil)
            #expect(handle.availableData == Data(row.utf8))
        }
    }
}
