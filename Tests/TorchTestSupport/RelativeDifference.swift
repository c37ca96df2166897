import TestSupport
import Torch

/// The largest |a − b| relative to the largest value of either; ∞ for different shapes and for NaN.
package func relativeDifference(_ a: Tensor, _ b: Tensor) -> Double {
    guard a.shape == b.shape else { return .infinity }
    return a.count == 0 ? 0 : relativeDifference(a.array(), b.array())
}
