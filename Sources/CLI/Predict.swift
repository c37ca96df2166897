import ArgumentParser
import Foundation
import LanguageModels
import PEFTSupport
import Training

struct Predict: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Predict labels, scores or embeddings.",
        discussion: """
            peft predict --adapter my-classifier --data new.jsonl --output labels.jsonl
            peft predict --adapter my-classifier 'I lost my card'
            peft predict --model all-MiniLM-L6-v2 --task embeddings --prompt '{text}' --data rows.csv

            Prints one JSON object per example; --output labels.csv writes the data with additional columns: a label and
            its probability (label, score), several labels (labels), a regression score (score), a label per word
            (labels), or an embedding (embedding; with --pair also the similarity of the two texts). Where the data
            already has a column of that name, the new one is called predicted_label and so on. For generative models
            use peft generate.
            """)

    @OptionGroup var model: ModelOptions
    @Option(help: ArgumentHelp("Adapter folder.", valueName: "folder")) var adapter: String?
    @Flag(help: "Merge the adapter into the weights first.") var merge = false
    @Argument(help: "Input texts, in place of --data.") var text: [String] = []
    @Option(help: DataHelp.prompts) var data: [String] = []
    @Option(help: ArgumentHelp("Maximum number of examples.", valueName: "n")) var limit: Int?
    @OptionGroup var templates: TemplateOptions
    @Option(help: ArgumentHelp("Batch size.", valueName: "n")) var batchSize = 32
    @Option(
        name: .shortAndLong,
        help: ArgumentHelp("Output file: .jsonl, .csv, .tsv or .txt (default: standard output).", valueName: "file"))
    var output: String?
    @Flag(help: "Suppress progress output.") var quiet = false

    func run() throws {
        try require("--batch-size", batchSize)
        guard data.isEmpty || text.isEmpty else {
            throw UsageError("texts and --data are mutually exclusive", remedy: "use one of them")
        }
        let file = try output.map { try RowsOutput($0) }
        let adapted = try AdaptedModel(model, adapter: adapter, merge: merge, task: templates.choice())
        guard adapted.model.generates == false else {
            throw PEFTError(
                "this \(adapted.model.family) model generates text and has no classification, regression or embedding head",
                remedy: "use peft generate, or a model with such a head")
        }
        try ModelNotes.input(templates.maxInput, for: adapted.model, adapted.tokenizer)
        let read = try data.isEmpty ? nil : DataSet.read(DataSource.all(data), limit: limit, keepsText: file != nil)
        let rows = try examples(read, adapted.record)
        let evaluator = Evaluator(
            model: adapted.model, tokenizer: adapted.tokenizer, parameters: .init(), batchSize: batchSize,
            maxInputTokens: templates.maxInput ?? adapted.record?.maxInputTokens ?? TemplateOptions.defaultMaxInput)
        let display = ProgressDisplay(isQuiet: quiet || output == nil)
        let predictions = try evaluator.predict(rows) {
            display.update(share: Double($0) / Double(rows.count), "\($0) of \(counted(rows.count, "example"))")
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

    /// Writes a table with the columns of the data and those of the predictions.
    private func write(_ file: RowsOutput, _ rows: [Row], _ predictions: [Prediction]) throws {
        let results = predictions.map { prediction -> RowsOutput.Result in
            // The label comes before its probability.
            prediction.fields.sorted { ($0.key == "score" ? "~" : $0.key) < ($1.key == "score" ? "~" : $1.key) }
                .map { ($0.key, $0.value) }
        }
        try file.write(rows, columns: RowColumns.of(rows), results)
    }

    /// The examples of the data, or of the texts on the command line.
    private func examples(_ rows: [Row]?, _ record: TrainingRecord?) throws -> [Example] {
        if let rows {
            var templates = try templates.templateSettings().templates(record: record, needsTarget: false)
            // Targets are not required.
            templates.target = nil
            return try templates.examples(from: rows)
        }
        guard !text.isEmpty else {
            throw UsageError("no input was given", remedy: "add --data or a text")
        }
        return text.enumerated().map { index, text in
            Example(
                prompt: TemplateOptions.unescape(text), target: "",
                row: .init(file: "the command line", number: index + 1, unit: .element))
        }
    }
}
