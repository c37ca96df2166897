import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers

/// Encoded training and validation data for a model, prepared as `peft train` prepares them.
///
/// ```swift
/// let data = try TrainingData(
///     ["train.jsonl"], for: folder, settings: .init(prompt: "Summarize: {dialogue}", target: "{summary}"))
/// ```
///
/// The rows of the files become prompts and targets, or conversations (``ExampleFormat``). Without templates the format is
/// detected from the first row. For a model with a head, the task and its labels follow from the model, the settings and
/// the examples. Where each line is a row and the model generates text, rows are encoded while they are read and the token
/// ids stored in a file, so that data may exceed memory.
public struct TrainingData {
    /// The model, with the head that the task requires.
    public let folder: ModelFolder
    /// The model's tokenizer.
    public let tokenizer: Tokenizer
    package let architecture: Architecture
    /// The head that the task requires; `nil` for a model that generates text.
    package let head: ModelHead?
    /// How rows became examples.
    package let format: ExampleFormat
    /// The training examples.
    public let training: EncodedRows
    /// The validation examples; empty without a validation file or split.
    public let validation: [EncodedExample]
    /// Counts over all data except a validation file.
    package let summary: EncodingSummary
    /// The data format, if it was detected from the fields.
    package let recognized: RecognizedFormat?
    /// Maximum number of prompt tokens, as set.
    package let maxInputTokens: Int
    /// Maximum number of tokens of a prompt, a text or a conversation for this model.
    let maxTokens: Int
    private let tokenizerFolder: URL

    /// - Parameters:
    ///   - data: names of data sources (``DataSource/all(_:)``).
    ///   - validation: the name of a validation source.
    ///   - split: the part of the data that is held out for validation, in place of a validation source.
    ///   - limit: maximum number of rows for training, and for validation.
    ///   - folder: the model.
    ///   - settings: templates, format and task; what they leave out follows from the model and the first row.
    ///   - virtualTokens: the number of virtual tokens that the method prepends to each example.
    ///   - adapter: an adapter whose training continues; it may have its own vocabulary.
    ///   - record: the settings that this adapter was trained with, which are the defaults.
    ///   - tokenizerFolder: the tokenizer's folder, if not the model's.
    ///   - onNote: called with notes for the user as they arise; see ``notes`` for those on the result.
    /// - Throws: ``PEFTError`` for settings that don't fit the data or the model, and for the first invalid row.
    public init(
        _ data: [String], validation: String? = nil, split: ValidationSplit? = nil, limit: Int? = nil,
        for folder: ModelFolder, settings: DataSettings = DataSettings(), virtualTokens: Int = 0,
        adapter: AdapterFolder? = nil, record: TrainingRecord? = nil, tokenizerFolder: URL? = nil,
        onNote: (String) -> Void = { _ in }
    ) throws {
        let tokenizerFolder = tokenizerFolder ?? folder.url
        self.tokenizerFolder = tokenizerFolder
        tokenizer = try Tokenizer.load(folder: tokenizerFolder)
        let (settings, recognized) = try settings.recognizing(
            data, generates: settings.task.generates(folder), record: record)
        self.recognized = recognized
        maxInputTokens = settings.inputLimit(record)
        format = try settings.exampleFormat(of: data, tokenizerFolder: tokenizerFolder, record: record)
        let encoded = try DataEncoding(
            data: data, validation: validation, limit: limit, folder: folder, tokenizer: tokenizer,
            tokenizerFolder: tokenizerFolder, settings: settings, maxInputTokens: maxInputTokens,
            virtualTokens: virtualTokens, adapter: adapter, record: record
        ).encoded(format, onNote: onNote)
        (self.folder, head, architecture) = (encoded.folder, encoded.head, encoded.architecture)
        (summary, maxTokens) = (encoded.summary, encoded.maxTokens)
        (training, self.validation) = try Self.splitting(encoded, split, onNote)
        if let note = encoded.closingNote { onNote(note) }
    }

    /// Reads further data in the same format, such as a test set.
    /// - Parameters:
    ///   - data: names of data sources (``DataSource/all(_:)``).
    ///   - limit: maximum number of rows.
    ///   - model: the trained model.
    /// - Throws: ``PEFTError`` for the first invalid row.
    public func examples(_ data: [String], limit: Int? = nil, for model: any LanguageModel) throws -> PreparedExamples
    {
        try format.read(data, limit: limit).prepared(
            tokenizer, folder: tokenizerFolder, for: model, maxInputTokens: maxInputTokens)
    }

    /// The training and validation splits.
    private static func splitting(_ encoded: EncodedData, _ split: ValidationSplit?, _ onNote: (String) -> Void)
        throws
        -> (training: EncodedRows, validation: [EncodedExample])
    {
        let rows = encoded.rows
        if let validation = encoded.validation {
            let shared = SharedExamples.count(validation, in: rows)
            if let note = SharedExamples.note(shared, of: validation.count, "validation") { onNote(note) }
            return (rows, validation)
        }
        guard let split else { return (rows, []) }
        let parts = try split(Array(rows.indices), classes: encoded.classes)
        onNote("\(grouped(parts.heldOut.count)) of \(grouped(rows.count)) examples are held out for validation")
        return (rows.selecting(parts.training), parts.heldOut.map { rows[$0] })
    }
}
