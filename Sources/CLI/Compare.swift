import ArgumentParser
import Experiments
import Foundation
import LanguageModels
import PEFT
import PEFTDistributed
import PEFTSupport
import PEFTTokenizers
import Training

struct Compare: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Train several methods on the same data and compare their quality and cost.",
        discussion: """
            peft compare --methods base,full,lora --data train.jsonl --validation dev.jsonl --test test.jsonl \\
              --prompt 'Summarize: {dialogue}' --target '{summary}' --html report.html

            A method can have options in parentheses, with + between the elements of a list: lora(rank=32,targets=q+v).
            Method options outside the parentheses, such as --rank 8, apply to every method that has them. all is every
            method that fits the model; base is the model without fine-tuning. weights sets the base model's weight
            format: base(weights=nf4), qalora(weights=int4-g32-gptq). Without --lr, a short search on the validation
            data finds each method's learning rate.

            --quantize-after nf4,int4-g32-gptq merges each adapter, quantizes the merged model, evaluates it on the same
            test data and reports its size. An adapter that merges into its quantized base without rounding (QA-LoRA
            over int4) is not quantized again.
            """)

    @OptionGroup var model: ModelOptions
    @Option(help: ArgumentHelp("Comma-separated methods; see peft methods.", valueName: "list")) var methods =
        "base,full,lora"
    @OptionGroup var options: MethodOptions
    @Option(help: DataHelp.training) var data: [String] = []
    @Option(help: ArgumentHelp("Validation data for the learning-rate search.", valueName: "file")) var validation:
        String?
    @OptionGroup var split: ValidationSplitOption
    @Option(help: ArgumentHelp("Test data that the methods are compared on.", valueName: "file")) var test: String?
    @Option(help: ArgumentHelp("Print a report written by --output, without running anything.", valueName: "file"))
    var from: String?
    @Option(help: ArgumentHelp("Maximum number of training examples.", valueName: "n")) var limit: Int?
    @Option(help: ArgumentHelp("Maximum number of validation examples.", valueName: "n")) var limitValidation: Int?
    @Option(help: ArgumentHelp("Maximum number of test examples.", valueName: "n")) var limitTest: Int?
    @Flag(help: "Treat test examples with the same prompt as one example with several references.")
    var multiReference = false
    @Option(
        help: ArgumentHelp(
            "Comma-separated baselines without a model: constant, typical(FIELD), first-line, longest-line.",
            valueName: "list"))
    var baselines: String?
    @OptionGroup var templates: TemplateOptions
    @OptionGroup var chat: ChatOptions
    @Option(
        name: [.customLong("learning-rate"), .customLong("lr")],
        help: ArgumentHelp(
            "Peak learning rate of all methods, or method=rate,…; the others are searched.", valueName: "rates"))
    var learningRates: String?
    @Option(help: ArgumentHelp("Number of random seeds, one run each per method.", valueName: "n")) var seeds = 1
    @Flag(
        help: "Leave out methods early that can't win: after shortened runs, by their validation loss (see docs).")
    var eliminate = false
    @Option(
        help: ArgumentHelp(
            "Time that the comparison may take, such as 30m or 2h; methods that don't fit are skipped. Implies --eliminate.",
            valueName: "time"))
    var budget: String?
    @Option(
        help: ArgumentHelp(
            "Also quantize each merged model and evaluate it: nf4, int8, int4-g32, int4-g32-gptq (GPTQ calibrated on the training data), ….",
            valueName: "formats"))
    var quantizeAfter: String?
    @OptionGroup var training: TrainingOptions
    @OptionGroup var generation: GenerationOptions
    @Option(
        help: ArgumentHelp(
            "Text file for measuring forgetting: its loss before and after training.", valueName: "file"))
    var retain: String?
    @OptionGroup var outputs: ReportOptions
    @OptionGroup var continuation: ContinuationOptions
    @Flag(help: "Suppress progress output.") var quiet = false

    func run() throws {
        let launch = try LaunchEnvironment.read()
        if from != nil, let launch, launch.rank > 0 { return }
        try ParallelRun.run(from == nil ? launch : nil) { try run(launch, $0) }
    }

    /// - Parameter job: the processes that divide the runs.
    private func run(_ launch: LaunchEnvironment?, _ job: DistributedJob?) throws {
        if let from {
            try Output.check([outputs.html, outputs.output])
            return try present(
                ComparisonReport.read(URL(fileURLWithPath: NSString(string: from).expandingTildeInPath)))
        }
        guard let test else {
            throw UsageError("--test is missing", remedy: "add the test data that the methods are compared on")
        }
        try require("--seeds", seeds)
        let device = try model.prepare(for: launch)
        ConcurrentRuns.prepare()
        let rates = try parseRates()
        let chosen = try options.list(methods)
        let isAll = MethodOptions.namesAll(methods)
        if let unknown = rates.byMethod.keys.first(where: { name in
            // A base model without a head is compared as "head".
            !chosen.contains { $0.name == name || $0.choice == nil && name == HeadTraining.name }
        }) {
            throw UsageError("--lr names '\(unknown)', which is not compared", remedy: "use one of \(methods)")
        }
        let roundings = try roundings()
        let beside = try Baseline.list(baselines ?? "")
        let (state, adapters) = try continuation.open(output: outputs.output, html: outputs.html, job)
        defer { withExtendedLifetime(state) {} }
        let folder = try model.folder()
        let rows = try ComparisonData(
            templates.settings(chat), for: folder, training: data.isEmpty ? nil : RowsFile(data, limit: limit),
            validation: validation.map { RowsFile([$0], limit: limitValidation) },
            test: RowsFile([test], limit: limitTest),
            split: split.heldOut(validation: validation, seed: training.seed), multiReference: multiReference,
            baselines: beside, onNote: Console.note)
        var plan = ComparisonPlan(
            methods: chosen.map {
                .init(
                    choice: $0.choice,
                    learningRate: rates.byMethod[$0.choice?.method.name ?? HeadTraining.name] ?? rates.shared,
                    isOptional: isAll, weights: $0.weights)
            },
            seeds: seeds, training: try training.configuration(),
            generation: try generation.parameters(seed: training.seed),
            maxInputTokens: templates.maxInput ?? TemplateOptions.defaultMaxInput,
            retain: retain.map { URL(fileURLWithPath: NSString(string: $0).expandingTildeInPath) }, device: device)
        plan.quantizeAfter = roundings
        plan.budget = try budget.map(Self.seconds)
        plan.eliminates = eliminate || budget != nil
        guard !plan.eliminates || continuation.jobs == 1 && job == nil && continuation.slurmArray == nil else {
            let option =
                job != nil ? "several processes" : continuation.slurmArray == nil ? "--jobs" : "--slurm-array"
            throw UsageError(
                "\(option) and --\(eliminate ? "eliminate" : "budget") are mutually exclusive",
                remedy: "use one of them")
        }
        plan.baselines = beside
        RunWarnings.show(plan.training.steps.flatMap { RunWarnings.warmup(plan.training, totalSteps: $0) })
        let outline = try rows.folder(folder).outline()
        let modules = ModelOutline(outline)
        for row in chosen { RunWarnings.show(row.choice.flatMap { RunWarnings.layers($0, modules) }) }
        try ModelNotes.generation(plan.generation, for: outline)
        try ModelNotes.input(
            templates.maxInput, for: outline, Tokenizer.load(folder: folder.url),
            virtualTokens: chosen.compactMap { $0.choice?.virtualTokens }.max() ?? 0)
        let comparison = try Comparison(
            model: folder, name: model.model ?? ModelLocator.embedded, data: rows, plan: plan)
        let names = comparison.methodNames
        let stop = StopForTests()
        func keep(_ trained: TrainedAdapter) throws {
            if let adapters { try comparison.keep(trained, in: adapters, name: names[trained.method]) }
        }
        if try continuation.writesScript(comparison.methodLabels, preparing: false) { return }
        func runMethod(_ index: Int, _ state: ComparisonState) throws {
            try comparison.runMethod(index, state: state, onAdapter: keep, onEvent: stop.note)
        }
        if let index = ConcurrentRuns.index, let state { return try runMethod(index, state) }
        if let job, !job.isFirst { return try RankRuns(job).follow(runMethod) }
        try continuation.runConcurrently(state, comparison, job, isQuiet: quiet, run: runMethod)
        let progress = ComparisonProgress(isQuiet: quiet, seeds: seeds)
        let report = try comparison.run(
            state: state, onAdapter: keep,
            onEvent: { event in
                progress.show(event)
                stop.note(event)
                // An interrupted comparison leaves its results so far, for --from.
                if case .finished(_, let soFar) = event { try? state?.save(soFar.json()) }
            })
        progress.finish()
        try state?.save(report.json())
        try present(report)
        state?.remove()
    }

    private func present(_ report: ComparisonReport) throws {
        try outputs.present(
            table: report.table(color: Console.usesColor, width: Console.width), json: report.json(),
            html: report.html())
    }

    private func roundings() throws -> [WeightRounding] {
        var seen: Set<String> = []
        return try (quantizeAfter ?? "").split(separator: ",").map { name in
            let rounding = try WeightRounding(name.trimmingCharacters(in: .whitespaces))
            guard rounding.isQuantized else {
                throw UsageError(
                    "--quantize-after names \(rounding.name), which is not a quantization format",
                    remedy: "use one of nf4, nf4-double, fp4, int8, int4-g32, int4-g32-gptq, …")
            }
            return rounding
        }.filter { seen.insert($0.name).inserted }
    }

    /// Seconds of a time such as `90s`, `30m` or `1.5h`.
    private static func seconds(_ text: String) throws -> Double {
        let units: [Character: Double] = ["s": 1, "m": 60, "h": 3600]
        guard let unit = text.last.flatMap({ units[$0] }), let value = Double(text.dropLast()), value > 0,
            value * unit < 1e9
        else {
            throw UsageError("--budget '\(text)' is not a time", remedy: "use a form such as 30m or 2h")
        }
        return value * unit
    }

    private func parseRates() throws -> (shared: Double?, byMethod: [String: Double]) {
        guard let learningRates else { return (nil, [:]) }
        var result: (shared: Double?, byMethod: [String: Double]) = (nil, [:])
        for part in learningRates.split(separator: ",").map(String.init) {
            let pair = part.split(separator: "=", maxSplits: 1).map { $0.trimmingCharacters(in: .whitespaces) }
            guard let text = pair.last, let rate = Double(text), rate > 0 else {
                throw UsageError(
                    "--lr '\(part)' is not a learning rate",
                    remedy: "use a form such as --lr 1e-3 or --lr full=3e-4,lora=3e-3")
            }
            if pair.count == 2 { result.byMethod[pair[0].lowercased()] = rate } else { result.shared = rate }
        }
        return result
    }
}
