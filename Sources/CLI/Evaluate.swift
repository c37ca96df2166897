import ArgumentParser
import Foundation
import LanguageModels
import Experiments
import Support
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
        let templates = try templates.recognized(
            data, chat, generates: adapted.model.generates, record: adapted.record)
        try ModelNotes.generation(parameters, for: adapted.model)
        try ModelNotes.input(templates.maxInput, for: adapted.model, adapted.tokenizer)
        if let settings = try chat.settings(
            templates, data: data, folder: adapted.tokenizerFolder, record: adapted.record)
        {
            return try evaluate(settings, templates, adapted, parameters)
        }
        var rows = try Rows.read(data, templates.rows(record: adapted.record), limit: limit)
        if multiReference { rows = Example.groupedByPrompt(rows) }
        let evaluator = Evaluator(
            model: adapted.model, tokenizer: adapted.tokenizer, parameters: parameters, batchSize: batchSize,
            maxInputTokens: templates.maxInput ?? adapted.record?.maxInputTokens ?? TemplateOptions.defaultMaxInput)
        let display = ProgressDisplay(isQuiet: quiet || json)
        let result = try evaluator.evaluate(rows) {
            display.update(share: Double($0) / Double(rows.count), "\($0) of \(counted(rows.count, "example"))")
        }
        display.finish()
        noteLabels(result, rows, adapted.model.head)
        ModelNotes.lastPosition(result.endedAtLastPosition, of: adapted.model)
        try report(result, rows.map { ($0.prompt, $0.target) })
    }

    /// Evaluates chats: the target is the last assistant turn.
    private func evaluate(
        _ settings: ChatSettings, _ templates: TemplateOptions, _ adapted: AdaptedModel,
        _ parameters: GenerateParameters
    ) throws {
        let wrapped = try chat.wrapped(templates, record: adapted.record)
        let rows = try Rows.read(data, settings, wrapped?.prompt, wrapped?.target, limit: limit)
        let chats = try settings.encoder(adapted.tokenizer, folder: adapted.tokenizerFolder, for: adapted.model)
        let evaluator = Evaluator(
            model: adapted.model, tokenizer: adapted.tokenizer, parameters: parameters, batchSize: batchSize)
        let display = ProgressDisplay(isQuiet: quiet || json)
        let result = try evaluator.evaluate(rows, chats) {
            display.update(share: Double($0) / Double(rows.count), "\($0) of \(counted(rows.count, "example"))")
        }
        display.finish()
        ModelNotes.lastPosition(result.endedAtLastPosition, of: adapted.model)
        let questions = try rows.map { try chats.question($0) }
        try report(
            result,
            questions.map { (adapted.tokenizer.decode(tokens: $0.prompt, skipSpecialTokens: false), $0.answer) })
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
        if let meaning = head.classIndexMeaning(in: rows) {
            Console.note("the data has class indices: \(meaning)")
        }
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
