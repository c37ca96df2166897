import Foundation
import LanguageModels
import PEFT
import Support
import Tokenizers
import Training

/// The encoded training and validation data, with the tokenizer and templates used.
struct TrainingRows {
    let folder: ModelFolder
    let tokenizer: Tokenizer
    let architecture: Architecture
    /// The head that the task requires; `nil` for a model that generates text.
    let head: ModelHead?
    let templates: RowTemplates?
    let chat: ChatSettings?
    let training: EncodedRows
    let validation: [EncodedExample]
    let summary: EncodingSummary
    /// The data format, if detected from the fields.
    let format: RecognizedFormat?
    /// Maximum number of prompt tokens.
    let maxInputTokens: Int
    private let maxTokens: Int

    /// - Parameters:
    ///   - validation: a validation file.
    ///   - split: the part of the data that is held out for validation.
    ///   - virtualTokens: the number of virtual tokens that the method prepends to each example.
    ///   - record: the settings that the `--from-adapter` adapter was trained with; its templates are the defaults.
    ///   - adapter: the `--from-adapter` adapter, which may have its own vocabulary.
    ///   - tokenizerFolder: the tokenizer's folder, if not the model's.
    init(
        _ folder: ModelFolder, _ templates: TemplateOptions, _ chat: ChatOptions, data: [String],
        validation: String?, split: ValidationSplit?, limit: Int?, virtualTokens: Int = 0,
        record: TrainingRecord? = nil, adapter: AdapterFolder? = nil, tokenizerFolder: URL? = nil
    ) throws {
        let tokenizerFolder = tokenizerFolder ?? folder.url
        tokenizer = try Tokenizer.load(folder: tokenizerFolder)
        let recognized = try templates.recognizing(
            data, chat, generates: templates.choice().generates(folder), record: record)
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
            (training, self.validation) = try Self.splitting(
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
            (training, self.validation) = try Self.splitting(
                streamed.rows, validationRows.map { try streamed.encoder.encode($0).examples }, split)
            return
        }
        let trainingRows = try Rows.read(data, rowTemplates, limit: limit)
        // The labels of the `--from-adapter` adapter take precedence.
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
        (training, self.validation) = try Self.splitting(
            EncodedRows(encoded.examples), validationRows.map { try encoder.encode($0).examples }, split,
            classes: head?.task == .classification ? trainingRows.map(\.target) : nil)
        if let meaning = head?.classIndexMeaning(in: trainingRows) {
            Console.note("the data has class indices: \(meaning)")
        }
    }

    /// Streams the rows if the model generates text and each line is a row, so that no pass over all of them is needed.
    private static func streamed(
        _ folder: ModelFolder, _ templates: TemplateOptions, _ rows: RowTemplates, _ tokenizer: Tokenizer,
        maxInputTokens: Int, data: [String], limit: Int?, virtualTokens: Int, _ adapter: AdapterFolder?
    ) throws -> (encoder: RowEncoder, rows: EncodedRows, summary: EncodingSummary)? {
        guard try folder.head?.task.generates ?? templates.choice().generates(folder) else { return nil }
        let sources = try DataSource.all(data)
        let outline = try outline(folder, adapter)
        let encoder = try RowEncoder(
            tokenizer, for: outline, maxInputTokens: maxInputTokens, virtualTokens: virtualTokens)
        guard try encoder.streams(sources) else { return nil }
        try ModelNotes.input(templates.maxInput, for: outline, tokenizer, virtualTokens: virtualTokens)
        let encoded = try encoder.encode(sources, rows, limit: limit)
        return (encoder, encoded.rows, encoded.summary)
    }

    /// The model without weights, with the adapter's vocabulary if it has one.
    private static func outline(_ folder: ModelFolder, _ adapter: AdapterFolder?) throws -> any LanguageModel {
        let outline = try folder.outline()
        try adapter?.putVocabulary(on: outline)
        return outline
    }

    /// The training and validation splits.
    private static func splitting(
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

    /// Prints notes about the detected format, and about truncated and dropped examples.
    func noteLosses() {
        if let format { Console.note(format.note) }
        func examples(_ count: Int) -> String { counted(count, "example") }
        if summary.truncated > 0 {
            let (what, option) =
                chat == nil
                ? (
                    counted(summary.truncated, "prompt"),
                    "--max-input"
                )
                : (examples(summary.truncated), "--max-length")
            let isOne = summary.truncated == 1
            Console.note(
                "\(what) \(isOne ? "is" : "are") truncated to \(maxTokens) tokens; raise \(option) to keep more"
            )
        }
        if summary.dropped > 0 {
            let isOne = summary.dropped == 1
            Console.note(
                "\(examples(summary.dropped)) \(isOne ? "has" : "have") no token that contributes to the loss and \(isOne ? "is" : "are") dropped"
            )
        }
        if summary.openTurns > 0 {
            Console.note(
                "in \(examples(summary.openTurns)) no special token that contributes to the loss ends an assistant turn; the model won't learn to stop"
            )
        }
        if summary.turnsWithoutReasoning > 0, let tag = summary.reasoningTag {
            Console.note(
                "the generation prompt opens \(tag), but \(examples(summary.turnsWithoutReasoning)) \(summary.turnsWithoutReasoning == 1 ? "ends" : "end") with a turn without reasoning; such turns are trained without it, as the chat template renders them"
            )
        }
        if !summary.unusedFields.isEmpty {
            Console.note(
                "unused fields of the data: \(summary.unusedFields.sorted().joined(separator: ", "))")
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
                "\(counted(summary.rows, "row")) in all: \(counted(summary.inputTokens, "token")) without loss, "
                    + "\(Console.grouped(summary.targetTokens)) with loss; \(summary.truncated) truncated, \(summary.dropped) dropped"
            )
        }
        noteLosses()
    }
}
