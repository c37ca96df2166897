/// An axis that enlarges crowded regions: a value's position is the mean of its linear position between the extremes and
/// its rank among all values. On a linear axis a few outliers would squeeze everything else together.
struct CrowdScale {
    private let sorted: [Double]
    private let start: Double
    private let end: Double

    init(_ values: [Double], start: Double, end: Double) {
        sorted = Set(values.filter(\.isFinite)).sorted()
        (self.start, self.end) = (start, end)
    }

    /// The place of one of the values; others lie between their neighbors.
    func callAsFunction(_ value: Double) -> Double {
        guard let low = sorted.first, let high = sorted.last, high > low, value.isFinite else {
            return (start + end) / 2
        }
        let linear = max(0, min(1, (value - low) / (high - low)))
        let rank = Double(sorted.count { $0 < value }) / Double(sorted.count - 1)
        return start + (linear + min(1, rank)) / 2 * (end - start)
    }
}
