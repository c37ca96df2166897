/// The progress of a run, reported after each step.
public struct TrainingProgress: Sendable {
    /// The step, from 1.
    public var step: Int
    /// Number of steps of the run.
    public var totalSteps: Int
    /// Passes over the training examples so far, such as 1.5.
    public var epoch: Double
    /// Loss per target token of this step, in nats.
    public var loss: Double
    /// The step's learning rate.
    public var learningRate: Double
    /// Global gradient norm before clipping.
    public var gradientNorm: Double
    /// Tokens (input and target, without padding) per second of training in this process.
    public var tokensPerSecond: Double
    /// Resident memory in bytes.
    public var memory: Int?
    /// Estimated time until the end, in seconds.
    public var secondsLeft: Double
}

/// Progress of a training run.
public enum TrainingEvent: Sendable {
    case step(TrainingProgress)
    case validation(step: Int, loss: Double, isBest: Bool)
    case checkpoint(step: Int)
    case stoppedEarly(step: Int)
}

/// The result of a finished run.
public struct TrainingResult: Sendable {
    /// Losses over the run.
    public var history: TrainingHistory
    /// Trained tokens per second.
    public var tokensPerSecond: Double
    /// Seconds spent in training steps, validation excluded.
    public var seconds: Double
    /// Number of steps.
    public var steps: Int
    /// Largest resident memory while training, in bytes.
    public var peakBytes: Int?
}

/// Training and validation losses of a run, in nats per target token.
public struct TrainingHistory: Codable, Sendable, Equatable {
    /// A loss and the step after which it was measured.
    public struct Point: Codable, Sendable, Equatable {
        /// The step, from 1.
        public var step: Int
        /// The mean loss per target token.
        public var loss: Double
    }
    /// Training losses, each a mean over the steps since the last.
    public var training: [Point] = []
    /// Validation losses.
    public var validation: [Point] = []
    /// The step with the lowest validation loss.
    public var bestStep: Int?
    /// The lowest validation loss.
    public var bestLoss: Double?
    /// Validations since the best one.
    package var sinceBest = 0
}
