import PEFT
import PEFTSupport
import TorchNN

/// Memory optimizations that don't change the results of training.
public struct MemorySavings: Sendable, Equatable {
    /// Activation checkpointing: each layer saves only its input and is recomputed in the backward pass
    /// (``ActivationCheckpointing``).
    public var checkpointsActivations = false
    /// Whether checkpointed inputs are offloaded: to files, or from a GPU to host memory.
    public var offloadsActivations = false
    /// Whether the optimizer state is paged to files (``StateStorage/file``).
    public var pagesOptimizer = false

    package var activations: ActivationCheckpointing.Mode {
        offloadsActivations ? .offloading : checkpointsActivations ? .keepingInputs : .off
    }

    /// Nothing is saved: the fastest, if memory suffices.
    public init() {}
}

/// Training hyperparameters, independent of the method.
public struct TrainingConfiguration: Codable, Sendable, Equatable {
    /// The highest learning rate.
    public var learningRate = 1e-3
    /// Peak learning rate of a new head, such as a classification head; `nil` for ``learningRate``.
    public var headLearningRate: Double?
    /// Epochs over the training examples; ignored if ``steps`` is set.
    public var epochs = 3.0
    /// Optimizer steps.
    public var steps: Int?
    /// Examples per micro-batch.
    public var batchSize = 8
    /// Maximum number of tokens per micro-batch, in place of ``batchSize``; a longer example is a micro-batch of its own.
    public var tokensPerBatch: Int?
    /// Gradient-accumulation steps; the loss is the mean over the target tokens of all micro-batches.
    public var accumulation = 1
    /// The optimizer.
    public var optimizer = OptimizerKind.adamw
    /// Options of the optimizer by name, such as `rank` of GaLore; others have their defaults.
    public var optimizerOptions: [String: Double]?
    /// Decoupled weight decay.
    public var weightDecay = 0.01
    /// How the learning rate falls after the warmup.
    public var schedule = "linear"
    /// Warm-up steps, or a fraction of all steps if below 1.
    public var warmup = 0.0
    /// Maximum global gradient norm; 0 disables clipping.
    public var clip = 1.0
    /// Label smoothing, from 0 to below 1.
    public var labelSmoothing = 0.0
    /// NEFTune's α: uniform noise of magnitude α / √(tokens · size) on the embedded tokens of a sequence while training;
    /// `nil` for none.
    public var neftuneAlpha: Double?
    /// Seed of the order of examples and of dropout.
    public var seed: UInt64 = 42
    /// Steps between validations; `nil` validates once an epoch and at the end.
    public var validateEvery: Int?
    /// Early stopping after this many validations without improvement; `nil` to disable.
    public var patience: Int?
    /// Steps between checkpoints; `nil` writes one at every validation.
    public var checkpointEvery: Int?
    /// Memory optimizations. Results are bit-identical with and without, so they are not part of the coded form: a run may
    /// be resumed with other choices.
    public var memory = MemorySavings()

    private enum CodingKeys: String, CodingKey {
        case learningRate, headLearningRate, epochs, steps, batchSize, tokensPerBatch, accumulation, optimizer
        case optimizerOptions, neftuneAlpha
        case weightDecay, schedule, warmup, clip, labelSmoothing, seed, validateEvery, patience, checkpointEvery
    }

    /// The default settings, those of `peft train`.
    public init() {}

    /// - Throws: ``PEFTError`` naming the value that is out of range.
    public func validate() throws {
        func check(_ holds: Bool, _ what: String, _ remedy: String? = nil) throws {
            if !holds { throw PEFTError(what, remedy: remedy) }
        }
        try check(
            learningRate > 0 && learningRate.isFinite, "the learning rate must be positive (got \(learningRate))")
        try check(
            headLearningRate.map { $0 > 0 && $0.isFinite } ?? true,
            "the head's learning rate must be positive (got \(headLearningRate ?? 0))")
        try check(steps.map { $0 >= 1 } ?? true, "the number of steps must be at least 1 (got \(steps ?? 0))")
        try check(epochs > 0, "the number of epochs must be positive (got \(epochs))")
        try check(batchSize >= 1, "the batch size must be at least 1 (got \(batchSize))")
        try check(
            tokensPerBatch.map { $0 >= 1 } ?? true,
            "the tokens per batch must be at least 1 (got \(tokensPerBatch ?? 0))")
        try check(accumulation >= 1, "the gradient-accumulation steps must be at least 1 (got \(accumulation))")
        try check(
            weightDecay >= 0 && weightDecay.isFinite,
            "the weight decay must be finite and not negative (got \(weightDecay))")
        try check(warmup >= 0, "the warm-up must not be negative (got \(warmup))")
        // The numbers of steps stay within integers.
        try check(epochs <= 1e6, "the number of epochs must be at most 1e6 (got \(epochs))")
        try check(warmup <= 1e12, "the warm-up must be at most 1e12 steps (got \(warmup))")
        let most = 1 << 24
        try check(batchSize <= most, "the batch size must be at most \(most) (got \(batchSize))")
        try check(
            accumulation <= most, "the gradient-accumulation steps must be at most \(most) (got \(accumulation))")
        try check(clip >= 0, "the maximum gradient norm must not be negative (got \(clip))", "0 disables clipping")
        try check(
            labelSmoothing >= 0 && labelSmoothing < 1,
            "label smoothing must be at least 0 and below 1 (got \(labelSmoothing))")
        try check(
            validateEvery.map { $0 >= 1 } ?? true,
            "the steps between validations must be at least 1 (got \(validateEvery ?? 0))")
        try check(patience.map { $0 >= 1 } ?? true, "the patience must be at least 1 (got \(patience ?? 0))")
        try check(
            checkpointEvery.map { $0 >= 1 } ?? true,
            "the steps between checkpoints must be at least 1 (got \(checkpointEvery ?? 0))")
        try check(
            neftuneAlpha.map { $0 > 0 && $0.isFinite } ?? true,
            "NEFTune's alpha must be positive (got \(neftuneAlpha ?? 0))")
        try checkOptimizer()
        let shapes = LearningRateSchedule.Shape.allCases.map(\.rawValue)
        let hint = nearestName(to: schedule, in: shapes).map { "did you mean '\($0)'?" }
        try check(
            shapes.contains(schedule), "unknown schedule '\(schedule)'",
            hint ?? "use one of \(shapes.joined(separator: ", "))")
    }

    /// Optimizer steps of a run over `rows` examples with batches of ``batchSize``.
    package func totalSteps(rows: Int) -> Int {
        if let steps { return steps }
        let perEpoch = stepsPerEpoch(rows: rows)
        return max(1, Int((epochs * Double(perEpoch)).rounded(.up)))
    }

    package func stepsPerEpoch(rows: Int) -> Int {
        let perStep = batchSize * accumulation
        return max(1, (rows + perStep - 1) / perStep)
    }

    func learningRateSchedule(total: Int) -> LearningRateSchedule {
        let steps = warmup < 1 ? (warmup * Double(total)).rounded(.up) : warmup
        // Averaging takes the place of a falling rate.
        let shape = optimizer == .scheduleFree ? .constant : LearningRateSchedule.Shape(rawValue: schedule) ?? .linear
        return LearningRateSchedule(shape, warmup: Int(steps), total: total)
    }
}
