import Foundation
import LanguageModels
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
    private let maxTokens: Int

    init(
        _ folder: ModelFolder, _ templates: TemplateOptions, _ chat: ChatOptions, data: String, validation: String?,
        limit: Int?
    ) throws {
        tokenizer = try Tokenizer.load(folder: folder.url)
        let settings = try chat.settings(templates, data: data, folder: folder.url)
        self.chat = settings
        if let settings {
            let outline = try folder.outline()
            (self.folder, head, architecture) = (folder, nil, outline.architecture)
            let wrapped = try chat.wrapped(templates)
            self.templates = wrapped.map { RowTemplates(prompt: $0.prompt, target: $0.target) }
            let encoder = try settings.encoder(tokenizer, folder: folder.url, for: outline)
            func encoded(_ path: String) throws -> (examples: [EncodedExample], summary: EncodingSummary) {
                try encoder.encode(Rows.read(path, settings, wrapped?.prompt, wrapped?.target, limit: limit))
            }
            let rows = try encoded(data)
            (training, summary) = (EncodedRows(rows.examples), rows.summary)
            self.validation = try validation.map { try encoded($0).examples } ?? []
            maxTokens = settings.maxLength
            return
        }
        let rowTemplates = try templates.rows()
        self.templates = rowTemplates
        maxTokens = templates.maxInput ?? TemplateOptions.defaultMaxInput
        let validationRows = try validation.map { try Rows.read($0, rowTemplates, limit: limit) } ?? []
        if let streamed = try Self.streamed(folder, templates, rowTemplates, tokenizer, data: data, limit: limit) {
            (head, self.folder, architecture) = (nil, folder, streamed.encoder.architecture)
            (training, summary) = (streamed.rows, streamed.summary)
            self.validation = try streamed.encoder.encode(validationRows).examples
            return
        }
        let trainingRows = try Rows.read(data, rowTemplates, limit: limit)
        head = try templates.choice().head(for: folder, rows: trainingRows)
        self.folder = folder.with(head)
        let outline = try self.folder.outline()
        architecture = outline.architecture
        let encoder = try RowEncoder(tokenizer, for: outline, maxInputTokens: maxTokens)
        let encoded = try encoder.encode(trainingRows)
        (training, summary) = (EncodedRows(encoded.examples), encoded.summary)
        self.validation = try encoder.encode(validationRows).examples
    }

    /// The rows as they are read, where the model writes and each line is a row: nothing has to be known of all of them.
    private static func streamed(
        _ folder: ModelFolder, _ templates: TemplateOptions, _ rows: RowTemplates, _ tokenizer: Tokenizer,
        data: String,
        limit: Int?
    ) throws -> (encoder: RowEncoder, rows: EncodedRows, summary: EncodingSummary)? {
        guard try templates.choice().writes(folder) else { return nil }
        let url = URL(fileURLWithPath: NSString(string: data).expandingTildeInPath)
        let encoder = try RowEncoder(
            tokenizer, for: folder.outline(), maxInputTokens: templates.maxInput ?? TemplateOptions.defaultMaxInput)
        guard encoder.streams(url) else { return nil }
        let encoded = try encoder.encode(url, rows, limit: limit)
        return (encoder, encoded.rows, encoded.summary)
    }

    /// Says on standard error what didn't reach the model whole.
    func noteLosses() {
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
    }

    func show(_ configuration: TrainingConfiguration, showsIDs: Bool) {
        BatchDisplay(tokenizer: tokenizer, architecture: architecture, head: head, showsIDs: showsIDs).show(
            BatchPlan(configuration, training), training)
        print(
            "\(counted(summary.rows, "row")) in all: \(Console.grouped(summary.inputTokens)) tokens without loss, "
                + "\(Console.grouped(summary.targetTokens)) with loss; \(summary.truncated) truncated, \(summary.dropped) left out"
        )
        noteLosses()
    }
}
