import ArgumentParser
import Experiments
import Foundation
import LanguageModels
import PEFTSupport
import Training

struct Evaluate: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Evaluate a model, with or without an adapter, on a dataset with targets.",
        discussion: """
            peft evaluate --adapter my-adapter --data test.jsonl
            peft evaluate --adapter news=folder --adapter mail=other --data test.jsonl --adapter-field kind

            An adapter trained with peft includes the name of its base model and its templates. Several adapters share
            one base model: each is evaluated on all examples or, with --adapter-field, on the examples whose field
            names it (base is the model without adapters).
            """)

    @OptionGroup var model: ModelOptions
    @Option(help: ArgumentHelp("Adapter folder; repeatable with names.", valueName: "[name=]folder"))
    var adapter: [String] = []
    @Option(help: ArgumentHelp("Field of the data that names each example's adapter.", valueName: "field"))
    var adapterField: String?
    @Flag(help: "Merge the adapter into the weights first.") var merge = false
    @Option(help: DataHelp.rows) var data: [String]
    @Option(help: ArgumentHelp("Maximum number of examples.", valueName: "n")) var limit: Int?
    @OptionGroup var templates: TemplateOptions
    @OptionGroup var chat: ChatOptions
    @OptionGroup var generation: GenerationOptions
    @Flag(help: "Treat examples with the same prompt as one example with several references.") var multiReference =
        false
    @Option(help: ArgumentHelp("Generation batch size.", valueName: "n")) var batchSize = 16
    @Option(help: "Random seed for sampling.") var seed: UInt64 = 0
    @Option(help: ArgumentHelp("Write the prompt, target and output of each example as JSONL.", valueName: "file"))
    var predictions: String?
    @Flag(help: "Print the result as JSON.") var json = false
    @Flag(help: "Suppress progress output.") var quiet = false

    func run() throws {
        try require("--batch-size", batchSize)
        try Output.check([predictions])
        let parameters = try generation.parameters(seed: seed)
        if NamedAdapters.areMeant(by: adapter) { return try evaluateMany(parameters) }
        guard adapterField == nil else {
            throw UsageError("--adapter-field requires named adapters", remedy: "use --adapter name=folder")
        }
        let adapted = try AdaptedModel(model, adapter: adapter.first, merge: merge)
        let settings = try templates.settings(chat).recognized(
            data, generates: adapted.model.generates, record: adapted.record)
        try ModelNotes.generation(parameters, for: adapted.model)
        try ModelNotes.input(templates.maxInput, for: adapted.model, adapted.tokenizer)
        let format = try settings.exampleFormat(
            of: data, tokenizerFolder: adapted.tokenizerFolder, record: adapted.record)
        var examples = try format.read(data, limit: limit)
        if multiReference { examples = examples.groupedByPrompt }
        let prepared = try examples.prepared(
            adapted.tokenizer, folder: adapted.tokenizerFolder, for: adapted.model,
            maxInputTokens: settings.inputLimit(adapted.record))
        let evaluator = Evaluator(
            model: adapted.model, tokenizer: adapted.tokenizer, parameters: parameters, batchSize: batchSize)
        let display = ProgressDisplay(isQuiet: quiet || json)
        let count = examples.count
        let result = try prepared.evaluate(with: evaluator) {
            display.update(share: Double($0) / Double(count), "\($0) of \(counted(count, "example"))")
        }
        display.finish()
        noteLabels(result, examples.texts, adapted.model.head)
        ModelNotes.lastPosition(result.endedAtLastPosition, of: adapted.model)
        try report(result, prepared.questions())
    }

    private func report(_ result: EvaluationResult, _ rows: [(prompt: String, target: String)]) throws {
        if let predictions {
            let lines = zip(rows, result.predictions).map { row, output in
                JSON.object(["prompt": .string(row.prompt), "target": .string(row.target), "output": .string(output)])
                    .text(indent: nil)
            }
            try Output.write(lines.joined(separator: "\n") + "\n", to: predictions)
        }
        if json {
            print(JSON.object(jsonFields(result, rows: rows.count)).text())
        } else {
            printTable(result, rows: rows.count)
        }
    }

    func jsonFields(_ result: EvaluationResult, rows: Int) -> [String: JSON] {
        let quality = result.metrics.mapValues { value -> JSON in
            ["value": .number(value.value), "low": .number(value.low), "high": .number(value.high)]
        }
        let unknown: [String: JSON] =
            result.unknownLabels.isEmpty
            ? [:] : ["unknownLabels": .object(result.unknownLabels.mapValues { .integer($0) })]
        return [
            "quality": .object(quality), "loss": .number(result.loss), "rows": .integer(rows),
            "generatedTokens": .integer(result.generatedTokens), "seconds": .number(result.seconds),
        ].merging(unknown) { first, _ in first }
    }

    /// Prints notes about labels unknown to the model and about class indices.
    private func noteLabels(_ result: EvaluationResult, _ rows: [Example], _ head: ModelHead) {
        if let note = head.classIndexNote(for: rows) { Console.note(note) }
        guard !result.unknownLabels.isEmpty else { return }
        let labels = result.unknownLabels.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
        let shown = labels.prefix(5).map { "'\($0.key)' (\(Console.grouped($0.value)))" }.joined(separator: ", ")
        Console.note(
            "warning: the data has labels unknown to the model, which count as errors: \(shown)\(labels.count > 5 ? ", …" : "")"
        )
    }

    func printTable(_ result: EvaluationResult, rows: Int) {
        for key in MetricDescription.ordered(Set(result.metrics.keys)) {
            guard let value = result.metrics[key] else { continue }
            let metric = MetricDescription.of(key)
            let padded = metric.name.padding(toLength: 16, withPad: " ", startingAt: 0)
            let scale = metric.scale
            print(
                String(
                    format:
                        "%@ %8.\(scale == 1 ? 4 : 2)f   (95 %% interval %.\(scale == 1 ? 4 : 2)f … %.\(scale == 1 ? 4 : 2)f)",
                    padded, value.value * scale, value.low * scale, value.high * scale))
        }
        print(
            String(
                format: "loss             %8.\(result.generatedTokens == 0 ? 4 : 3)f   %@", result.loss,
                result.generatedTokens == 0 ? "per target" : "nats per target token"))
        if result.generatedTokens == 0 {
            let speed = result.seconds > 0 ? Double(rows) / result.seconds : 0
            return print(
                "\(counted(rows, "example")) in \(Console.duration(result.seconds)) "
                    + String(format: "(%.0f examples/s)", speed))
        }
        let speed = result.seconds > 0 ? Double(result.generatedTokens) / result.seconds : 0
        print(
            "\(counted(rows, "example")), \(counted(result.generatedTokens, "token")) in \(Console.duration(result.seconds)) "
                + String(format: "(%.0f tokens/s)", speed))
    }
}
