import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers

/// All encoded examples of ``TrainingData``, before a part is held out.
struct EncodedData {
    /// The model, with the head that the task requires.
    let folder: ModelFolder
    let head: ModelHead?
    let architecture: Architecture
    let rows: EncodedRows
    /// The examples of the validation source; `nil` without one.
    let validation: [EncodedExample]?
    let summary: EncodingSummary
    /// Maximum number of tokens of a prompt, a text or a conversation for this model.
    let maxTokens: Int
    /// The class of each example, for a stratified split.
    var classes: [String]?
    /// A note for the user, after all others.
    var closingNote: String?
}

/// Reads and encodes the sources of ``TrainingData``: as conversations, as a stream of lines, or as examples in memory, from
/// which the head of a model follows.
struct DataEncoding {
    let data: [String]
    let validation: String?
    let limit: Int?
    let folder: ModelFolder
    let tokenizer: Tokenizer
    let tokenizerFolder: URL
    let settings: DataSettings
    let maxInputTokens: Int
    let virtualTokens: Int
    let adapter: AdapterFolder?
    let record: TrainingRecord?

    func encoded(_ format: ExampleFormat, onNote: (String) -> Void) throws -> EncodedData {
        switch format {
        case .chats(let settings, _): return try conversations(format, settings)
        case .texts(let templates):
            let validation = try self.validation.map { try validationExamples($0, format) }
            return try streamed(templates, validation, onNote) ?? texts(format, validation, onNote)
        }
    }

    private func conversations(_ format: ExampleFormat, _ settings: ChatSettings) throws -> EncodedData {
        let outline = try outline(folder)
        let encoder = try settings.encoder(tokenizer, folder: tokenizerFolder, for: outline)
        let (examples, summary) = try encoder.encode(format.read(data, limit: limit).chats)
        return EncodedData(
            folder: folder, head: nil, architecture: outline.architecture, rows: EncodedRows(examples),
            validation: try validation.map { try encoder.encode(format.read([$0], limit: limit).chats).examples },
            summary: summary, maxTokens: encoder.maxTokens)
    }

    /// Validation prompts and targets are read before the training data, and so is the limit checked.
    private func validationExamples(_ name: String, _ format: ExampleFormat) throws -> [Example] {
        if let limit, limit < 1 {
            throw PEFTError("--limit must be at least 1 (got \(limit))", isUsage: true)
        }
        return try format.read([name], limit: limit).texts
    }

    /// Streams the rows if the model generates text and each line is a row, so that no pass over all of them is needed.
    private func streamed(_ templates: RowTemplates, _ validation: [Example]?, _ onNote: (String) -> Void) throws
        -> EncodedData?
    {
        guard folder.head?.task.generates ?? settings.task.generates(folder) else { return nil }
        let sources = try DataSource.all(data)
        let outline = try outline(folder)
        let encoder = try encoder(for: outline)
        guard try encoder.streams(sources) else { return nil }
        try noteLimit(of: outline, onNote)
        let encoded = try encoder.encode(sources, templates, limit: limit)
        return EncodedData(
            folder: folder, head: nil, architecture: encoder.architecture, rows: encoded.rows,
            validation: try validation.map { try encoder.encode($0).examples }, summary: encoded.summary,
            maxTokens: encoder.maxInputTokens)
    }

    private func texts(_ format: ExampleFormat, _ validation: [Example]?, _ onNote: (String) -> Void) throws
        -> EncodedData
    {
        let examples = try format.read(data, limit: limit).texts
        // The labels of the adapter whose training continues take precedence.
        let head = try record?.trainedHead ?? folder.head ?? settings.task.head(for: folder, rows: examples)
        let folder = folder.with(head)
        let outline = try outline(folder)
        try noteLimit(of: outline, onNote)
        let encoder = try encoder(for: outline)
        let encoded = try encoder.encode(examples)
        return EncodedData(
            folder: folder, head: head, architecture: outline.architecture, rows: EncodedRows(encoded.examples),
            validation: try validation.map { try encoder.encode($0).examples }, summary: encoded.summary,
            maxTokens: encoder.maxInputTokens,
            classes: head?.task == .classification ? examples.map(\.target) : nil,
            closingNote: head?.classIndexNote(for: examples))
    }

    private func encoder(for outline: any LanguageModel) throws -> RowEncoder {
        try RowEncoder(tokenizer, for: outline, maxInputTokens: maxInputTokens, virtualTokens: virtualTokens)
    }

    /// The model without weights, with the adapter's vocabulary if it has one.
    private func outline(_ folder: ModelFolder) throws -> any LanguageModel {
        let outline = try folder.outline()
        try adapter?.putVocabulary(on: outline)
        return outline
    }

    /// Says that the set maximum exceeds the model's limit.
    private func noteLimit(of model: any LanguageModel, _ onNote: (String) -> Void) throws {
        guard let most = settings.maxInputTokens,
            let note = try InputLimits(model, tokenizer, virtualTokens: virtualTokens).note(maxInputTokens: most)
        else { return }
        onNote(note)
    }
}
