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

            Each line is JSON: a label with its probability (label, score), labels, a number (score), a label for each
            word (labels), or a vector (embedding; with --pair also the two texts' similarity). Models that write make
            text with peft generate.
            """)

    @OptionGroup var model: ModelOptions
    @Option(help: ArgumentHelp("Folder of an adapter.", valueName: "folder")) var adapter: String?
    @Flag(help: "Merge the adapter into the weights first.") var merge = false
    @Argument(help: "Texts, instead of rows.") var text: [String] = []
    @Option(help: ArgumentHelp("Rows, JSONL or CSV; they need no target.", valueName: "file")) var data: String?
    @Option(help: ArgumentHelp("Use only the first rows.", valueName: "rows")) var limit: Int?
    @OptionGroup var templates: TemplateOptions
    @Option(help: ArgumentHelp("Rows read at a time.", valueName: "rows")) var batchSize = 32
    @Option(name: .shortAndLong, help: ArgumentHelp("Write here instead of to the terminal.", valueName: "file"))
    var output: String?
    @Flag(help: "No progress.") var quiet = false

    func run() throws {
        guard batchSize >= 1 else {
            throw PEFTError("the batch size is \(batchSize)", remedy: "it has to be at least 1")
        }
        guard data == nil || text.isEmpty else {
            throw PEFTError("both texts and --data were given", remedy: "give one of them")
        }
        try Output.check([output])
        let adapted = try AdaptedModel(model, adapter: adapter, merge: merge, task: templates.choice())
        guard adapted.model.writes == false else {
            throw PEFTError(
                "this \(adapted.model.family) model writes text and has no labels or vectors",
                remedy: "use peft generate, or name a model with a head")
        }
        let rows = try examples(adapted.record)
        let evaluator = Evaluator(
            model: adapted.model, tokenizer: adapted.tokenizer, parameters: .init(), batchSize: batchSize,
            maxInputTokens: templates.maxInput ?? adapted.record?.maxInputTokens ?? TemplateOptions.defaultMaxInput)
        let display = ProgressDisplay(isQuiet: quiet || output == nil)
        let predictions = try evaluator.predict(rows) {
            display.update(share: Double($0) / Double(rows.count), "\($0) of \(rows.count) rows")
        }
        display.finish()
        let lines = zip(rows, predictions).map { row, prediction in
            var fields = prediction.fields
            fields["text"] = .string(row.prompt)
            if let pair = row.pair { fields["pair"] = .string(pair) }
            return JSON.object(fields).text(indent: nil)
        }
        let content = lines.joined(separator: "\n") + "\n"
        if let output { return try AtomicFile.write(content, to: URL(fileURLWithPath: output)) }
        print(content, terminator: "")
    }

    /// The rows of a file, or the texts as they are.
    private func examples(_ record: TrainingRecord?) throws -> [Example] {
        if let data {
            var templates = try templates.rows(record: record, needsTarget: false)
            // What is right may not be known yet.
            templates.target = nil
            return try Rows.read(data, templates, limit: limit)
        }
        guard !text.isEmpty else {
            throw PEFTError("there is nothing to read", remedy: "give --data or a text")
        }
        return text.enumerated().map { index, text in
            Example(
                prompt: TemplateOptions.unescape(text), target: "",
                row: .init(file: "the command line", number: index + 1, unit: .element))
        }
    }
}
