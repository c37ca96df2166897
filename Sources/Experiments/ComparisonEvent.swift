import Training

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
    /// The budget doesn't suffice for these methods.
    case notReached([SkippedMethod])
    /// A run of the one method that is trained in any case takes longer than what is left of the budget, in seconds.
    case exceedsBudget(method: String, seconds: Double, left: Double)
}
