import ArgumentParser
import Support
import Training

struct TrainingOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Passes over the training rows.", valueName: "n"))
    var epochs = TrainingConfiguration().epochs
    @Option(help: ArgumentHelp("Optimizer steps, instead of epochs.", valueName: "n"))
    var steps: Int?
    @Option(help: ArgumentHelp("Rows of one pass.", valueName: "rows"))
    var batchSize = TrainingConfiguration().batchSize
    @Option(
        help: ArgumentHelp(
            "Tokens of one pass, instead of rows; a longer row makes a pass of its own.", valueName: "tokens"))
    var tokensPerBatch: Int?
    @Option(help: ArgumentHelp("Passes that make one optimizer step.", valueName: "n"))
    var accumulate = TrainingConfiguration().accumulation
    @Option(help: "adamw, adamw8bit or adafactor.")
    var optimizer = TrainingConfiguration().optimizer.rawValue
    @Option(help: ArgumentHelp("Decoupled weight decay.", valueName: "x"))
    var weightDecay = TrainingConfiguration().weightDecay
    @Option(help: "constant, linear, cosine or inverse-square-root.")
    var schedule = TrainingConfiguration().schedule
    @Option(help: ArgumentHelp("Steps of warm-up, or a share of all steps if below 1.", valueName: "n"))
    var warmup = TrainingConfiguration().warmup
    @Option(help: ArgumentHelp("Largest joint norm of the gradients; 0 turns clipping off.", valueName: "x"))
    var clip = TrainingConfiguration().clip
    @Option(help: ArgumentHelp("Share of the target spread over the vocabulary.", valueName: "x"))
    var labelSmoothing = TrainingConfiguration().labelSmoothing
    @Option(help: "Seed of everything random.")
    var seed: UInt64 = TrainingConfiguration().seed
    @Option(help: ArgumentHelp("Steps between validations (once an epoch).", valueName: "steps"))
    var validateEvery: Int?

    @Option(
        name: [.customLong("head-lr"), .customLong("head-learning-rate")],
        help: ArgumentHelp("Peak learning rate of a new head, such as a classifier (the method's).", valueName: "x"))
    var headLearningRate: Double?

    @Flag(
        help: """
            Keep each layer's input alone and compute the layer again in the backward pass: less memory, more time, the \
            same numbers.
            """)
    var checkpointActivations = false
    @Flag(
        help: """
            The same, with those inputs in files (TMPDIR), or with a GPU in the computer's memory.
            """)
    var offloadActivations = false
    @Flag(help: "Keep the optimizer's state in files (TMPDIR), read and written a tensor at a time.")
    var pageOptimizer = false

    func configuration() throws -> TrainingConfiguration {
        var result = TrainingConfiguration()
        result.epochs = epochs
        result.steps = steps
        result.batchSize = batchSize
        result.tokensPerBatch = tokensPerBatch
        result.accumulation = accumulate
        let kinds = TrainingConfiguration.OptimizerKind.allCases.map(\.rawValue)
        guard let kind = TrainingConfiguration.OptimizerKind(rawValue: optimizer.lowercased()) else {
            throw PEFTError("unknown optimizer '\(optimizer)'", remedy: "there are \(kinds.joined(separator: ", "))")
        }
        result.optimizer = kind
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
        return result
    }
}
