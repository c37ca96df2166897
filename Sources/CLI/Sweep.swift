import ArgumentParser
import Experiments
import Foundation
import LanguageModels
import PEFT
import PEFTDistributed
import PEFTSupport
import Training

struct SweepCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sweep",
        abstract: "Train one method with several values of a hyperparameter.",
        discussion: """
            peft sweep --field rank --values 1,2,4,8,16,32,64 --seeds 3 --data train.jsonl --validation dev.jsonl \\
              --test test.jsonl --prompt 'Summarize: {dialogue}' --target '{summary}' --html ranks.html
            peft sweep --method prompt --field tokens --values 5,20,50,100 …
            peft sweep --field targets --values q+v,q+k+v+o,all-linear --budget 200000 …

            The report marks the smallest value within one standard deviation of the best. Without --lr, the learning
            rate is searched once at the middle value, or with --tune-each at every value. --budget keeps the number of
            trainable parameters about equal by adjusting --budget-field.
            """)

    @OptionGroup var model: ModelOptions
    @Option(help: "Fine-tuning method; see peft methods.") var method = "lora"
    @OptionGroup var options: MethodOptions
    @Option(help: ArgumentHelp("Method option to vary; see peft methods NAME.", valueName: "name")) var field = "rank"
    @Option(
        help: ArgumentHelp("Comma-separated values; + separates the elements of a list.", valueName: "list"))
    var values = "1,2,4,8,16,32,64"
    @Option(help: ArgumentHelp("Number of trainable parameters at every value.", valueName: "n")) var budget: Int?
    @Option(help: ArgumentHelp("Method option to adjust to the budget.", valueName: "name")) var budgetField = "rank"
    @Option(help: DataHelp.training) var data: [String]
    @Option(help: ArgumentHelp("Validation data for the learning-rate search.", valueName: "file")) var validation:
        String?
    @OptionGroup var split: ValidationSplitOption
    @Option(help: ArgumentHelp("Test data.", valueName: "file")) var test: String
    @Option(help: ArgumentHelp("Maximum number of training examples.", valueName: "n")) var limit: Int?
    @Option(help: ArgumentHelp("Maximum number of validation examples.", valueName: "n")) var limitValidation: Int?
    @Option(help: ArgumentHelp("Maximum number of test examples.", valueName: "n")) var limitTest: Int?
    @OptionGroup var templates: TemplateOptions
    @OptionGroup var chat: ChatOptions
    @Option(
        name: [.customLong("learning-rate"), .customLong("lr")],
        help: ArgumentHelp("Peak learning rate at all values (default: searched).", valueName: "x"))
    var learningRate: Double?
    @Flag(help: "Search the learning rate at every value.") var tuneEach = false
    @Option(help: ArgumentHelp("Number of random seeds, one run each per value.", valueName: "n")) var seeds = 3
    @OptionGroup var training: TrainingOptions
    @OptionGroup var generation: GenerationOptions
    @Option(
        help: ArgumentHelp(
            "Text file for measuring forgetting: its loss before and after training.", valueName: "file")
    ) var retain: String?
    @OptionGroup var outputs: ReportOptions
    @OptionGroup var continuation: ContinuationOptions
    @Flag(help: "Suppress progress output.") var quiet = false

    func run() throws {
        let launch = try LaunchEnvironment.read()
        try ParallelRun.run(launch) { try run(launch, $0) }
    }

    /// - Parameter job: the processes that divide the runs.
    private func run(_ launch: LaunchEnvironment?, _ job: DistributedJob?) throws {
        try require("--seeds", seeds)
        let device = try model.prepare(for: launch)
        ConcurrentRuns.prepare()
        let (state, adapters) = try continuation.open(output: outputs.output, html: outputs.html, job)
        defer { withExtendedLifetime(state) {} }
        let choice = try options.choice(method)
        let folder = try model.folder()
        let rows = try ComparisonData(
            templates.settings(chat), for: folder, training: RowsFile(data, limit: limit),
            validation: validation.map { RowsFile([$0], limit: limitValidation) },
            test: RowsFile([test], limit: limitTest),
            split: split.heldOut(validation: validation, seed: training.seed), onNote: Console.note)
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
        func keep(_ trained: TrainedAdapter) throws {
            if let adapters { try sweep.keep(trained, in: adapters) }
        }
        if try continuation.writesScript(sweep.labels, preparing: sweep.tunesOnce) { return }
        func runValue(_ index: Int, _ state: ComparisonState) throws {
            try sweep.runValue(index, state: state, onAdapter: keep, onEvent: stop.note)
        }
        if ConcurrentRuns.isPreparing {
            _ = try sweep.tuned(state, stop.note)
            return
        }
        if let index = ConcurrentRuns.index, let state { return try runValue(index, state) }
        if let job, !job.isFirst { return try RankRuns(job).follow(runValue) }
        try continuation.runConcurrently(
            state, sweep.tuned(state, progress.show), job, isQuiet: quiet, run: runValue)
        let report = try sweep.run(
            state: state, onAdapter: keep,
            onEvent: {
                progress.show($0)
                stop.note($0)
            })
        progress.finish()
        try state?.save(report.json())
        try outputs.present(
            table: report.table(width: Console.width), json: report.json(), html: report.html())
        state?.remove()
    }
}
