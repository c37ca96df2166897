import ArgumentParser
import Foundation
import LanguageModels
import Support
import Training

struct Predict: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Labels, numbers or vectors for new rows, from a model that reads.",
        discussion: """
            peft predict --adapter my-classifier --data new.jsonl --output labels.jsonl
            peft predict --adapter my-classifier 'I lost my card'
            peft predict --model all-MiniLM-L6-v2 --task embeddings --prompt '{text}' --data rows.csv

            Each line is JSON, or with --output labels.csv a row of the table with its columns: a label with its
            probability (label, score), labels, a number (score), a label for each word (labels), or a vector (embedding; with --pair also the two texts' similarity). A column that the rows
            have already is named predicted_label and so on. Models that write generate text with peft generate.
            """)

    @OptionGroup var model: ModelOptions
    @Option(help: ArgumentHelp("Folder of an adapter.", valueName: "folder")) var adapter: String?
    @Flag(help: "Merge the adapter into the weights first.") var merge = false
    @Argument(help: "Texts, instead of rows.") var text: [String] = []
    @Option(help: DataHelp.prompts) var data: [String] = []
    @Option(help: ArgumentHelp("Use only the first rows.", valueName: "rows")) var limit: Int?
    @OptionGroup var templates: TemplateOptions
    @Option(help: ArgumentHelp("Batch size.", valueName: "rows")) var batchSize = 32
    @Option(
        name: .shortAndLong,
        help: ArgumentHelp("Write here instead of to the terminal: .jsonl, .csv, .tsv or .txt.", valueName: "file"))
    var output: String?
    @Flag(help: "Suppress progress output.") var quiet = false

    func run() throws {
        try require("--batch-size", batchSize)
        guard data.isEmpty || text.isEmpty else {
            throw UsageError("both texts and --data were given", remedy: "give one of them")
        }
        let file = try output.map { try RowsOutput($0) }
        let adapted = try AdaptedModel(model, adapter: adapter, merge: merge, task: templates.choice())
        guard adapted.model.writes == false else {
            throw PEFTError(
                "this \(adapted.model.family) model writes text and has no labels or vectors",
                remedy: "use peft generate, or name a model with a head")
        }
        try ModelNotes.input(templates.maxInput, for: adapted.model, adapted.tokenizer)
        let read = try data.isEmpty ? nil : DataSet.read(DataSource.all(data), limit: limit, keepsText: file != nil)
        let rows = try examples(read, adapted.record)
        let evaluator = Evaluator(
            model: adapted.model, tokenizer: adapted.tokenizer, parameters: .init(), batchSize: batchSize,
            maxInputTokens: templates.maxInput ?? adapted.record?.maxInputTokens ?? TemplateOptions.defaultMaxInput)
        let display = ProgressDisplay(isQuiet: quiet || output == nil)
        let predictions = try evaluator.predict(rows) {
            display.update(share: Double($0) / Double(rows.count), "\($0) of \(counted(rows.count, "row"))")
        }
        display.finish()
        if let file, ![.jsonl, .ndjson].contains(file.format) {
            return try write(
                file, read ?? rows.map { Row(["text": .string($0.prompt)], location: $0.row) }, predictions)
        }
        let lines = zip(rows, predictions).map { row, prediction in
            var fields = prediction.fields
            fields["text"] = .string(row.prompt)
            if let pair = row.pair { fields["pair"] = .string(pair) }
            return JSON.object(fields).text(indent: nil)
        }
        let content = lines.joined(separator: "\n") + "\n"
        if let output { return try Output.write(content, to: output) }
        print(content, terminator: "")
    }

    /// A table with the columns of the rows.
    private func write(_ file: RowsOutput, _ rows: [Row], _ predictions: [Prediction]) throws {
        let results = predictions.map { prediction -> RowsOutput.Result in
            // What a row is said to be comes before how sure that is.
            prediction.fields.sorted { ($0.key == "score" ? "~" : $0.key) < ($1.key == "score" ? "~" : $1.key) }
                .map { ($0.key, $0.value) }
        }
        try file.write(rows, columns: RowColumns.of(rows), results)
    }

    /// The rows as examples, or the texts as they are.
    private func examples(_ rows: [Row]?, _ record: TrainingRecord?) throws -> [Example] {
        if let rows {
            var templates = try templates.rows(record: record, needsTarget: false)
            // What is right may not be known yet.
            templates.target = nil
            return try templates.examples(from: rows)
        }
        guard !text.isEmpty else {
            throw UsageError("there is nothing to read", remedy: "give --data or a text")
        }
        return text.enumerated().map { index, text in
            Example(
                prompt: TemplateOptions.unescape(text), target: "",
                row: .init(file: "the command line", number: index + 1, unit: .element))
        }
    }
}
