import Foundation
import Training

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
    var base: ReportedRun? {
        let runs = reportedRuns
        return runs.first { $0.isBase && $0.label == "base" } ?? runs.first(where: \.isBase)
            ?? runs.first(where: \.isHead)
    }
    var full: ReportedRun? { reportedRuns.first(where: \.isFull) }

    /// The run the report is about: the best adapter, else full fine-tuning, else the first run.
    var subject: ReportedRun? {
        let runs = reportedRuns
        guard let metric = ranking else { return runs.first(where: \.isAdapter) ?? full ?? runs.first }
        let adapters = runs.filter { $0.isAdapter && $0.statistic(metric) != nil }
        return best(of: adapters, by: metric) ?? full ?? runs.first
    }

    func best(of runs: [ReportedRun], by metric: Metric) -> ReportedRun? {
        var best: (run: ReportedRun, mean: Double)?
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

    func shortLabel(_ run: ReportedRun) -> String { shortLabels[run.id] }
}
