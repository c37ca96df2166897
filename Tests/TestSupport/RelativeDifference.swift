/// The largest |a − b| relative to the largest value of either: 0 for equal values, ∞ for different counts, for no
/// values at all, and for NaN.
package func relativeDifference(_ a: [Double], _ b: [Double]) -> Double {
    let differences = zip(a, b).map { abs($0 - $1) }
    guard a.count == b.count, !a.isEmpty, !differences.contains(where: \.isNaN) else { return .infinity }
    // Zeros equal zeros.
    let scale = max(a.map(abs).max() ?? 0, b.map(abs).max() ?? 0, 1e-30)
    return (differences.max() ?? 0) / scale
}
