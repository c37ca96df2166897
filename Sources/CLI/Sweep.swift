import ArgumentParser
import Experiments
import Foundation
import LanguageModels
import PEFT
import Support
import Training

struct SweepCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sweep",
        abstract: "Train one method with several values of one field: where does more stop to help?",
        discussion: """
            peft sweep --field rank --values 1,2,4,8,16,32,64 --seeds 3 --data train.jsonl --validation dev.jsonl \\
              --test test.jsonl --prompt 'Summarize: {dialogue}' --target '{summary}' --html ranks.html
            peft sweep --method prompt --field tokens --values 5,20,50,100 …
            peft sweep --field targets --values q+v,q+k+v+o,all-linear --budget 200000 …

            Marked is the smallest value within one standard deviation of the best. The learning rate is searched once,
            at the middle value, unless --lr gives it or --tune-each searches it at every value. With --budget each
            value trains about so many parameters; --budget-field (rank) is changed for that.
            """)

    @OptionGroup var model: ModelOptions
    @Option(help: "The method (peft methods lists them).") var method = "lora"
    @Option(help: ArgumentHelp("The field to vary.", valueName: "name")) var field = "rank"
    @Option(
        help: ArgumentHelp("Its values, comma-separated; + stands between the parts of a list.", valueName: "list"))
    var values = "1,2,4,8,16,32,64"
    @Option(help: ArgumentHelp("Trained parameters for every value.", valueName: "n")) var budget: Int?
    @Option(help: ArgumentHelp("The field that meets the budget.", valueName: "name")) var budgetField = "rank"
    @Option(help: DataHelp.training) var data: [String]
    @Option(help: ArgumentHelp("Rows that choose the learning rate.", valueName: "file")) var validation: String?
    @OptionGroup var split: ValidationSplitOption
    @Option(help: ArgumentHelp("Rows that quality is measured on.", valueName: "file")) var test: String
    @Option(help: ArgumentHelp("Use only the first training rows.", valueName: "rows")) var limit: Int?
    @Option(help: ArgumentHelp("Use only the first validation rows.", valueName: "rows")) var limitValidation: Int?
    @Option(help: ArgumentHelp("Use only the first test rows.", valueName: "rows")) var limitTest: Int?
    @OptionGroup var templates: TemplateOptions
    @OptionGroup var chat: ChatOptions
    @Option(
        name: [.customLong("learning-rate"), .customLong("lr")],
        help: ArgumentHelp("Learning rate for all values.", valueName: "x"))
    var learningRate: Double?
    @Flag(help: "Search the learning rate at every value.") var tuneEach = false
    @Option(help: ArgumentHelp("Runs of each value, each with another seed.", valueName: "n")) var seeds = 3
    @OptionGroup var training: TrainingOptions
    @OptionGroup var generation: GenerationOptions
    @Option(
        help: ArgumentHelp("General text; its loss before and after training measures forgetting.", valueName: "file")
    ) var retain: String?
    @Option(help: ArgumentHelp("Write the report as one HTML page.", valueName: "file")) var html: String?
    @Option(help: ArgumentHelp("Write the report as JSON.", valueName: "file")) var output: String?
    @OptionGroup var continuation: ContinuationOptions
    @Flag(help: "Print the report as JSON.") var json = false
    @Flag(help: "Suppress progress output.") var quiet = false

    func run() throws {
        try require("--seeds", seeds)
        let device = try model.prepare()
        let (state, adapters) = try continuation.open(output: output, html: html)
        defer { withExtendedLifetime(state) {} }
        let choice = try MethodArguments.choice(method)
        let folder = try model.folder()
        let rows = try ComparisonData(
            templates, chat, for: folder, training: (data, limit),
            validation: validation.map { ([$0], limitValidation) }, test: ([test], limitTest),
            split: split.heldOut(validation: validation, seed: training.seed))
        let plan = ComparisonPlan(
            methods: [], seeds: seeds, training: try training.configuration(),
            generation: try generation.parameters(seed: training.seed),
            maxInputTokens: templates.maxInput ?? TemplateOptions.defaultMaxInput,
            retain: retain.map { URL(fileURLWithPath: NSString(string: $0).expandingTildeInPath) }, device: device)
        RunWarnings.show(plan.training.steps.flatMap { RunWarnings.warmup(plan.training, totalSteps: $0) })
        try ModelNotes.generation(plan.generation, for: rows.folder(folder).outline())
        let sweep = try Sweep(
            model: rows.folder(folder), name: model.model ?? ModelLocator.embedded, data: rows, plan: plan,
            question: .init(
                choice: choice, field: field,
                values: values.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) },
                budget: budget, budgetField: budgetField, learningRate: learningRate, tunesEach: tuneEach))
        let progress = ComparisonProgress(isQuiet: quiet, seeds: seeds)
        let stop = StopForTests()
        let report = try sweep.run(
            state: state, onAdapter: { trained in if let adapters { try sweep.keep(trained, in: adapters) } },
            onEvent: {
                progress.show($0)
                stop.note($0)
            })
        progress.finish()
        try state?.save(report.json())
        print(json ? String(decoding: try report.json(), as: UTF8.self) : report.table(width: Console.width))
        if let output { try Output.write(report.json(), to: output) }
        if let html {
            try Output.write(report.html(), to: html)
            if !json { print("report: \(html)") }
        }
        state?.remove()
    }
}
