import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Torch
import Training

/// The runs of one method.
extension Comparison {
    /// The base model in the weight format of a method.
    func folder(for method: ComparisonPlan.Method) throws -> ModelFolder {
        if let weights = method.weights { return try roundedFolder(weights) }
        return folder.isQuantized || folder.storage != nil ? folder : folder.with(weights: method.choice?.baseStorage)
    }

    /// Runs the seeds that `progress` lacks, and saves to `state` after each.
    func measure(
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
