import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers
import Torch
import Training

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
        var unreached: [SkippedMethod] = []
        for (number, index) in remaining.indices.enumerated() {
            let method = plan.methods[index]
            let predicted = (remaining.seconds[index] ?? 0) * Double(plan.seeds)
            if !budget.allows(predicted + overhead) {
                guard !runs.contains(where: \.isTrained) else {
                    unreached.append(SkippedMethod(label: method.label, reason: Elimination.notReached))
                    continue
                }
                if method.choice != nil, predicted > 0 {
                    let left = max(0, budget.total - budget.spent)
                    onEvent(.exceedsBudget(method: method.label, seconds: predicted, left: left))
                }
            }
            let begun = budget.spent
            onEvent(.started(method: method.label, index: number, of: remaining.indices.count))
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
        skipped += unreached
        if !unreached.isEmpty { onEvent(.notReached(unreached)) }
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
}
