import ArgumentParser
import PEFTSupport
import Training

struct TrainingOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Number of training epochs (default: 3).", valueName: "n"))
    var epochs: Double?
    @Option(help: ArgumentHelp("Number of optimizer steps; overrides --epochs.", valueName: "n"))
    var steps: Int?
    @Option(help: ArgumentHelp("Examples per micro-batch.", valueName: "n"))
    var batchSize = TrainingConfiguration().batchSize
    @Option(
        help: ArgumentHelp(
            "Maximum number of tokens per micro-batch, in place of --batch-size; a longer example forms its own micro-batch.",
            valueName: "tokens"))
    var tokensPerBatch: Int?
    @Option(help: ArgumentHelp("Gradient-accumulation steps.", valueName: "n"))
    var accumulate = TrainingConfiguration().accumulation
    @Option(help: ArgumentHelp(OptimizerHelp.text, valueName: "name"))
    var optimizer = TrainingConfiguration().optimizer.rawValue
    @Option(help: ArgumentHelp("Weight decay (decoupled).", valueName: "x"))
    var weightDecay = TrainingConfiguration().weightDecay
    @Option(help: "Learning-rate schedule: constant, linear, cosine or inverse-square-root.")
    var schedule = TrainingConfiguration().schedule
    @Option(help: ArgumentHelp("Warm-up steps, or warm-up ratio if below 1.", valueName: "n"))
    var warmup = TrainingConfiguration().warmup
    @Option(help: ArgumentHelp("Maximum global gradient norm; 0 disables clipping.", valueName: "x"))
    var clip = TrainingConfiguration().clip
    @Option(help: ArgumentHelp("Label-smoothing factor.", valueName: "x"))
    var labelSmoothing = TrainingConfiguration().labelSmoothing
    @Option(
        help: ArgumentHelp(
            "NEFTune: uniform noise of magnitude alpha / √(tokens · size) on the embedded tokens while training.",
            valueName: "alpha"))
    var neftuneAlpha: Double?
    @Option(help: "Random seed.")
    var seed: UInt64 = TrainingConfiguration().seed
    @Option(help: ArgumentHelp("Steps between validations (default: one validation per epoch).", valueName: "steps"))
    var validateEvery: Int?

    @Option(
        name: [.customLong("head-lr"), .customLong("head-learning-rate")],
        help: ArgumentHelp(
            "Peak learning rate of a new head, such as a classification head (default: the learning rate).",
            valueName: "x"))
    var headLearningRate: Double?

    @Flag(
        help: """
            Activation checkpointing: store only each layer's input and recompute the layer in the backward pass. Less \
            memory, more time, identical results.
            """)
    var checkpointActivations = false
    @Flag(
        help: """
            Activation checkpointing with offloading: to files (TMPDIR), or from a GPU to main memory.
            """)
    var offloadActivations = false
    @Flag(help: "Page the optimizer state to files (TMPDIR), one tensor at a time.")
    var pageOptimizer = false

    func configuration() throws -> TrainingConfiguration {
        var result = TrainingConfiguration()
        result.epochs = epochs ?? result.epochs
        if epochs != nil, steps != nil { Console.warn("--epochs has no effect: --steps overrides it") }
        result.steps = steps
        result.batchSize = batchSize
        result.tokensPerBatch = tokensPerBatch
        result.accumulation = accumulate
        try checkingOptions { try result.setOptimizer(optimizer) }
        result.neftuneAlpha = neftuneAlpha
        result.weightDecay = weightDecay
        result.schedule = schedule
        result.warmup = warmup
        result.clip = clip
        result.labelSmoothing = labelSmoothing
        result.seed = seed
        result.headLearningRate = headLearningRate
        result.validateEvery = validateEvery
        result.memory.checkpointsActivations = checkpointActivations
        result.memory.offloadsActivations = offloadActivations
        result.memory.pagesOptimizer = pageOptimizer
        try checkingOptions { try result.validate() }
        return result
    }
}

/// Help of `--optimizer`.
enum OptimizerHelp {
    static let text =
        "Optimizer, with options as in 'galore(rank=64)': \(TrainingConfiguration.OptimizerKind.list)."
}
