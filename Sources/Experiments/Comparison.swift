import Foundation
import LanguageModels
import PEFT
import Support
import Tokenizers
import Torch
import Training

/// Which methods to compare, on what, and how.
public struct ComparisonPlan: Sendable {
    public struct Method: Sendable {
        /// `nil` for the base model as it is.
        public var choice: MethodChoice?
        /// `nil` lets validation rows decide.
        public var learningRate: Double?
        /// Whether the comparison goes on without it where it doesn't fit the model, and says why.
        public var isOptional: Bool
        /// Added to the seed of the initial values, so that methods don't begin with the same numbers.
        public var seedOffset: UInt64

        public init(
            choice: MethodChoice?, learningRate: Double? = nil, isOptional: Bool = false, seedOffset: UInt64 = 0
        ) {
            (self.choice, self.learningRate, self.isOptional) = (choice, learningRate, isOptional)
            self.seedOffset = seedOffset
        }

        public var name: String { choice?.method.name ?? "base" }
        public var label: String { choice?.label ?? "base" }
    }

    public var methods: [Method]
    public var seeds: Int
    public var training: TrainingConfiguration
    public var generation: GenerateParameters
    public var maxInputTokens: Int
    /// Rows that are generated for at a time.
    public var evaluationBatchSize: Int
    /// Share of a run's steps that one trial of a learning rate takes.
    public var trialShare: Double
    /// Rows whose outputs the report shows.
    public var sampleRows: Int
    /// General text on which forgetting is measured.
    public var retain: URL?
    public var device: Device

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

/// The rows of a comparison.
public struct ComparisonData: Sendable {
    public var name: String
    public var training: [Example]
    public var validation: [Example]
    public var test: [Example]
    public var templates: RowTemplates
    /// What the rows are for, as far as it was said.
    public var task: TaskChoice

    public init(
        name: String, training: [Example], validation: [Example], test: [Example], templates: RowTemplates,
        task: TaskChoice = TaskChoice()
    ) {
        (self.name, self.training, self.validation, self.test) = (name, training, validation, test)
        (self.templates, self.task) = (templates, task)
    }

    /// The base model with the head that the rows ask for.
    /// - Throws: ``PEFTError`` for rows that don't fit the task.
    public func folder(_ base: ModelFolder) throws -> ModelFolder {
        base.with(try task.head(for: base, rows: training.isEmpty ? test : training))
    }
}

public enum ComparisonEvent: Sendable {
    case started(method: String, index: Int, of: Int)
    case trying(method: String, learningRate: Double)
    case tried(method: String, learningRate: Double, validationLoss: Double?)
    case training(method: String, seed: Int, TrainingProgress)
    case evaluating(method: String, seed: Int, rows: Int, of: Int)
    /// A method is measured; the report holds all that were so far.
    case finished(MethodRun, soFar: ComparisonReport)
    /// A method can't be compared.
    case skipped(SkippedMethod)
}

/// Trains and measures several methods on the same rows, each from the same base and with its own learning rate.
public struct Comparison {
    private let folder: ModelFolder
    private let modelName: String
    private let tokenizer: Tokenizer
    private let data: ComparisonData
    private var plan: ComparisonPlan
    private let training: [EncodedExample]
    private let validation: [EncodedExample]
    private let retention: Retention?
    private let outline: any LanguageModel
    private let encoder: RowEncoder
    private var skipped: [SkippedMethod] = []

    /// - Throws: ``PEFTError`` if a method doesn't fit the model or a setting makes no sense, before anything runs.
    public init(model folder: ModelFolder, name: String, data: ComparisonData, plan: ComparisonPlan) throws {
        let folder = try data.folder(folder)
        let model = try folder.outline()
        self.outline = model
        let outline = ModelOutline(model)
        var plan = plan
        if try folder.lacksHead() {
            // A head with random numbers says nothing of the base: it is measured with a head that was trained.
            for index in plan.methods.indices where plan.methods[index].choice == nil {
                plan.methods[index].choice = MethodChoice(HeadTraining.self)
            }
            var seen: Set<String> = []
            plan.methods.removeAll { $0.name == HeadTraining.name && !seen.insert($0.label).inserted }
        }
        // The head's own rate is all that counts where nothing else is trained.
        if let rate = plan.training.headLearningRate {
            for index in plan.methods.indices where plan.methods[index].name == HeadTraining.name {
                plan.methods[index].learningRate = rate
            }
        }
        // Targets that are left to the model are spelled out, so that the report says what was trained.
        for index in plan.methods.indices {
            plan.methods[index].choice = plan.methods[index].choice?.resolved(for: outline)
        }
        (self.folder, modelName, self.data, self.plan) = (folder, name, data, plan)
        tokenizer = try Tokenizer.load(folder: folder.url)
        try plan.generation.validate()
        try plan.training.validate()
        guard plan.seeds >= 1 else {
            throw PEFTError("\(plan.seeds) seeds were asked for", remedy: "at least 1 has to be")
        }
        guard !plan.methods.isEmpty else {
            throw PEFTError("no methods were named", remedy: "use --methods base,full,lora")
        }
        guard !data.test.isEmpty else { throw PEFTError("there are no test rows", remedy: "give --test some rows") }
        let trained = plan.methods.filter { $0.choice != nil }
        if !trained.isEmpty, data.training.isEmpty {
            throw PEFTError("there are no training rows", remedy: "give --data some rows")
        }
        if trained.contains(where: { $0.learningRate == nil }), data.validation.isEmpty {
            throw PEFTError(
                "choosing a learning rate needs validation rows",
                remedy: "give --validation, or rates such as --lr lora=1e-3")
        }
        for method in trained {
            do { _ = try method.choice?.plan(for: outline) } catch let error as PEFTError where method.isOptional {
                skipped.append(SkippedMethod(label: method.label, reason: error.description))
                self.plan.methods.removeAll { $0.label == method.label }
            }
        }
        let general = tokenizer
        retention = try plan.retain.map {
            try Retention($0, tokenizer: general, head: model.head, architecture: model.architecture)
        }
        encoder = try RowEncoder(tokenizer, for: model, maxInputTokens: plan.maxInputTokens)
        training = try encoder.encode(data.training).examples
        validation = try encoder.encode(data.validation).examples
    }

    /// - Parameter onAdapter: called with each trained adapter, its method's index and the number of its seed.
    public func run(
        onAdapter: (Int, Int, Adapter) throws -> Void = { _, _, _ in }, onEvent: (ComparisonEvent) -> Void = { _ in }
    ) throws -> ComparisonReport {
        var runs: [MethodRun] = []
        var skipped = skipped
        for method in skipped { onEvent(.skipped(method)) }
        for (index, method) in plan.methods.enumerated() {
            onEvent(.started(method: method.label, index: index, of: plan.methods.count))
            do {
                let run = try measure(method, { try onAdapter(index, $0, $1) }, onEvent)
                runs.append(run)
                onEvent(.finished(run, soFar: report(runs, skipped)))
            } catch let error as PEFTError where method.isOptional {
                skipped.append(SkippedMethod(label: method.label, reason: error.description))
                onEvent(.skipped(skipped[skipped.count - 1]))
            } catch let error as TrainingDiverged where method.isOptional {
                skipped.append(SkippedMethod(label: method.label, reason: error.description))
                onEvent(.skipped(skipped[skipped.count - 1]))
            }
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
                name: data.name, trainingRows: data.training.count, validationRows: data.validation.count,
                testRows: data.test.count, prompt: data.templates.prompt.text,
                target: (data.templates.target ?? data.templates.pair)?.text ?? ""),
            machine: .current, settings: settings,
            primaryMetric: outline.head.primaryMetric(hasTargets: data.test.contains { !$0.target.isEmpty }),
            runs: runs)
        if !outline.writes { report.task = .init(rawValue: outline.head.task.rawValue) }
        report.skipped = skipped
        return report
    }

    private var settings: [String: JSON] {
        let training = plan.training
        return [
            "steps": .integer(training.totalSteps(rows: max(1, data.training.count))),
            "batchSize": .integer(training.batchSize), "accumulation": .integer(training.accumulation),
            "optimizer": .string(training.optimizer.rawValue), "schedule": .string(training.schedule),
            "warmup": .number(training.warmup), "weightDecay": .number(training.weightDecay),
            "clip": .number(training.clip), "labelSmoothing": .number(training.labelSmoothing),
            "seeds": .integer(plan.seeds), "maxInputTokens": .integer(plan.maxInputTokens),
            "maxNewTokens": .integer(plan.generation.maxNewTokens), "beams": .integer(plan.generation.beams),
            "noRepeatNgram": .integer(plan.generation.noRepeatNgram),
        ]
    }

    /// Searches one method's learning rate and gives it to all.
    mutating func tuneOnce(at index: Int, _ onEvent: (ComparisonEvent) -> Void) throws {
        guard plan.methods.indices.contains(index), let choice = plan.methods[index].choice else { return }
        let (rate, _) = try tune(choice, label: plan.methods[index].label, onEvent)
        for index in plan.methods.indices { plan.methods[index].learningRate = rate }
    }

    // MARK: One method

    /// The base as a method wants it kept.
    private func folder(for choice: MethodChoice) -> ModelFolder {
        folder.isQuantized || folder.storage != nil ? folder : folder.keeping(choice.baseStorage)
    }

    private func measure(
        _ method: ComparisonPlan.Method, _ onAdapter: (Int, Adapter) throws -> Void,
        _ onEvent: (ComparisonEvent) -> Void
    ) throws -> MethodRun {
        var run = MethodRun(method: method.name, label: method.label)
        guard let choice = method.choice else { return try measureBase(run, onEvent) }
        run.configuration = choice.configuration.named
        let rate: Double
        if let given = method.learningRate {
            rate = given
        } else {
            (rate, run.learningRateSearch) = try tune(choice, label: method.label, onEvent)
        }
        run.learningRate = rate
        var qualities: [[String: MetricValue]] = []
        var losses: [Double] = []
        var speeds: [Double] = []
        var durations: [Double] = []
        var peaks: [Double] = []
        var forgetting: [RetentionResult] = []
        for index in 0..<plan.seeds {
            var configuration = plan.training
            configuration.learningRate = rate
            configuration.seed = plan.training.seed &+ UInt64(index)
            Runtime.trimMemory()
            Runtime.resetPeakMemory()
            let base = try folder(for: choice).load(device: plan.device)
            let lossBefore = try retention?.loss(of: base)
            let adapter = try Adapter(
                choice, on: base, seed: configuration.seed &+ method.seedOffset, tokenizer: tokenizer)
            let trainer = try Trainer(
                adapter, training: training, validation: validation, configuration: configuration)
            let result = try trainer.run { event in
                if case .step(let progress) = event {
                    onEvent(.training(method: method.label, seed: index, progress))
                }
                return true
            }
            try onAdapter(index, adapter)
            run.peakBytes = max(run.peakBytes ?? 0, result.peakBytes ?? 0)
            run.steps = result.steps
            speeds.append(result.tokensPerSecond)
            durations.append(result.seconds)
            if let peak = result.peakBytes { peaks.append(Double(peak)) }
            if let retention, let lossBefore {
                forgetting.append(
                    RetentionResult(
                        text: retention.name, before: lossBefore, after: try retention.loss(of: adapter.model)))
            }
            run.curves.append(curve(result.history, seed: Int(configuration.seed)))
            if index == 0 {
                let summary = PlanSummary(
                    try choice.plan(for: ModelOutline(adapter.model)), outline: ModelOutline(adapter.model))
                (run.trainable, run.total, run.share) = (summary.trainable, summary.total, summary.share)
                run.adapterBytes = try savedBytes(adapter)
                run.inference = try inference(adapter)
            }
            let evaluation = try evaluate(adapter.model, label: method.label, seed: index, onEvent)
            qualities.append(evaluation.metrics)
            losses.append(evaluation.loss)
            if index == 0 { run.samples = samples(evaluation) }
        }
        if run.peakBytes == 0 { run.peakBytes = nil }
        run.speed = Statistic(speeds)
        run.memory = peaks.isEmpty ? nil : Statistic(peaks)
        if let first = forgetting.first {
            run.retention = .init(
                text: first.text, before: first.before, after: Statistic(forgetting.map(\.after)))
        }
        run.tokensPerSecond = median(speeds)
        run.trainingSeconds = median(durations)
        run.quality = statistics(qualities)
        run.loss = Statistic(losses)
        return run
    }

    private func measureBase(_ empty: MethodRun, _ onEvent: (ComparisonEvent) -> Void) throws -> MethodRun {
        var run = empty
        Runtime.trimMemory()
        Runtime.resetPeakMemory()
        let model = try folder.load(device: plan.device)
        run.total = model.parameterCount
        let evaluation = try evaluate(model, label: run.label, seed: 0, onEvent)
        run.peakBytes = Runtime.peakMemory
        run.quality = statistics([evaluation.metrics])
        run.loss = Statistic([evaluation.loss])
        run.samples = samples(evaluation)
        if let retention {
            let loss = try retention.loss(of: model)
            run.retention = .init(text: retention.name, before: loss, after: Statistic([loss]))
        }
        let time = try millisecondsPerToken(model)
        run.inference = .init(unmerged: time, merged: time, largestDifference: nil)
        return run
    }

    private func evaluate(
        _ model: any LanguageModel, label: String, seed: Int, _ onEvent: (ComparisonEvent) -> Void
    ) throws -> EvaluationResult {
        let evaluator = Evaluator(
            model: model, tokenizer: tokenizer, parameters: plan.generation, batchSize: plan.evaluationBatchSize,
            maxInputTokens: plan.maxInputTokens)
        return try evaluator.evaluate(data.test) {
            onEvent(.evaluating(method: label, seed: seed, rows: $0, of: data.test.count))
        }
    }

    /// Tries rates around the method's usual one for a part of a run, and more beyond an edge that is best.
    private func tune(
        _ choice: MethodChoice, label: String, _ onEvent: (ComparisonEvent) -> Void
    ) throws -> (Double, [MethodRun.LearningRateTrial]) {
        let step = 10.0.squareRoot()
        let middle = choice.method.defaultLearningRate
        var losses: [Int: Double] = [:]
        func attempt(_ exponent: Int) throws {
            guard losses[exponent] == nil else { return }
            let rate = roundedRate(middle * pow(step, Double(exponent)))
            onEvent(.trying(method: label, learningRate: rate))
            var configuration = plan.training
            configuration.learningRate = rate
            let total = plan.training.totalSteps(rows: training.count)
            // The best rate of a few steps is too high for many.
            configuration.steps = max(Int(Double(total) * plan.trialShare), min(total, 40))
            configuration.validateEvery = configuration.steps
            let adapter = try Adapter(
                choice, on: folder(for: choice).load(device: plan.device), seed: configuration.seed,
                tokenizer: tokenizer)
            let trainer = try Trainer(adapter, training: training, validation: [], configuration: configuration)
            do {
                try trainer.run()
                let loss = try adapter.model.meanLoss(validation, batchSize: plan.training.batchSize)
                losses[exponent] = loss.isFinite ? loss : .infinity
            } catch is TrainingDiverged {
                // A rate that diverges is an answer too.
                losses[exponent] = .infinity
            }
            let loss = losses[exponent].flatMap { $0.isFinite ? $0 : nil }
            onEvent(.tried(method: label, learningRate: rate, validationLoss: loss))
        }
        for exponent in -1...1 { try attempt(exponent) }
        while let best = losses.min(by: { $0.value < $1.value })?.key, abs(best) < 3 {
            let lowest = losses.keys.min() ?? 0
            let highest = losses.keys.max() ?? 0
            guard best == lowest || best == highest else { break }
            try attempt(best == lowest ? best - 1 : best + 1)
        }
        guard let best = losses.min(by: { $0.value < $1.value }), best.value.isFinite else {
            throw PEFTError("no learning rate that was tried for \(label) converged", remedy: "give one with --lr")
        }
        let trials = losses.sorted { $0.key < $1.key }.filter(\.value.isFinite).map {
            MethodRun.LearningRateTrial(
                learningRate: roundedRate(middle * pow(step, Double($0.key))), validationLoss: $0.value)
        }
        return (roundedRate(middle * pow(step, Double(best.key))), trials)
    }

    /// Two digits are enough for a learning rate.
    private func roundedRate(_ rate: Double) -> Double { Double(String(format: "%.1e", rate)) ?? rate }

    // MARK: Figures

    private func statistics(_ qualities: [[String: MetricValue]]) -> [String: Statistic] {
        guard let first = qualities.first else { return [:] }
        return first.reduce(into: [:]) { result, entry in
            let values = qualities.compactMap { $0[entry.key]?.value }
            result[entry.key] = Statistic(values, low: entry.value.low, high: entry.value.high)
        }
    }

    private func samples(_ evaluation: EvaluationResult) -> [MethodRun.Sample] {
        zip(data.test, evaluation.predictions).prefix(plan.sampleRows).map {
            MethodRun.Sample(prompt: $0.prompt, target: $0.target, output: $1)
        }
    }

    private func curve(_ history: TrainingHistory, seed: Int) -> MethodRun.Curve {
        MethodRun.Curve(
            seed: seed, training: history.training.map { .init(step: $0.step, loss: $0.loss) },
            validation: history.validation.map { .init(step: $0.step, loss: $0.loss) })
    }

    /// Size of what a user would share: the adapter's folder, or the whole model.
    private func savedBytes(_ adapter: Adapter) throws -> Int {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("peft-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        if adapter.choice.method.peftType == nil {
            return adapter.model.byteCount
        }
        try adapter.save(to: folder, base: modelName)
        let files = try FileManager.default.contentsOfDirectory(
            at: folder, includingPropertiesForKeys: [.fileSizeKey])
        return try files.reduce(0) { try $0 + ($1.resourceValues(forKeys: [.fileSizeKey]).fileSize ?? 0) }
    }

    private func inference(_ adapter: Adapter) throws -> MethodRun.Inference {
        let unmerged = try millisecondsPerToken(adapter.model)
        guard adapter.addedCount > 0, adapter.choice.isMergeable else {
            var inference = MethodRun.Inference(unmerged: unmerged, merged: unmerged, largestDifference: nil)
            if adapter.addedCount > 0 { inference.isMergeable = false }
            return inference
        }
        let rows = try encoder.encode(Array(data.test.prefix(4))).examples
        let batch = adapter.model.batch(rows)
        func logits() throws -> Tensor { try withTorchErrors { withoutGradients { adapter.model.logits(batch) } } }
        let before = try logits()
        do { try adapter.merge() } catch is PEFTError {
            // A part of it that no weight can hold, such as an adapter over a tied embedding.
            var inference = MethodRun.Inference(unmerged: unmerged, merged: unmerged, largestDifference: nil)
            inference.isMergeable = false
            return inference
        }
        let after = try logits()
        let merged = try millisecondsPerToken(adapter.model)
        try adapter.unmerge()
        let difference = try withTorchErrors { (before - after).abs().max().item() }
        return .init(unmerged: unmerged, merged: merged, largestDifference: difference)
    }

    /// Greedy decoding of single prompts, so many tokens for each that its reading counts little and equally; the
    /// median over a few prompts, after one to warm up.
    private func millisecondsPerToken(_ model: any LanguageModel) throws -> Double {
        let prompts = data.test.prefix(5).map { encoder.prompt($0.prompt).ids }
        guard model.writes else { return try millisecondsPerRow(model, prompts) }
        let tokens = 32
        let generator = try Generator(model, GenerateParameters(maxNewTokens: tokens, minNewTokens: tokens))
        let times = try ([prompts[0]] + prompts).map { prompt in
            let start = ContinuousClock.now
            _ = try generator.generate([prompt])
            let elapsed = start.duration(to: .now).components
            return (Double(elapsed.seconds) * 1e3 + Double(elapsed.attoseconds) * 1e-15) / Double(tokens)
        }
        return median(Array(times.dropFirst())) ?? .nan
    }

    /// Reading single rows.
    private func millisecondsPerRow(_ model: any LanguageModel, _ prompts: [[Int]]) throws -> Double {
        let times = try ([prompts[0]] + prompts).flatMap { prompt in
            try (0..<3).map { _ in
                let start = ContinuousClock.now
                try withTorchErrors {
                    withoutGradients {
                        _ = model.logits(model.batch([(prompt, [0])], device: model.device)).sum().item()
                    }
                }
                let elapsed = start.duration(to: .now).components
                return Double(elapsed.seconds) * 1e3 + Double(elapsed.attoseconds) * 1e-15
            }
        }
        return median(Array(times.dropFirst(3))) ?? .nan
    }

    private func median(_ values: [Double]) -> Double? {
        guard !values.isEmpty else { return nil }
        let sorted = values.sorted()
        let middle = sorted.count / 2
        return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    }
}

extension ComparisonReport {
    /// A report that ``json()`` wrote.
    /// - Throws: ``PEFTError`` if the file can't be read or holds something else.
    public static func read(_ file: URL) throws -> ComparisonReport {
        guard let data = try? Data(contentsOf: file) else {
            throw PEFTError("can't read \(file.path)", remedy: "name a file that peft compare --output wrote")
        }
        let decoder = JSONDecoder()
        decoder.nonConformingFloatDecodingStrategy = .convertFromString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        do { return try decoder.decode(ComparisonReport.self, from: data) } catch {
            throw PEFTError(
                "\(file.path) is not a report of a comparison", remedy: "name a file that peft compare --output wrote"
            )
        }
    }

    /// The report as JSON, keys sorted.
    public func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        return try encoder.encode(self)
    }
}

extension ComparisonReport.Machine {
    /// This machine.
    public static var current: Self {
        let info = ProcessInfo.processInfo
        let cpu = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8))?
            .split(separator: "\n").first { $0.hasPrefix("model name") }?
            .split(separator: ":", maxSplits: 1).last.map { $0.trimmingCharacters(in: .whitespaces) }
        return .init(
            processor: cpu ?? "unknown processor", threads: Runtime.threads,
            memoryBytes: Int(clamping: info.physicalMemory), system: info.operatingSystemVersionString)
    }
}
