import PEFTSupport

/// The loss or the gradient became NaN or infinite, or the loss a hundred times as large as at first, usually because the learning rate is too high.
public struct TrainingDiverged: Error, CustomStringConvertible {
    package let what: String
    /// The step at which it happened, from 1.
    public let step: Int
    /// The number of the training example whose loss is NaN or infinite, or the largest of the step, from 1; `nil` if no
    /// single example is at fault.
    public package(set) var example: Int?
    /// Where the first NaN or infinite value is, such as `the output of layer 3`, counted from 1 in forward order.
    public package(set) var place: String?
    /// The loss, if it is finite and exploded.
    public package(set) var loss: Double?
    /// The step of the checkpoint that remains.
    public package(set) var checkpoint: Int?

    package init(what: String, step: Int) { (self.what, self.step) = (what, step) }

    package var error: PEFTError {
        let event = loss.map { "exploded to \(Float($0))" } ?? "became NaN or infinite"
        let details = [example.map { "training example \($0)" }, place].compactMap { $0 }.joined(separator: ", ")
        let kept = checkpoint.map { "; the checkpoint of step \($0) remains" } ?? ""
        return PEFTError(
            "the \(what) \(event) at step \(step)\(details.isEmpty ? "" : " (\(details))")",
            remedy: "lower the learning rate, or use a longer warm-up\(kept)")
    }
    /// The problem and what to do, in one line.
    public var description: String { error.description }
}

/// A run was stopped by its caller after writing a checkpoint.
public struct TrainingInterrupted: Error {
    /// The last step before the interruption, whose checkpoint was saved.
    public let step: Int
}
