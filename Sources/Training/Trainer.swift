import Foundation
import LanguageModels
import PEFT
import PEFTDistributed
import PEFTSupport
import Torch
import TorchNN

/// Trains an adapter on encoded examples, with gradient accumulation, gradient clipping and a learning-rate schedule.
///
/// Everything random is a function of the seed and the step: the order of examples of (seed, epoch), dropout of
/// (seed, step). A run that resumes from a checkpoint therefore equals the uninterrupted one bit for bit.
public final class Trainer {
    package let adapter: Adapter
    package let configuration: TrainingConfiguration
    private let model: any LanguageModel
    private let training: EncodedRows
    private let validation: [EncodedExample]
    /// Stores checkpoints and the best parameters; `nil` to keep none.
    private let checkpoints: CheckpointStore?
    /// Created when training begins: a method may first change the shapes of its parameters.
    private lazy var optimizer = configuration.makeOptimizer(adapter)
    private let schedule: LearningRateSchedule
    /// Number of optimizer steps of the run.
    public var totalSteps: Int { plan.totalSteps }
    private var plan: BatchPlan
    private var history = TrainingHistory()
    private var step = 0
    private let device: Device
    private let hook: (any TrainingHook)?
    /// The other processes of the run, if there are any.
    private let parallel: DataParallel?
    private let fingerprint: RunFingerprint?
    /// Whether a process asked to stop, in a run of several processes, which stop together.
    private var stopsTogether = false
    /// Whether the processes divide the base's weights, so that all compute as many passes.
    private var isPartitioned: Bool { parallel != nil && model.partitionedBase != nil }

    /// - Parameters:
    ///   - adapter: what is trained.
    ///   - training: at least one example.
    ///   - validation: examples whose loss selects the best parameters; may be empty.
    ///   - configuration: settings of the run.
    ///   - checkpointFolder: folder for crash-safe checkpoints and the best parameters.
    /// - Throws: ``PEFTError`` for invalid settings, or examples too long for the model.
    public convenience init(
        _ adapter: Adapter, training: [EncodedExample], validation: [EncodedExample],
        configuration: TrainingConfiguration, checkpointFolder: URL? = nil
    ) throws {
        try self.init(
            adapter, training: EncodedRows(training), validation: validation, configuration: configuration,
            checkpointFolder: checkpointFolder)
    }

    /// The same for examples that may be stored in a file.
    public convenience init(
        _ adapter: Adapter, training: EncodedRows, validation: [EncodedExample],
        configuration: TrainingConfiguration, checkpointFolder: URL? = nil
    ) throws {
        try self.init(
            adapter, training: training, validation: validation, configuration: configuration,
            checkpointFolder: checkpointFolder, job: nil)
    }

    /// The same for one of several processes, which all have the same examples. Only rank 0 uses the checkpoint folder.
    package init(
        _ adapter: Adapter, training: EncodedRows, validation: [EncodedExample],
        configuration: TrainingConfiguration, checkpointFolder: URL? = nil, job: DistributedJob?
    ) throws {
        try configuration.validate()
        guard !training.isEmpty else {
            throw PEFTError("there are no training examples", remedy: "provide examples with --data")
        }
        guard configuration.patience == nil || !validation.isEmpty else {
            throw PEFTError(
                "early stopping needs validation examples", remedy: "provide --validation, or omit --patience")
        }
        guard !configuration.memory.pagesOptimizer || adapter.model.device == .cpu else {
            throw PEFTError(
                "the optimizer state can be paged on the CPU only", remedy: "omit --page-optimizer")
        }
        (self.adapter, self.configuration, model) = (adapter, configuration, adapter.model)
        (self.training, self.validation) = (training, validation)
        try InputLimits.check(training, of: "training", for: model)
        try InputLimits.check(EncodedRows(validation), of: "validation", for: model)
        device = adapter.model.device
        hook = adapter.trainingHook()
        let drops = ["encoder_layerdrop", "decoder_layerdrop"].filter {
            adapter.model.configuration[$0]?.double ?? 0 > 0
        }
        guard model.partitionedBase == nil || drops.isEmpty else {
            throw PEFTError(
                "'\(drops[0])' of config.json leaves out layers at random, but all processes need the same ones with --shard-base",
                remedy: "remove --shard-base, or set '\(drops[0])' to 0")
        }
        guard model.partitionedBase == nil || !(hook is any CalibratingHook) else {
            throw PEFTError(
                "the initialization of \(adapter.choice.label) needs all weights of the base at once, which --shard-base divides",
                remedy: "remove --shard-base, or use another initialization")
        }
        try configuration.checkOptimizer(for: adapter)
        plan = BatchPlan(configuration, training)
        schedule = configuration.learningRateSchedule(total: plan.totalSteps)
        let parallel = job.map { DataParallel($0) }
        var fingerprint: RunFingerprint?
        if checkpointFolder != nil || parallel != nil {
            fingerprint = try RunFingerprint(configuration, adapter, training, validation)
        }
        var checkpoints: CheckpointStore?
        if let fingerprint {
            try parallel?.requireAgreement(fingerprint)
            if let checkpointFolder, parallel?.isFirst != false {
                checkpoints = try CheckpointStore(checkpointFolder, fingerprint: fingerprint)
            }
        }
        (self.parallel, self.fingerprint, self.checkpoints) = (parallel, fingerprint, checkpoints)
    }

    /// Continues from the newest checkpoint, if there is one.
    /// - Returns: the last completed step; `nil` without a checkpoint.
    /// - Throws: ``PEFTError`` if the checkpoint is damaged or belongs to another run.
    public func resume() throws -> Int? {
        guard let state = try withTorchErrors({ try loadCheckpoint() }) else { return nil }
        (history, step) = (state.history, state.step)
        return step
    }

    private func loadCheckpoint() throws -> CheckpointStore.State? {
        func load(_ store: CheckpointStore?) throws -> CheckpointStore.State? {
            try store?.load(into: { adapter.parameters }, { optimizer }, hook)
        }
        guard let parallel, let fingerprint else { return try load(checkpoints) }
        // Rank 0 first: it says what is wrong.
        let state = try load(checkpoints)
        guard let (folder, copy) = try parallel.sharedCheckpoint(checkpoints?.folder) else { return nil }
        defer { withExtendedLifetime(copy) {} }
        return try parallel.isFirst ? state : load(CheckpointStore(folder, fingerprint: fingerprint))
    }

    /// Runs to the end or to early stopping, and restores the best parameters if there
    /// were validations and a checkpoint folder.
    ///
    /// A run that is stopped within a step or a validation saves the state after the last completed step, and
    /// repeats the rest when it is resumed.
    ///
    /// - Parameters:
    ///   - report: called on this thread; returning `false` stops after writing a checkpoint.
    ///   - isAskedToStop: polled between micro-batches, so that a stop need not wait for a long step or validation.
    /// - Throws: ``TrainingInterrupted`` if it was stopped, ``TrainingDiverged`` for a NaN or infinite loss or gradient,
    ///   ``PEFTError``.
    @discardableResult
    public func run(
        onEvent report: (TrainingEvent) -> Bool = { _ in true }, isStopping isAskedToStop: () -> Bool = { false }
    ) throws -> TrainingResult {
        func onEvent(_ event: TrainingEvent) -> Bool {
            let goesOn = report(event)
            guard parallel != nil else { return goesOn }
            // Several processes agree in the next step or validation.
            if !goesOn { stopsTogether = true }
            return true
        }
        func isStopping() -> Bool {
            isAskedToStop() || parallel.map { stopsTogether || $0.job.hasFailed } ?? false
        }
        var seconds = 0.0
        var tokens = 0
        let firstStep = step
        var saved = step
        func stop() throws -> Never {
            optimizer.endEvaluation()
            if let checkpoints, step > saved {
                try checkpoints.save(step: step, history: history, adapter.parameters, optimizer, hook)
                _ = onEvent(.checkpoint(step: step))
            }
            throw TrainingInterrupted(step: step)
        }
        adapter.setTrainable(true)
        configuration.freeze(adapter)
        if step == 0, let hook { try withTorchErrors { try begin(hook, isStopping) } }
        try parallel?.begin(adapter.parameters)
        // Other adapters on the model, or an interrupted run, may have left gradients.
        try withTorchErrors { optimizer.clearGradients() }
        // A checkpoint of a run that was stopped before a validation.
        var validates = step > 0 && isValidationStep && history.validation.last?.step != step
        while !hasStoppedEarly, step < totalSteps || validates {
            var stopped = false
            if !validates {
                let start = ContinuousClock.now
                let trained = try withTorchErrors {
                    try EmbeddingNoise.run(alpha: configuration.neftuneAlpha ?? 0) { try trainStep(isStopping) }
                }
                guard let (progress, count) = trained else { try stop() }
                tokens += count
                let elapsed = start.duration(to: .now)
                seconds += elapsed.inSeconds
                var report = progress
                report.tokensPerSecond = seconds > 0 ? Double(tokens) / seconds : 0
                report.secondsLeft = seconds / Double(step - firstStep) * Double(totalSteps - step)
                report.memory = Runtime.residentMemory
                if !onEvent(.step(report)) { stopped = true }
                validates = isValidationStep
                if stopped, validates || step < totalSteps { try stop() }
            }
            let isDue = configuration.checkpointEvery.map { step % $0 == 0 } ?? validates
            if validates {
                // Until the end of this block.
                try withTorchErrors { optimizer.beginEvaluation() }
                defer { optimizer.endEvaluation() }
                guard
                    let loss = try withTorchErrors({
                        guard let parallel else {
                            return try model.meanLoss(
                                validation, batchSize: configuration.batchSize, isStopping: isStopping)
                        }
                        return try parallel.meanLoss(
                            model, validation, batchSize: configuration.batchSize, isStopping: isStopping)
                    })
                else { try stop() }
                guard loss.isFinite else {
                    throw TrainingDiverged(what: "validation loss", step: step)
                }
                validates = false
                let isBest = loss < (history.bestLoss ?? .infinity)
                history.validation.append(.init(step: step, loss: loss))
                history.sinceBest = isBest ? 0 : history.sinceBest + 1
                if isBest {
                    (history.bestStep, history.bestLoss) = (step, loss)
                    try checkpoints?.saveBest(adapter.parameters)
                }
                if !onEvent(.validation(step: step, loss: loss, isBest: isBest)) { stopped = true }
                if hasStoppedEarly { _ = onEvent(.stoppedEarly(step: step)) }
            }
            // After the last step as well: if saving the result fails, nothing is lost.
            if let checkpoints, isDue || stopped || step == totalSteps || hasStoppedEarly {
                try checkpoints.save(step: step, history: history, adapter.parameters, optimizer, hook)
                saved = step
                if !onEvent(.checkpoint(step: step)) { stopped = true }
            }
            if stopped, step < totalSteps, !hasStoppedEarly { throw TrainingInterrupted(step: step) }
        }
        try withTorchErrors { optimizer.beginEvaluation() }
        if history.bestStep != nil, history.bestStep != step { try checkpoints?.loadBest(into: adapter.parameters) }
        return TrainingResult(
            history: history, tokensPerSecond: seconds > 0 ? Double(tokens) / seconds : 0, seconds: seconds,
            steps: step, peakBytes: Runtime.peakMemory)
    }

    /// Digests of the examples and of the base model, if the run keeps checkpoints.
    package var digests: (examples: String, base: String?)? { fingerprint.map { ($0.data, $0.base) } }

    /// Removes the checkpoints after the result was saved.
    public func removeCheckpoints() { checkpoints?.remove() }

    /// Whether the validations ended the run.
    private var hasStoppedEarly: Bool { configuration.patience.map { history.sinceBest >= $0 } ?? false }

    private var isValidationStep: Bool {
        guard !validation.isEmpty else { return false }
        if step == totalSteps { return true }
        return configuration.validateEvery.map { step % $0 == 0 } ?? plan.isEpochsEnd(after: step)
    }

    /// Lets the method observe training batches, in the order of the first epoch.
    private func begin(_ hook: any TrainingHook, _ isStopping: () -> Bool) throws {
        let calibration = hook as? any CalibratingHook
        var next = 0
        func observe() throws {
            try hook.begin(totalSteps: totalSteps) {
                guard !isStopping() else { throw TrainingInterrupted(step: 0) }
                guard next < plan.firstEpoch else { return false }
                let isByExample = calibration?.pass == .examples
                let batches = batches(ofStep: next, isByExample: isByExample)
                for batch in batches {
                    try withTorchErrors {
                        let sum = UnreadOutputs.computed {
                            model.computing { model.lossSum(batch, labelSmoothing: 0) }
                        }
                        if calibration?.pass == .gradients { (sum / Double(max(1, batch.targetCount))).backward() }
                    }
                    calibration?.passed()
                }
                next += 1
                return true
            }
        }
        guard calibration?.pass == .gradients else { return try withoutGradients(observe) }
        try observe()
        for parameter in adapter.parameters { parameter.tensor.grad = nil }
    }

    // MARK: One step

    /// - Returns: `nil` if it was stopped between micro-batches, which leaves the parameters unchanged.
    private func trainStep(_ isStopping: () -> Bool) throws -> (TrainingProgress, tokens: Int)? {
        try parallel?.chooseDivision(model, configuration, training[0]) { _ = meanLoss(of: $0, targets: 1) }
        try parallel?.beginStep(adapter.parameters)
        let share = share(ofStep: step)
        var loss = 0.0
        var stops = false
        for (place, part) in share.batches.enumerated() {
            if place > 0, !isPartitioned, isStopping() {
                stops = true
                break
            }
            let index = part.index
            // One random stream per (step, micro-batch).
            let stream = UInt64(step) << 16 | UInt64(index)
            var sum = DropoutScope.run(seed: configuration.seed, stream: stream) {
                meanLoss(of: part.batch, targets: share.targets)
            }
            if part.isIdle { sum = sum * 0 }
            // A penalty counts once per step; the reported loss is the model's.
            let penalty = index == 0 && !part.isIdle && parallel?.isFirst != false ? hook?.penalty() : nil
            if place == share.batches.count - 1 { parallel?.beginLastBackward() }
            (penalty.map { sum + $0 } ?? sum).backward()
            loss += sum.item()
        }
        if let parallel {
            try checkTorchErrors()
            (loss, stops) = try parallel.finishStep(loss: loss, stops: stops || isStopping())
        }
        guard !stops else {
            optimizer.clearGradients()
            return nil
        }
        let norm = OptimizerKernels.clipGradients(adapter.parameters.map(\.tensor), to: configuration.clip)
        guard loss.isFinite, norm.isFinite else {
            // Trained tensors may be non-finite because of the loss; frozen or not yet trained ones are the cause.
            let trained = step == 0 ? [] : Set(adapter.parameters.map { ObjectIdentifier($0) })
            let paths = model.parameters().filter { trained.contains(ObjectIdentifier($0.parameter)) }.map(\.path)
            if let tensor = try model.nonFiniteTensor(except: Set(paths)) {
                throw PEFTError(
                    "the loss is NaN or infinite at step \(step + 1): \(tensor.description)",
                    remedy:
                        "the base model is damaged or overflows in its precision; download it again or use another --precision"
                )
            }
            throw try divergence(loss: loss, isExplosion: false)
        }
        let first = max(history.training.first?.loss ?? loss, 0)
        // A squared error has no unit: one far label of a batch makes it as large.
        guard model.head.task == .regression || loss <= Self.explosion * max(first, 10) else {
            throw try divergence(loss: loss, isExplosion: true)
        }
        let rate = configuration.learningRate * schedule.factor(after: step)
        hook?.beforeUpdate(step: step + 1, totalSteps: totalSteps)
        optimizer.update(learningRate: rate)
        hook?.afterUpdate(step: step + 1, totalSteps: totalSteps)
        optimizer.clearGradients()
        step += 1
        history.training.append(.init(step: step, loss: loss))
        let progress = TrainingProgress(
            step: step, totalSteps: totalSteps, epoch: plan.epochs(after: step), loss: loss,
            learningRate: rate, gradientNorm: norm, tokensPerSecond: 0, memory: nil, secondsLeft: 0)
        return (progress, share.tokens)
    }

    /// A loss of so many times the first one (and at least 10 nats) is an explosion: no run comes back from there.
    private static let explosion = 100.0

    /// The error for the step at hand, with the example and the layer at fault. The parameters are still those before the
    /// step, so its forward passes are repeated, one example at a time.
    private func divergence(loss: Double, isExplosion: Bool) throws -> TrainingDiverged {
        var error = TrainingDiverged(what: loss.isFinite ? "gradient" : "loss", step: step + 1)
        if isExplosion { error.loss = loss }
        error.checkpoint = checkpoints?.newestStep
        try withTorchErrors {
            if loss.isFinite, !isExplosion {
                error.place = model.trainableParameters().first {
                    $0.parameter.tensor.grad.map { $0.nonFiniteCount > 0 } ?? false
                }.map { "the gradient of '\($0.path)'" }
                return
            }
            var worst = -Double.infinity
            for (index, rows) in plan.microBatches(ofStep: step).enumerated() {
                for row in rows {
                    let batch = model.batch([training[row]])
                    let stream = UInt64(step) << 16 | UInt64(index)
                    let (value, layer) = LayerProbe.run {
                        withoutGradients {
                            DropoutScope.run(seed: configuration.seed, stream: stream) {
                                meanLoss(of: batch, targets: batch.targetCount).item()
                            }
                        }
                    }
                    guard value.isFinite else {
                        error.example = row + 1
                        error.place =
                            layer.map { $0 == 0 ? "the embedded input" : "the output of layer \($0)" }
                            ?? "the output layer or the loss"
                        return
                    }
                    if value > worst { (worst, error.example) = (value, row + 1) }
                }
            }
            if !isExplosion { error.example = nil }
        }
        return error
    }

    /// The forward pass of training; `targets` are those of the whole step, of which all may be masked.
    private func meanLoss(of batch: TrainingBatch, targets: Int) -> Tensor {
        ActivationCheckpointing.run(configuration.memory.activations) {
            model.computing {
                model.lossSum(batch, labelSmoothing: configuration.labelSmoothing) / Double(max(1, targets))
            }
        }
    }

    /// The part of a step that this process computes: all of it, unless there are others.
    private func share(ofStep step: Int) -> DataParallel.Share {
        if let parallel {
            return parallel.share(
                of: plan.microBatches(ofStep: step), gathering: isPartitioned, { training.length(of: $0) }
            ) { rows in model.batch(rows.map { training[$0] }) }
        }
        let batches = batches(ofStep: step)
        return DataParallel.Share(
            batches: batches.enumerated().map { .init(index: $0, batch: $1) },
            targets: batches.reduce(0) { $0 + $1.targetCount },
            tokens: batches.reduce(0) { $0 + $1.tokenCount })
    }

    /// The micro-batches of a step, or each of its examples as a batch.
    private func batches(ofStep step: Int, isByExample: Bool = false) -> [TrainingBatch] {
        let batches = plan.microBatches(ofStep: step)
        guard !isByExample else { return batches.joined().map { model.batch([training[$0]]) } }
        return batches.map { rows in model.batch(rows.map { training[$0] }) }
    }

    /// Loss per target token over the validation examples in nats, without dropout.
    public func validationLoss() throws -> Double {
        try model.meanLoss(validation, batchSize: configuration.batchSize)
    }
}
