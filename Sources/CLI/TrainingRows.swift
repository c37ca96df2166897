import Foundation
import LanguageModels
import PEFT
import Support
import Tokenizers
import Training

/// The rows of a training as token ids, and what they were made with.
struct TrainingRows {
    let folder: ModelFolder
    let tokenizer: Tokenizer
    let architecture: Architecture
    /// What the model is to have a head for; `nil` if it writes.
    let head: ModelHead?
    let templates: RowTemplates?
    let chat: ChatSettings?
    let training: EncodedRows
    let validation: [EncodedExample]
    let summary: EncodingSummary
    /// How the rows were read, where their fields told it.
    let format: RecognizedFormat?
    /// Most tokens of a prompt.
    let maxInputTokens: Int
    private let maxTokens: Int

    /// - Parameters:
    ///   - validation: a file of validation rows.
    ///   - split: the part of the data that is held out for validation.
    ///   - virtualTokens: those that the method is going to put before each row.
    ///   - record: what an adapter that is trained on from was trained with; its templates hold where none are given.
    ///   - adapter: the adapter that is trained on from, which may bring a vocabulary.
    ///   - tokenizerFolder: where the tokenizer is, if not in the model's folder.
    init(
        _ folder: ModelFolder, _ templates: TemplateOptions, _ chat: ChatOptions, data: [String],
        validation: String?, split: ValidationSplit?, limit: Int?, virtualTokens: Int = 0,
        record: TrainingRecord? = nil, adapter: AdapterFolder? = nil, tokenizerFolder: URL? = nil
    ) throws {
        let tokenizerFolder = tokenizerFolder ?? folder.url
        tokenizer = try Tokenizer.load(folder: tokenizerFolder)
        let recognized = try templates.recognizing(
            data, chat, writes: templates.choice().writes(folder), record: record)
        let templates = recognized.templates
        format = recognized.format
        maxInputTokens = templates.maxInput ?? record?.maxInputTokens ?? TemplateOptions.defaultMaxInput
        let settings = try chat.settings(templates, data: data, folder: tokenizerFolder, record: record)
        self.chat = settings
        if let settings {
            let outline = try Self.outline(folder, adapter)
            (self.folder, head, architecture) = (folder, nil, outline.architecture)
            let wrapped = try chat.wrapped(templates, record: record)
            self.templates = wrapped.map { RowTemplates(prompt: $0.prompt, target: $0.target) }
            let encoder = try settings.encoder(tokenizer, folder: tokenizerFolder, for: outline)
            func encoded(_ data: [String]) throws -> (examples: [EncodedExample], summary: EncodingSummary) {
                try encoder.encode(Rows.read(data, settings, wrapped?.prompt, wrapped?.target, limit: limit))
            }
            let rows = try encoded(data)
            summary = rows.summary
            (training, self.validation) = try Self.parted(
                EncodedRows(rows.examples), validation.map { try encoded([$0]).examples }, split)
            maxTokens = encoder.maxTokens
            return
        }
        let rowTemplates = try templates.rows(record: record)
        self.templates = rowTemplates
        let validationRows = try validation.map { try Rows.read($0, rowTemplates, limit: limit) }
        if let streamed = try Self.streamed(
            folder, templates, rowTemplates, tokenizer, maxInputTokens: maxInputTokens, data: data, limit: limit,
            virtualTokens: virtualTokens, adapter)
        {
            (head, self.folder, architecture) = (nil, folder, streamed.encoder.architecture)
            maxTokens = streamed.encoder.maxInputTokens
            summary = streamed.summary
            (training, self.validation) = try Self.parted(
                streamed.rows, validationRows.map { try streamed.encoder.encode($0).examples }, split)
            return
        }
        let trainingRows = try Rows.read(data, rowTemplates, limit: limit)
        // The adapter that is trained on from says what its head tells apart.
        head = try record?.trainedHead ?? folder.head ?? templates.choice().head(for: folder, rows: trainingRows)
        self.folder = folder.with(head)
        let outline = try Self.outline(self.folder, adapter)
        architecture = outline.architecture
        try ModelNotes.input(templates.maxInput, for: outline, tokenizer, virtualTokens: virtualTokens)
        let encoder = try RowEncoder(
            tokenizer, for: outline, maxInputTokens: maxInputTokens, virtualTokens: virtualTokens)
        maxTokens = encoder.maxInputTokens
        let encoded = try encoder.encode(trainingRows)
        summary = encoded.summary
        (training, self.validation) = try Self.parted(
            EncodedRows(encoded.examples), validationRows.map { try encoder.encode($0).examples }, split,
            classes: head?.task == .classification ? trainingRows.map(\.target) : nil)
        if let meaning = head?.meaningOfNumbers(in: trainingRows) {
            Console.note("the rows number their classes, of which \(meaning)")
        }
    }

    /// The rows as they are read, where the model writes and each line is a row: nothing has to be known of all of them.
    private static func streamed(
        _ folder: ModelFolder, _ templates: TemplateOptions, _ rows: RowTemplates, _ tokenizer: Tokenizer,
        maxInputTokens: Int, data: [String], limit: Int?, virtualTokens: Int, _ adapter: AdapterFolder?
    ) throws -> (encoder: RowEncoder, rows: EncodedRows, summary: EncodingSummary)? {
        guard try folder.head?.task.writes ?? templates.choice().writes(folder) else { return nil }
        let sources = try DataSource.all(data)
        let outline = try outline(folder, adapter)
        let encoder = try RowEncoder(
            tokenizer, for: outline, maxInputTokens: maxInputTokens, virtualTokens: virtualTokens)
        guard try encoder.streams(sources) else { return nil }
        try ModelNotes.input(templates.maxInput, for: outline, tokenizer, virtualTokens: virtualTokens)
        let encoded = try encoder.encode(sources, rows, limit: limit)
        return (encoder, encoded.rows, encoded.summary)
    }

    /// The model without weights, with the vocabulary that an adapter brings.
    private static func outline(_ folder: ModelFolder, _ adapter: AdapterFolder?) throws -> any LanguageModel {
        let outline = try folder.outline()
        try adapter?.putVocabulary(on: outline)
        return outline
    }

    /// The rows to train on and those to validate on.
    private static func parted(
        _ rows: EncodedRows, _ validation: [EncodedExample]?, _ split: ValidationSplit?, classes: [String]? = nil
    ) throws -> (training: EncodedRows, validation: [EncodedExample]) {
        if let validation {
            SharedRows.warn(SharedExamples.count(validation, in: rows), of: validation.count, "validation")
            return (rows, validation)
        }
        guard let split else { return (rows, []) }
        let parts = try split(Array(rows.indices), classes: classes)
        Console.note(
            "\(Console.grouped(parts.heldOut.count)) of \(Console.grouped(rows.count)) examples are held out for validation"
        )
        return (rows.selecting(parts.training), parts.heldOut.map { rows[$0] })
    }

    /// Says on standard error how the rows were read and what didn't reach the model whole.
    func noteLosses() {
        if let format { Console.note(format.note) }
        func rows(_ count: Int) -> String { counted(count, "row") }
        if summary.truncated > 0 {
            let (what, option) =
                chat == nil
                ? (
                    counted(summary.truncated, "prompt"),
                    "--max-input"
                )
                : (rows(summary.truncated), "--max-length")
            let isOne = summary.truncated == 1
            Console.note(
                "\(what) \(isOne ? "is" : "are") truncated to \(maxTokens) tokens; \(option) changes that"
            )
        }
        if summary.dropped > 0 {
            let isOne = summary.dropped == 1
            Console.note(
                "\(rows(summary.dropped)) \(isOne ? "has" : "have") no token that bears loss and \(isOne ? "is" : "are") left out"
            )
        }
        if summary.openTurns > 0 {
            Console.note(
                "in \(rows(summary.openTurns)) no special token with loss ends an assistant turn, so that the model won't learn to stop"
            )
        }
        if summary.turnsWithoutReasoning > 0, let tag = summary.reasoningTag {
            Console.note(
                "the generation prompt opens \(tag), and \(rows(summary.turnsWithoutReasoning)) \(summary.turnsWithoutReasoning == 1 ? "ends" : "end") with a turn without reasoning, which is learned without it, as the template renders it"
            )
        }
        if !summary.unusedFields.isEmpty {
            Console.note(
                "unused fields of the rows: \(summary.unusedFields.sorted().joined(separator: ", "))")
        }
    }

    func show(_ configuration: TrainingConfiguration, showsIDs: Bool, json: Bool = false) {
        let display = BatchDisplay(tokenizer: tokenizer, architecture: architecture, head: head, showsIDs: showsIDs)
        let plan = BatchPlan(configuration, training)
        if json {
            print(display.json(plan, training, summary).text())
        } else {
            display.show(plan, training)
            print(
                "\(counted(summary.rows, "row")) in all: \(Console.grouped(summary.inputTokens)) tokens without loss, "
                    + "\(Console.grouped(summary.targetTokens)) with loss; \(summary.truncated) truncated, \(summary.dropped) left out"
            )
        }
        noteLosses()
    }
}
