/// What a baseline scores on the test examples.
public struct BaselineResult: Codable, Sendable {
    /// What the reader sees, such as `longest line`.
    public var label: String
    /// As ``MethodRun/quality``.
    public var quality: [String: Statistic]

    package init(label: String, quality: [String: Statistic]) { (self.label, self.quality) = (label, quality) }

    /// The metric's statistic, if it has a finite mean.
    func statistic(_ metric: Metric) -> Statistic? { quality[metric.key].flatMap { $0.mean.isFinite ? $0 : nil } }
}

extension ComparisonReport {
    /// How far the trained methods are from the best baseline, in a sentence.
    func baselineSentence(_ numbers: NumberFormat) -> String? {
        guard let metric = ranking,
            let best = (baselines ?? []).compactMap({ result in result.statistic(metric).map { (result.label, $0) } })
                .max(by: { metric.isBetter($1.1.mean, than: $0.1.mean) })
        else { return nil }
        let trained = reportedRuns.filter(\.isTrained).compactMap { run in run.statistic(metric).map { (run, $0) } }
        guard let last = trained.min(by: { metric.isBetter($1.1.mean, than: $0.1.mean) }) else { return nil }
        let level = "(\(best.0), \(metric.format(best.1.mean, with: numbers)))"
        let shown = numbers.decimal(abs(metric.gain(of: last.1, over: best.1)), places: metric.places)
        func capitalized(_ name: String) -> String { name.prefix(1).uppercased() + name.dropFirst() }
        guard metric.isBetter(last.1.mean, than: best.1.mean) else {
            return
                "\(capitalized(shortLabel(last.0))) is not better than the best model-free baseline \(level): it may have "
                + "learned what targets look like without using the prompts."
        }
        guard last.1.differsClearly(from: best.1, by: metric) else {
            return
                "\(capitalized(shortLabel(last.0))) is statistically indistinguishable from the best model-free baseline \(level)."
        }
        let subject = trained.count == 1 ? capitalized(shortLabel(last.0)) : "Every trained method"
        return "\(subject) is at least \(shown) \(metric.unit) better than the best model-free baseline \(level)."
    }
}

extension Statistic {
    /// Whether the 95 % interval of the paired difference leaves out 0. A report that was read from its file has no
    /// resampled values: there the two intervals must not overlap, which is stricter.
    fileprivate func differsClearly(from other: Statistic, by metric: Metric) -> Bool {
        if let difference = Difference(self, to: other, metric: metric.key, place: 0) {
            return !difference.isWithinSpread
        }
        guard let low, let high, let otherLow = other.low, let otherHigh = other.high else { return true }
        return low > otherHigh || high < otherLow
    }
}
