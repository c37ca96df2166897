/// A training hook that reads data before the first step in its own way.
package protocol CalibratingHook: TrainingHook {
    /// What the pass over data computes.
    var pass: CalibrationPass { get }
    /// Called after each batch of the pass.
    func passed()
}

/// A pass over training data before the first step.
package enum CalibrationPass {
    /// The forward pass of one example at a time.
    case examples
    /// The gradient of each batch's mean loss.
    case gradients
}
