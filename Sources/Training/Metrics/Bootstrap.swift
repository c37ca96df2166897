import PEFTSupport

/// A metric's value with its bootstrap confidence interval.
public struct MetricValue: Codable, Sendable, Hashable {
    /// The value on all examples.
    public var value: Double
    /// Lower end of the confidence interval.
    public var low: Double
    /// Upper end of the confidence interval.
    public var high: Double
    /// The value on each bootstrap resample; part of neither the coded form nor of equality. As the same examples are drawn
    /// for every metric and model, the differences of two values' resamples are a paired bootstrap.
    package var resampled: [Double] = []

    package init(value: Double, low: Double, high: Double, resampled: [Double] = []) {
        (self.value, self.low, self.high, self.resampled) = (value, low, high, resampled)
    }

    private enum CodingKeys: String, CodingKey { case value, low, high }

    /// Whether value and interval are equal; the resampled values don't count.
    public static func == (a: MetricValue, b: MetricValue) -> Bool {
        (a.value, a.low, a.high) == (b.value, b.low, b.high)
    }

    /// Hashes what is compared.
    public func hash(into hasher: inout Hasher) {
        for part in [value, low, high] { hasher.combine(part) }
    }
}

/// Percentile bootstrap over the examples of a test set: examples are drawn with replacement, and the interval spans
/// the central part of the metric's values on the resamples.
///
/// B. Efron, *Bootstrap Methods: Another Look at the Jackknife*, 1979; percentile method: Efron, Tibshirani,
/// *An Introduction to the Bootstrap*, 1993, chapter 13. The same seed and number of examples draw the same examples,
/// so resamples of several metrics, or of several models on the same test set, are paired.
public struct Bootstrap: Sendable, Hashable {
    package let resamples: Int
    /// Confidence level: the fraction of the resampled values inside the interval, between 0 and 1.
    package let confidence: Double
    package let seed: UInt64

    /// 1,000 resamples, 95 %, seed 0.
    public static let standard = Bootstrap(uncheckedResamples: 1_000, confidence: 0.95, seed: 0)

    /// - Throws: ``PEFTError`` unless there is at least one resample and `confidence` is between 0 and 1.
    public init(resamples: Int = 1_000, confidence: Double = 0.95, seed: UInt64 = 0) throws {
        guard resamples > 0 else {
            throw PEFTError(
                "the number of bootstrap resamples must be at least 1 (got \(resamples))", remedy: "use 1000 or more")
        }
        guard confidence > 0, confidence < 1 else {
            throw PEFTError(
                "the confidence level must be between 0 and 1 (got \(confidence))", remedy: "use 0.95, for example")
        }
        self.init(uncheckedResamples: resamples, confidence: confidence, seed: seed)
    }

    private init(uncheckedResamples resamples: Int, confidence: Double, seed: UInt64) {
        (self.resamples, self.confidence, self.seed) = (resamples, confidence, seed)
    }

    /// The mean of one value per example, with its interval.
    /// - Throws: ``PEFTError`` if there are no values.
    package func mean(of values: [Double]) throws -> MetricValue {
        try value(rows: values.count) { rows in
            rows.reduce(0) { $0 + values[$1] } / Double(rows.count)
        }
    }

    /// A statistic of all examples, with its interval.
    /// - Parameter statistic: takes the indices of the drawn examples, `count` of them.
    /// - Throws: ``PEFTError`` if there are no examples.
    package func value(rows count: Int, statistic: ([Int]) throws -> Double) throws -> MetricValue {
        guard count > 0 else { throw PEFTError("there are no examples to resample", remedy: "provide at least one") }
        var random = SeededRandom(seed: seed)
        var rows = Array(0..<count)
        let value = try statistic(rows)
        var resampled: [Double] = []
        resampled.reserveCapacity(resamples)
        for _ in 0..<resamples {
            for index in rows.indices { rows[index] = random.below(count) }
            resampled.append(try statistic(rows))
        }
        let interval = interval(of: resampled)
        return MetricValue(value: value, low: interval.low, high: interval.high, resampled: resampled)
    }

    /// The percentile interval of resampled values.
    package func interval(of values: [Double]) -> (low: Double, high: Double) {
        let sorted = values.sorted()
        let tail = (1 - confidence) / 2
        return (Bootstrap.quantile(tail, ofSorted: sorted), Bootstrap.quantile(1 - tail, ofSorted: sorted))
    }

    /// Linear interpolation between the two neighboring values (type 7 of Hyndman, Fan, 1996; NumPy's default).
    static func quantile(_ share: Double, ofSorted values: [Double]) -> Double {
        guard let last = values.indices.last else { return .nan }
        let position = share * Double(last)
        let below = min(max(Int(position.rounded(.down)), 0), last)
        let above = min(below + 1, last)
        return values[below] + (position - Double(below)) * (values[above] - values[below])
    }
}
