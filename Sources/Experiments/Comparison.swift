import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers
import Torch
import Training

/// The methods and settings of a comparison.
public struct ComparisonPlan: Sendable {
    /// A method to compare, or the base model without training.
    public struct Method: Sendable {
        /// `nil` for the untrained base model.
        public var choice: MethodChoice?
        /// `nil` to search it on the validation examples.
        public var learningRate: Double?
        /// Whether the method is skipped, with the reason, if it doesn't fit the model.
        package var isOptional: Bool
        /// Added to the seed of the initial values, so that methods start from different ones.
        package var seedOffset: UInt64
        /// Weight format of this method's base model; `nil` for that of the model's folder or of the method.
        package var weights: WeightRounding?

        /// - Parameters:
        ///   - choice: the method; `nil` for the base model.
        ///   - learningRate: its learning rate; `nil` searches for one.
        public init(choice: MethodChoice?, learningRate: Double? = nil) {
            self.init(choice: choice, learningRate: learningRate, isOptional: false)
        }

        package init(
            choice: MethodChoice?, learningRate: Double? = nil, isOptional: Bool, seedOffset: UInt64 = 0,
            weights: WeightRounding? = nil
        ) {
            (self.choice, self.learningRate, self.isOptional) = (choice, learningRate, isOptional)
            (self.seedOffset, self.weights) = (seedOffset, weights)
        }

        /// The method's name; `base` for the base model.
        public var name: String { choice?.method.name ?? "base" }
        /// The method's name in reports, with its main options.
        public var label: String {
            guard let weights else { return choice?.label ?? "base" }
            return choice.map { "\($0.label) over \(weights.name)" } ?? "base in \(weights.name)"
        }
    }

    /// The methods, in the order of the report.
    public var methods: [Method]
    /// Weight formats that each model is quantized to after training, with its adapter merged, and evaluated in.
    package var quantizeAfter: [WeightRounding] = []
    /// Model-free baselines, shown beside the methods.
    public var baselines: [Baseline] = []
    /// Training examples for GPTQ calibration.
    package var calibrationRows = 128
    /// Number of runs per method, each with a seed of its own.
    public var seeds: Int
    /// Settings of every run; the learning rate is each method's.
    public var training: TrainingConfiguration
    /// Settings of the generated outputs.
    public var generation: GenerateParameters
    /// Length in tokens to which inputs are truncated.
    public var maxInputTokens: Int
    /// Generation batch size.
    package var evaluationBatchSize: Int
    /// Length of a learning-rate trial as a fraction of a run's steps.
    package var trialShare: Double
    /// Number of test examples whose outputs the report shows.
    package var sampleRows: Int
    /// Whether methods that can't win are left out after shortened runs (``Elimination``).
    package var eliminates = false
    /// Seconds that the comparison may take; methods that don't fit are skipped.
    package var budget: Double?
    /// General text for measuring forgetting.
    package var retain: URL?
    /// Where the model is trained.
    public var device: Device

    /// - Parameters:
    ///   - methods: the methods, in the order of the report.
    ///   - seeds: runs per method.
    ///   - training: settings of each run; a method's own learning rate takes precedence.
    ///   - generation: settings of the texts that are scored.
    ///   - maxInputTokens: maximum number of tokens of a prompt.
    ///   - evaluationBatchSize: prompts per batch in evaluation.
    ///   - trialShare: length of a trial of the learning-rate search, as a share of a run.
    ///   - sampleRows: test examples whose outputs the report shows.
    ///   - retain: a text file whose loss is measured before and after training.
    ///   - device: where the model is trained.
    public init(
        methods: [Method], seeds: Int = 1, training: TrainingConfiguration = .init(),
        generation: GenerateParameters = .init(), maxInputTokens: Int = 512, evaluationBatchSize: Int = 16,
        trialShare: Double = 0.25, sampleRows: Int = 3, retain: URL? = nil, device: Device = .cpu
    ) {
        (self.retain, self.device) = (retain, device)
        (self.methods, self.seeds, self.training, self.generation) = (methods, seeds, training, generation)
        (self.maxInputTokens, self.evaluationBatchSize) = (maxInputTokens, evaluationBatchSize)
        (self.trialShare, self.sampleRows) = (trialShare, sampleRows)
    }
}

/// Progress of a comparison.
public enum ComparisonEvent: Sendable {
    case started(method: String, index: Int, of: Int)
    case trying(method: String, learningRate: Double)
    case tried(method: String, learningRate: Double, validationLoss: Double?)
    case training(method: String, seed: Int, TrainingProgress)
    case evaluating(method: String, seed: Int, rows: Int, of: Int)
    /// A method is finished; the report has all finished methods so far.
    case finished(MethodRun, soFar: ComparisonReport)
    /// A method was skipped.
    case skipped(SkippedMethod)
}

/// Trains and evaluates several methods on the same data, each from the same base model and with its own learning rate.
public struct Comparison {
    let folder: ModelFolder
    let modelName: String
    let tokenizer: Tokenizer
    let data: ComparisonData
    var plan: ComparisonPlan
    let retention: Retention?
    let outline: any LanguageModel
    let rows: EncodedComparison
    private var skipped: [SkippedMethod] = []
    let bases = RoundedBases()
    private let baselines: [BaselineResult]

    /// - Throws: ``PEFTError`` if a method doesn't fit the model or a setting is invalid, before anything runs.
    public init(model folder: ModelFolder, name: String, data: ComparisonData, plan: ComparisonPlan) throws {
        let folder = try data.folder(folder)
        let model = try folder.outline()
        self.outline = model
        let outline = ModelOutline(model)
        var plan = plan
        if try folder.lacksHead() {
            // A random head says nothing about the base model, so it is evaluated with a trained head.
            for index in plan.methods.indices where plan.methods[index].choice == nil {
                plan.methods[index].choice = MethodChoice(HeadTraining.self)
            }
            var seen: Set<String> = []
            plan.methods.removeAll { $0.name == HeadTraining.name && !seen.insert($0.label).inserted }
        }
        // If only the head is trained, its own rate is the learning rate.
        if let rate = plan.training.headLearningRate {
            for index in plan.methods.indices where plan.methods[index].name == HeadTraining.name {
                plan.methods[index].learningRate = rate
            }
        }
        // Resolve default targets, so that the report names the trained modules.
        for index in plan.methods.indices {
            let own = try plan.methods[index].weights.map { ModelOutline(try Self.outline(folder, $0)) }
            plan.methods[index].choice = plan.methods[index].choice?.resolved(for: own ?? outline)
        }
        // All methods are grouped by family.
        if plan.methods.contains(where: \.isOptional) {
            let places = plan.methods.map { method in
                method.choice.flatMap { try? $0.family(on: outline) }.flatMap {
                    MethodFamily.allCases.firstIndex(of: $0)
                }
                    ?? (method.choice == nil ? -1 : MethodFamily.allCases.count)
            }
            let order = plan.methods.indices.sorted { (places[$0], $0) < (places[$1], $1) }
            plan.methods = order.map { [methods = plan.methods] in methods[$0] }
        }
        for rounding in plan.quantizeAfter { try rounding.check(Self.plainOutline(folder)) }
        (self.folder, modelName, self.data, self.plan) = (folder, name, data, plan)
        tokenizer = try Tokenizer.load(folder: folder.url)
        _ = try GenerationSettings(plan.generation, for: model)
        try plan.training.validate()
        guard plan.seeds >= 1 else {
            throw PEFTError("the number of seeds must be at least 1 (got \(plan.seeds))")
        }
        guard !plan.methods.isEmpty else {
            throw PEFTError("there are no methods to compare", remedy: "name some, such as --methods base,full,lora")
        }
        let counts = data.counts
        guard counts.test > 0 else {
            throw PEFTError("there are no test examples", remedy: "provide examples with --test")
        }
        let trained = plan.methods.filter { $0.choice != nil }
        if !trained.isEmpty, counts.training == 0 {
            throw PEFTError("there are no training examples", remedy: "provide examples with --data")
        }
        if trained.contains(where: { $0.learningRate == nil }), counts.validation == 0 {
            throw PEFTError(
                "the learning-rate search needs validation examples",
                remedy: "provide --validation, or set rates such as --lr lora=1e-3")
        }
        let rounds = plan.methods.compactMap(\.weights) + plan.quantizeAfter
        if plan.eliminates {
            guard counts.validation > 1, model.head.task != .embeddings else {
                throw PEFTError(
                    "leaving methods out early needs validation examples with losses of their own",
                    remedy: "provide --validation, or omit --eliminate")
            }
        }
        guard counts.training > 0 || !rounds.contains(where: \.needsSamples) else {
            throw PEFTError("GPTQ needs training examples for calibration", remedy: "provide examples with --data")
        }
        for method in trained {
            let outline = try method.weights.map { ModelOutline(try Self.outline(folder, $0)) } ?? outline
            do { _ = try method.choice?.plan(for: outline) } catch let error as PEFTError where method.isOptional {
                skipped.append(SkippedMethod(label: method.label, reason: error.description))
                self.plan.methods.removeAll { $0.label == method.label }
            }
        }
        let general = tokenizer
        retention = try plan.retain.map {
            try Retention($0, tokenizer: general, head: model.head, architecture: model.architecture)
        }
        rows = try EncodedComparison(
            data, tokenizer, folder: folder.url, for: model, maxInputTokens: plan.maxInputTokens,
            virtualTokens: plan.methods.compactMap { $0.choice?.virtualTokens }.max() ?? 0)
        baselines = try data.measure(plan.baselines, generates: model.generates)
    }

    /// Trains and evaluates all methods.
    /// - Parameter onEvent: called with the progress.
    /// - Returns: the report of all methods.
    /// - Throws: ``PEFTError``; a method whose loss diverges is part of the report, and no error.
    public func run(onEvent: (ComparisonEvent) -> Void = { _ in }) throws -> ComparisonReport {
        try run(state: nil, onEvent: onEvent)
    }

    /// Indices of the methods whose runs a state lacks, some or all of them.
    /// - Throws: ``PEFTError`` if the state is damaged or belongs to other settings.
    package func unfinished(_ state: ComparisonState) throws -> [Int] {
        try state.begin(stateSettings())
        return try plan.methods.indices.filter { index in
            guard let progress = try state.progress(of: index) else { return true }
            let count = plan.methods[index].choice == nil ? 1 : plan.seeds
            return progress.failure == nil && progress.seeds.count < count
        }
    }

    /// Labels of the methods, in the order of the report.
    package var methodLabels: [String] { plan.methods.map(\.label) }

    /// Runs one method and stores its results, for a process that runs beside others.
    package func runMethod(
        _ index: Int, state: ComparisonState, onAdapter: (TrainedAdapter) throws -> Void = { _ in },
        onEvent: (ComparisonEvent) -> Void = { _ in }
    ) throws {
        try state.begin(stateSettings())
        guard plan.methods.indices.contains(index) else {
            throw PEFTError("there is no method \(index + 1)", remedy: "it has \(plan.methods.count)")
        }
        _ = try progress(of: index, state, onAdapter, onEvent)
    }

    /// The results of a method, which is run as far as the state lacks them.
    private func progress(
        of index: Int, _ state: ComparisonState?, _ onAdapter: (TrainedAdapter) throws -> Void,
        _ onEvent: (ComparisonEvent) -> Void
    ) throws -> MethodProgress {
        let method = plan.methods[index]
        var progress =
            try state?.progress(of: index) ?? MethodProgress(.init(method: method.name, label: method.label))
        guard progress.failure == nil else { return progress }
        do { try measure(method, index, &progress, state, onAdapter, onEvent) } catch let error
            where method.isOptional && (error is PEFTError || error is TrainingDiverged)
        {
            progress.failure = "\(error)"
            try state?.save(progress, of: index)
        }
        return progress
    }

    /// - Parameters:
    ///   - state: stores finished runs, which are not repeated.
    ///   - onAdapter: called with each trained adapter.
    package func run(
        state: ComparisonState?, onAdapter: (TrainedAdapter) throws -> Void = { _ in },
        onEvent: (ComparisonEvent) -> Void = { _ in }
    ) throws -> ComparisonReport {
        try state?.begin(stateSettings())
        var runs: [MethodRun] = []
        var skipped = skipped
        for method in skipped { onEvent(.skipped(method)) }
        func skip(_ method: SkippedMethod) {
            skipped.append(method)
            onEvent(.skipped(method))
        }
        var elimination = try state?.elimination() ?? Elimination()
        let budget = TimeBudget(plan.budget ?? .infinity, spent: elimination.seconds)
        let remaining = try remainingMethods(&elimination, budget, state, onEvent)
        skipped += remaining.skipped
        // Seconds of a finished method beyond its training steps: evaluation, timing, the search of a rate.
        var overhead = 0.0
        for index in remaining.indices {
            let method = plan.methods[index]
            let predicted = (remaining.seconds[index] ?? 0) * Double(plan.seeds)
            guard budget.allows(predicted + overhead) || !runs.contains(where: \.isTrained) else {
                skip(SkippedMethod(label: method.label, reason: "not reached within the budget"))
                continue
            }
            let begun = budget.spent
            onEvent(.started(method: method.label, index: index, of: plan.methods.count))
            let progress = try progress(of: index, state, onAdapter, onEvent)
            if let reason = progress.failure {
                skip(SkippedMethod(label: method.label, reason: reason))
                continue
            }
            let run = progress.finished()
            let place = runs.count
            runs.append(run)
            if method.choice != nil {
                overhead = max(overhead, budget.spent - begun - (run.trainingSeconds ?? 0) * Double(plan.seeds))
            }
            elimination.seconds = budget.spent
            if plan.budget != nil || plan.eliminates { try state?.save(elimination) }
            onEvent(.finished(run, soFar: report(runs, skipped)))
            for stored in progress.stored.runs(of: run, at: place) {
                runs.append(stored)
                onEvent(.finished(stored, soFar: report(runs, skipped)))
            }
            for method in progress.stored.skipped(of: run) { skip(method) }
        }
        return report(runs, skipped)
    }

    private func report(_ runs: [MethodRun], _ skipped: [SkippedMethod]) -> ComparisonReport {
        var report = ComparisonReport(
            version: Version.current, date: ISO8601DateFormatter().string(from: Date()),
            model: .init(
                name: modelName, family: outline.family, parameters: outline.parameterCount,
                bytes: folder.weightBytes),
            data: .init(
                name: data.name, trainingRows: data.counts.training, validationRows: data.counts.validation,
                testRows: data.counts.test, prompt: data.description.prompt, target: data.description.target),
            machine: .current, settings: settings,
            primaryMetric: primaryMetric,
            runs: runs)
        if !outline.generates { report.task = .init(rawValue: outline.head.task.rawValue) }
        report.skipped = skipped
        if !baselines.isEmpty { report.baselines = baselines }
        report.bringInferenceToOneBase()
        report.findDifferences()
        return report
    }

    /// For texts without prompts, perplexity: generated text would be meaningless.
    private var primaryMetric: String {
        if outline.generates, rows.questions.allSatisfy(\.prompt.isEmpty) { return Perplexity.key }
        return outline.head.primaryMetric(hasTargets: rows.questions.contains { !$0.target.isEmpty })
    }

    private var settings: [String: JSON] {
        let training = plan.training
        var settings: [String: JSON] = [
            "steps": .integer(training.totalSteps(rows: max(1, rows.training.count))),
            "batchSize": .integer(training.batchSize), "accumulation": .integer(training.accumulation),
            "optimizer": .string(training.optimizerText), "schedule": .string(training.schedule),
            "warmup": .number(training.warmup), "weightDecay": .number(training.weightDecay),
            "clip": .number(training.clip), "labelSmoothing": .number(training.labelSmoothing),
            "seeds": .integer(plan.seeds), "maxInputTokens": .integer(plan.maxInputTokens),
        ]
        if outline.generates, let generation = try? GenerationSettings(plan.generation, for: outline) {
            settings.merge(generation.settings) { own, _ in own }
        }
        let rounds = plan.methods.compactMap(\.weights) + plan.quantizeAfter
        if plan.eliminates { settings["eliminate"] = true }
        if let budget = plan.budget { settings["budgetSeconds"] = .number(budget) }
        if !plan.quantizeAfter.isEmpty {
            settings["quantizeAfter"] = .array(plan.quantizeAfter.map { .string($0.name) })
        }
        if rounds.contains(where: \.needsSamples) {
            settings["calibrationRows"] = .integer(min(plan.calibrationRows, rows.training.count))
        }
        return settings
    }

    // MARK: One method

    /// The base model in the weight format of a method.
    func folder(for method: ComparisonPlan.Method) throws -> ModelFolder {
        if let weights = method.weights { return try roundedFolder(weights) }
        return folder.isQuantized || folder.storage != nil ? folder : folder.with(weights: method.choice?.baseStorage)
    }

    /// Runs the seeds that `progress` lacks, and saves to `state` after each.
    private func measure(
        _ method: ComparisonPlan.Method, _ place: Int, _ progress: inout MethodProgress, _ state: ComparisonState?,
        _ onAdapter: (TrainedAdapter) throws -> Void, _ onEvent: (ComparisonEvent) -> Void
    ) throws {
        let count = method.choice == nil ? 1 : plan.seeds
        guard progress.seeds.count < count else { return }
        let folder = try folder(for: method)
        progress.run.weights = method.weights?.name ?? folder.storage?.name
        guard let choice = method.choice else {
            try measureBase(method, folder, &progress, onEvent)
            try state?.save(progress, of: place)
            return
        }
        progress.run.configuration = choice.configuration.named
        progress.run.family = try? choice.family(on: ModelOutline(outline)).rawValue
        let rate: Double
        if let known = method.learningRate ?? progress.run.learningRate {
            rate = known
        } else {
            (rate, progress.run.learningRateSearch) = try tune(method, onEvent)
        }
        progress.run.learningRate = rate
        if method.learningRate == nil, progress.seeds.isEmpty { try state?.save(progress, of: place) }
        for index in progress.seeds.count..<count {
            var configuration = plan.training
            configuration.learningRate = rate
            configuration.seed = plan.training.seed &+ UInt64(index)
            Runtime.trimMemory()
            Runtime.resetPeakMemory()
            let base = try folder.load(device: plan.device)
            let baseBytes = index == 0 ? try bytes(of: base, in: folder) : 0
            let lossBefore = try retention?.loss(of: base)
            let adapter = try Adapter(
                choice, on: base, seed: configuration.seed &+ method.seedOffset, tokenizer: tokenizer)
            let trainer = try Trainer(
                adapter, training: rows.training, validation: rows.validation, configuration: configuration)
            let result = try trainer.run { event in
                if case .step(let progress) = event {
                    onEvent(.training(method: method.label, seed: index, progress))
                }
                return true
            }
            try onAdapter(
                TrainedAdapter(
                    method: place, seed: index, adapter: adapter, base: folder, configuration: configuration,
                    result: result))
            let peak = result.peakBytes
            progress.run.peakBytes = peak.map { max(progress.run.peakBytes ?? 0, $0) } ?? progress.run.peakBytes
            progress.run.steps = result.steps
            let forgetting = try retention.flatMap { text in
                try lossBefore.map {
                    RetentionResult(text: text.name, before: $0, after: try text.loss(of: adapter.model))
                }
            }
            progress.run.curves.append(curve(result.history, seed: Int(configuration.seed)))
            if index == 0 {
                let summary = PlanSummary(
                    try choice.plan(for: ModelOutline(adapter.model)), outline: ModelOutline(adapter.model))
                (progress.run.trainable, progress.run.total) = (summary.trainable, summary.total)
                progress.run.share = summary.share
                let saved = try savedBytes(adapter)
                progress.run.adapterBytes = saved
                progress.run.modelBytes =
                    choice.method.peftType == nil ? try bytes(of: base, in: folder) : baseBytes + saved
                progress.run.inference = try inference(adapter)
            }
            let evaluation = try evaluate(adapter.model, label: method.label, seed: index, onEvent)
            if index == 0 { progress.run.samples = samples(evaluation) }
            try measureStored(adapter, label: method.label, seed: index, &progress.stored, onEvent)
            var outcome = SeedOutcome(evaluation, loss: loss(evaluation))
            (outcome.tokensPerSecond, outcome.seconds) = (result.tokensPerSecond, result.seconds)
            (outcome.peakBytes, outcome.retention) = (peak, forgetting)
            progress.seeds.append(outcome)
            try state?.save(progress, of: place)
        }
    }

    private func measureBase(
        _ method: ComparisonPlan.Method, _ folder: ModelFolder, _ progress: inout MethodProgress,
        _ onEvent: (ComparisonEvent) -> Void
    ) throws {
        Runtime.trimMemory()
        Runtime.resetPeakMemory()
        let model = try folder.load(device: plan.device)
        progress.run.total = ModelOutline(model).parameterCount
        progress.run.modelBytes = try bytes(of: model, in: folder)
        let evaluation = try evaluate(model, label: method.label, seed: 0, onEvent)
        progress.run.peakBytes = Runtime.peakMemory
        progress.run.samples = samples(evaluation)
        var outcome = SeedOutcome(evaluation, loss: loss(evaluation))
        if let retention {
            let loss = try retention.loss(of: model)
            outcome.retention = RetentionResult(text: retention.name, before: loss, after: loss)
        }
        progress.seeds.append(outcome)
        guard method.weights == nil else {
            let plain = try self.folder.load(device: plan.device)
            let (ratio, time) = try inferenceTiming().ratio(of: model, to: plain)
            progress.run.inference = .init(unmerged: ratio * time, merged: ratio * time, largestDifference: nil)
            progress.run.inference?.base = time
            return
        }
        let time = try inferenceTiming().milliseconds(model)
        progress.run.inference = .init(unmerged: time, merged: time, largestDifference: nil)
        try measureStored(model, label: method.label, seed: 0, &progress.stored, onEvent)
    }

    func evaluate(
        _ model: any LanguageModel, label: String, seed: Int, _ onEvent: (ComparisonEvent) -> Void
    ) throws -> EvaluationResult {
        let evaluator = Evaluator(
            model: model, tokenizer: tokenizer, parameters: plan.generation, batchSize: plan.evaluationBatchSize,
            maxInputTokens: plan.maxInputTokens)
        return try rows.evaluate(evaluator) {
            onEvent(.evaluating(method: label, seed: seed, rows: $0, of: data.counts.test))
        }
    }

    // MARK: Results

    static func statistics(_ qualities: [[String: MetricValue]]) -> [String: Statistic] {
        guard let first = qualities.first else { return [:] }
        return first.reduce(into: [:]) { result, entry in
            result[entry.key] = Statistic(qualities.compactMap { $0[entry.key] })
        }
    }

    func loss(_ evaluation: EvaluationResult) -> MetricValue {
        evaluation.lossOverRows ?? MetricValue(value: evaluation.loss, low: .nan, high: .nan)
    }

    func samples(_ evaluation: EvaluationResult) -> [MethodRun.Sample] {
        zip(rows.questions, evaluation.predictions).prefix(plan.sampleRows).map {
            MethodRun.Sample(prompt: $0.prompt, target: $0.target, output: $1)
        }
    }

    private func curve(_ history: TrainingHistory, seed: Int) -> MethodRun.Curve {
        MethodRun.Curve(
            seed: seed, training: history.training.map { .init(step: $0.step, loss: $0.loss) },
            validation: history.validation.map { .init(step: $0.step, loss: $0.loss) })
    }

    /// Bytes of the saved adapter folder, or of the whole model.
    private func savedBytes(_ adapter: Adapter) throws -> Int {
        if adapter.choice.method.peftType == nil {
            return adapter.model.byteCount
        }
        let temporary = try TemporaryFolder()
        defer { withExtendedLifetime(temporary) {} }
        let folder = temporary.url.appendingPathComponent("adapter")
        try adapter.save(to: folder, base: modelName)
        let files = try FileManager.default.contentsOfDirectory(
            at: folder, includingPropertiesForKeys: [.fileSizeKey])
        return try files.reduce(0) { try $0 + ($1.resourceValues(forKeys: [.fileSizeKey]).fileSize ?? 0) }
    }
}
