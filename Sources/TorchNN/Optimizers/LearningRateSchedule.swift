import Foundation

/// Learning-rate schedule, as a factor of the peak learning rate.
package struct LearningRateSchedule: Sendable {
    /// How the rate falls after the warmup, as in `transformers`.
    package enum Shape: String, CaseIterable, Sendable {
        case constant, linear, cosine
        /// Proportional to 1/√step after the warmup (Raffel et al. 2020).
        case inverseSquareRoot = "inverse-square-root"
    }

    package var shape: Shape
    /// Steps over which the rate rises linearly from 0.
    package var warmup: Int
    /// Total number of steps.
    package var total: Int

    package init(_ shape: Shape, warmup: Int = 0, total: Int) {
        (self.shape, self.warmup, self.total) = (shape, warmup, total)
    }

    /// The factor of the step after `step` completed ones, as in `transformers.get_scheduler`.
    package func factor(after step: Int) -> Double {
        if step < warmup { return Double(step) / Double(max(1, warmup)) }
        let progress = Double(step - warmup) / Double(max(1, total - warmup))
        switch shape {
        case .constant: return 1
        case .linear: return max(0, 1 - progress)
        case .cosine: return max(0, 0.5 * (1 + cos(.pi * progress)))
        case .inverseSquareRoot:
            // Without a warmup, transformers uses a time scale of 10,000 steps.
            let scale = Double(warmup > 0 ? warmup : 10_000)
            let shift = scale - Double(warmup)
            return 1 / ((Double(step) + shift) / scale).squareRoot()
        }
    }
}
