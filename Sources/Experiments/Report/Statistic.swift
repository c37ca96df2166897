import Training

/// A value over several seeds.
public struct Statistic: Codable, Sendable {
    /// Mean over the seeds.
    public var mean: Double
    /// Standard deviation over seeds (n − 1); `nil` with one seed.
    public var sd: Double?
    /// 95 % bootstrap interval over the test examples of the first seed.
    public var low: Double?
    /// Upper end of the interval.
    public var high: Double?
    package var values: [Double]
    /// The mean over seeds on each bootstrap resample, which is the same for every run; not part of the coded form.
    var resampled: [Double] = []

    private enum CodingKeys: String, CodingKey { case mean, sd, low, high, values }

    package init(_ values: [Double], low: Double? = nil, high: Double? = nil) {
        let mean = values.isEmpty ? .nan : values.reduce(0, +) / Double(values.count)
        self.values = values
        self.mean = mean
        self.low = low
        self.high = high
        if values.count > 1 {
            let squares = values.map { ($0 - mean) * ($0 - mean) }.reduce(0, +)
            sd = (squares / Double(values.count - 1)).squareRoot()
        }
    }

    /// A metric over several seeds, each evaluated on the same examples.
    init(_ seeds: [MetricValue]) {
        func finite(_ value: Double?) -> Double? { value.flatMap { $0.isFinite ? $0 : nil } }
        self.init(seeds.map(\.value), low: finite(seeds.first?.low), high: finite(seeds.first?.high))
        guard let count = seeds.first?.resampled.count, seeds.allSatisfy({ $0.resampled.count == count }) else {
            return
        }
        resampled = (0..<count).map { draw in
            seeds.reduce(0) { $0 + $1.resampled[draw] } / Double(seeds.count)
        }
    }
}

/// What the intervals of a report cover. One report never mixes the two: they answer different questions.
enum Spread: Sendable {
    /// One standard deviation to each side of the mean.
    case seeds
    /// The 95 % bootstrap interval.
    case testRows
}

extension Statistic {
    func interval(over spread: Spread) -> ClosedRange<Double>? {
        guard mean.isFinite else { return nil }
        switch spread {
        case .seeds:
            guard let sd, sd.isFinite, sd >= 0 else { return nil }
            return (mean - sd)...(mean + sd)
        case .testRows:
            guard let low, let high, low.isFinite, high.isFinite, low <= high else { return nil }
            return low...high
        }
    }

    /// Whether the two intervals overlap, so that the values are statistically indistinguishable; `nil` if neither
    /// has an interval. A value without one, such as the base model's over seeds, counts as a point.
    func overlaps(_ other: Statistic, over spread: Spread) -> Bool? {
        let (own, others) = (interval(over: spread), other.interval(over: spread))
        if own == nil, others == nil { return nil }
        return (own ?? mean...mean).overlaps(others ?? other.mean...other.mean)
    }
}
