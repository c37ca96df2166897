import Foundation
import LanguageModels
import PEFTSupport
import PEFTTokenizers
import TestSupport
import Testing

@testable import Training

/// Data is prepared in one way for commands and programs, for every architecture.
@Suite struct TrainingDataTests {
    private static let package = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    private let texts = DataSettings(prompt: "Q: {q}", target: "{a}")

    private static func lines(_ count: Int) -> String {
        (0..<count).map { #"{"q": "Tom \#($0)", "a": "ran \#($0)"}"# }.joined(separator: "\n")
    }

    private func folder(_ architecture: Architecture) throws -> ModelFolder {
        architecture == .decoder
            ? try ChatFixture().folder : try ModelFolder(Self.package.appendingPathComponent("Models/tiny-t5"))
    }

    /// Streamed lines and an array in memory give the examples of a ``RowEncoder``.
    @Test(arguments: [Architecture.encoderDecoder, .decoder], ["rows.jsonl", "rows.json"])
    func textsAreThoseOfTheEncoder(_ architecture: Architecture, name: String) throws {
        let folder = try folder(architecture)
        let content =
            name == "rows.json"
            ? "[" + Self.lines(6).replacingOccurrences(of: "\n", with: ",") + "]" : Self.lines(6)
        try withTemporaryFile(name, content.utf8) { file in
            let data = try TrainingData([file.path], limit: 5, for: folder, settings: texts)
            let examples = try texts.templates().examples(from: DataSet.read(file, limit: 5))
            let encoder = try RowEncoder(data.tokenizer, for: folder.outline(), maxInputTokens: 512)
            let expected = try encoder.encode(examples)
            #expect(data.training.map(\.input) == expected.examples.map(\.input))
            #expect(data.training.map(\.target) == expected.examples.map(\.target))
            #expect(data.architecture == architecture && data.head == nil && data.format.chat == nil)
            #expect(data.summary.rows == 5 && data.validation.isEmpty && data.notes.isEmpty)
            let test = try data.examples([file.path], limit: 2, for: folder.outline())
            #expect(try test.encoded().examples.map(\.target) == expected.examples.prefix(2).map(\.target))
            #expect(try test.questions().map(\.prompt) == ["Q: Tom 0", "Q: Tom 1"])
        }
    }

    @Test func messagesAreChats() throws {
        let fixture = try ChatFixture()
        let data = try TrainingData([fixture.rows.path], for: fixture.folder)
        let expected = try fixture.encoder().encode(fixture.conversations())
        #expect(data.training.map(\.ids) == expected.examples.map(\.ids))
        #expect(data.training.map(\.mask) == expected.examples.map(\.mask))
        #expect(data.format.chat == ChatSettings() && data.format.templates == nil)
        #expect(data.notes.first?.hasPrefix("reading rows as chat messages") == true)
    }

    /// Alpaca rows need no templates; as turns they have no headings.
    @Test func formatsAreRecognized() throws {
        let folder = try folder(.decoder)
        try withTemporaryFile("rows.jsonl", #"{"instruction": "Add", "input": "", "output": "4"}"#.utf8) { file in
            let data = try TrainingData([file.path], for: folder)
            #expect(data.recognized?.format == .alpaca)
            #expect(data.format.templates?.prompt.text.hasPrefix("### Instruction") == true)
            var settings = DataSettings()
            settings.chat.wrapsTemplates = true
            let turns = try TrainingData([file.path], for: folder, settings: settings)
            #expect(turns.format.templates?.target?.text == "{output}" && turns.format.chat != nil)
            let first = try #require(turns.training.first)
            #expect(turns.tokenizer.decode(tokens: first.ids).contains("Add"))
            #expect(!turns.tokenizer.decode(tokens: first.ids).contains("###"))
        }
    }

    @Test func notesAreReturned() throws {
        let folder = try folder(.encoderDecoder)
        try withTemporaryFile("rows.jsonl", Self.lines(8).utf8) { file in
            var (notes, settings): ([String], DataSettings) = ([], texts)
            settings.maxInputTokens = 3
            let data = try TrainingData(
                [file.path], split: ValidationSplit(share: 0.25, seed: 1), for: folder, settings: settings
            ) { notes.append($0) }
            #expect(data.training.count == 6 && data.validation.count == 2)
            #expect(notes == ["2 of 8 examples are held out for validation"])
            #expect(data.notes == ["8 prompts are truncated to 3 tokens; raise --max-input to keep more"])
            notes = []
            _ = try TrainingData([file.path], validation: file.path, for: folder, settings: texts) {
                notes.append($0)
            }
            #expect(notes.count == 1 && notes[0].hasPrefix("warning: 8 of the 8 validation examples are also"))
        }
    }

    /// Contradictory or missing settings are told from rows that don't fit.
    @Test func mistakesInSettingsAreUsageErrors() throws {
        let folder = try folder(.encoderDecoder)
        try withTemporaryFile("rows.jsonl", Self.lines(2).utf8) { file in
            func error(_ change: (inout DataSettings) -> Void) -> PEFTError? {
                var settings = DataSettings()
                change(&settings)
                return #expect(throws: PEFTError.self) {
                    try TrainingData([file.path], for: folder, settings: settings)
                }
            }
            let missing = error { $0.prompt = "{q}" }
            #expect(missing?.isUsage == true && missing?.problem == "--target is missing")
            let both = error { ($0.prompt, $0.format) = ("{q}", .alpaca) }
            #expect(both?.isUsage == true && both?.problem == "--format and --prompt are mutually exclusive")
            let template = error { ($0.prompt, $0.target) = ("{q", "{a}") }
            #expect(template?.isUsage == true)
            let format = error { $0.format = .alpaca }
            #expect(format?.isUsage == false && format?.problem.hasPrefix("--format alpaca requires") == true)
            let loss = error { ($0.prompt, $0.target, $0.chat.loss) = ("{q}", "{a}", .last) }
            #expect(loss?.isUsage == false && loss?.problem.hasPrefix("chat options require chats") == true)
            let field = error { ($0.prompt, $0.target) = ("{question}", "{a}") }
            #expect(field?.isUsage == false)
        }
    }
}
