import Foundation
import Training

/// A column of quality: a key of ``MethodRun/quality``, or the loss. Its name, scale and so on are those of its
/// ``MetricDescription``.
@dynamicMemberLookup
struct Metric: Hashable, Sendable {
    let key: String

    static let loss = Metric(key: Perplexity.lossKey)

    subscript<Value>(dynamicMember fact: KeyPath<MetricDescription, Value>) -> Value {
        MetricDescription.of(key)[keyPath: fact]
    }

    func format(_ value: Double, with numbers: NumberFormat) -> String {
        numbers.decimal(value * self.scale, places: self.places)
    }

    /// A difference with its sign, and its interval in brackets.
    func format(_ difference: Difference, with numbers: NumberFormat) -> (value: String, interval: String) {
        func text(_ value: Double) -> String { numbers.signed(value * self.scale, places: self.places) }
        return (text(difference.value), "[\(text(difference.low)), \(text(difference.high))]")
    }

    /// The value as it is shown, so that differences of shown values add up for the reader.
    func rounded(_ value: Double) -> Double {
        let unit = (0..<self.places).reduce(1.0) { power, _ in power * 10 }
        return (value * self.scale * unit).rounded() / unit
    }

    /// How much better `a` is than `b`, in displayed units; negative if it is worse.
    func gain(of a: Statistic, over b: Statistic) -> Double {
        let difference = rounded(a.mean) - rounded(b.mean)
        return self.higherIsBetter ? difference : -difference
    }

    func isBetter(_ a: Double, than b: Double) -> Bool { self.higherIsBetter ? a > b : a < b }
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

extension MethodRun {
    /// The metric's statistic, if it has a finite mean.
    func statistic(_ metric: Metric) -> Statistic? {
        guard let value = metric == .loss ? loss : quality[metric.key], value.mean.isFinite else { return nil }
        return value
    }

    var isBase: Bool { method == "base" && !isRequantized }
    /// The frozen base model with only its new head trained: the reference where the base has no head.
    var isHead: Bool { method == "head" && !isRequantized }
    var isFull: Bool { method == "full" && !isRequantized }
    /// Another run's model, quantized after training: it trained nothing itself.
    var isRequantized: Bool { source != nil }
    var isTrained: Bool { !isBase && !isRequantized }
    /// A trained model that was quantized with its adapter merged.
    var isQuantized: Bool { isRequantized && method != "base" }
    /// A trained run that is neither full fine-tuning nor the training of the head only.
    var isAdapter: Bool { isTrained && !isHead && !isFull }

    var trainableShare: Double? {
        if share.isFinite, share > 0 || trainable == 0 { return share }
        return total > 0 ? Double(trainable) / Double(total) : nil
    }

    /// Number of seeds of this run.
    var seedCount: Int { max(curves.count, quality.values.map(\.values.count).max() ?? 0, loss?.values.count ?? 0) }
}

extension ComparisonReport {
    /// All metrics that any run has, in display order.
    var metrics: [Metric] {
        MetricDescription.ordered(Set(runs.flatMap(\.quality.keys))).map(Metric.init)
    }

    /// The metric that ranks the runs: the primary one, or else the first that any run has a value for.
    var ranking: Metric? {
        ([Metric(key: primaryMetric)] + metrics + [.loss])
            .first { metric in runs.contains { $0.statistic(metric) != nil } }
    }

    /// The untrained model; in its original weight format if it was measured in several.
    var base: MethodRun? {
        runs.first { $0.isBase && $0.label == "base" } ?? runs.first(where: \.isBase) ?? runs.first(where: \.isHead)
    }
    var full: MethodRun? { runs.first(where: \.isFull) }

    /// The run the report is about: the best adapter, else full fine-tuning, else the first run.
    var subject: MethodRun? {
        guard let metric = ranking else { return runs.first(where: \.isAdapter) ?? full ?? runs.first }
        let adapters = runs.filter { $0.isAdapter && $0.statistic(metric) != nil }
        return best(of: adapters, by: metric) ?? full ?? runs.first
    }

    func best(of runs: [MethodRun], by metric: Metric) -> MethodRun? {
        var best: (run: MethodRun, mean: Double)?
        for run in runs {
            guard let mean = run.statistic(metric)?.mean else { continue }
            if let known = best, !metric.isBetter(mean, than: known.mean) { continue }
            best = (run, mean)
        }
        return best?.run
    }

    /// Whether the models of the runs differ in their weight formats.
    var showsModelSizes: Bool {
        runs.contains { $0.modelBytes != nil }
            && (runs.contains(where: \.isRequantized) || Set(runs.map(\.weights)).count > 1)
    }

    /// Seeds per trained method.
    var seedCount: Int { runs.filter(\.isTrained).map(\.seedCount).max() ?? 0 }

    var spread: Spread {
        runs.contains { run in run.quality.values.contains { $0.sd != nil } } ? .seeds : .testRows
    }

    /// At most three metrics for places with little room, the ranking one among them; and those that are always shown.
    var leadingMetrics: [Metric] {
        let known = metrics.filter { metric in runs.contains { $0.quality[metric.key] != nil } }
        // Texts without prompts: what was generated for them means little.
        if let ranking, ranking.key == Perplexity.key { return [ranking] }
        let always = known.filter { $0.prominence == .always }
        let shown = Array(known.filter { $0.prominence == .ordinary }.prefix(3)) + always
        guard let ranking, ranking != .loss, !shown.contains(ranking) else { return shown }
        return [ranking] + shown.prefix(2) + always
    }

    /// Names for places with little room: labels up to the first bracket or comma where that still tells
    /// all runs apart.
    var shortLabels: [String] {
        let short = runs.map { run -> String in
            // What says how weights are stored follows the brackets.
            let ends = [run.weights.map { " over \($0)" }, run.storedAs.map { " → \($0)" }].compactMap(\.self)
            var (label, end) = (run.label, "")
            for part in ends.reversed() where label.hasSuffix(part) {
                label.removeLast(part.count)
                end = part + end
            }
            let head = label.prefix { $0 != "(" && $0 != "," }.trimmingCharacters(in: .whitespaces)
            return (head.isEmpty ? label : head) + end
        }
        return Set(short).count == Set(runs.map(\.label)).count ? short : runs.map(\.label)
    }

    func shortLabel(_ run: MethodRun) -> String {
        runs.firstIndex { $0.label == run.label }.map { shortLabels[$0] } ?? run.label
    }
}
