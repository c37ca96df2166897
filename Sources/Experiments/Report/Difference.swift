import Foundation
import Training

/// The difference of two runs by one metric, with its 95 % confidence interval.
///
/// Both runs were evaluated on the same test examples, so effects of an example on both cancel: the interval is that of a *paired*
/// bootstrap (Efron, Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 8; P. Koehn, *Statistical Significance
/// Tests for Machine Translation Evaluation*, 2004), with the same resamples for both runs. Corpus-level metrics such as
/// F1 or BLEU are recomputed on each resample. The intervals of the runs themselves may overlap widely while this one is
/// far from 0, as examples differ more than methods do.
public struct Difference: Codable, Sendable, Equatable {
    /// A key of ``MethodRun/quality``, or `loss`.
    public var metric: String
    /// Index of the other run in ``ComparisonReport/runs``.
    public var to: Int
    /// This run's mean minus the other's.
    public var value: Double
    /// 95 % interval; with several seeds, it includes the variance over seeds.
    public var low: Double
    /// Upper end of the interval.
    public var high: Double

    /// Whether the interval contains 0: the two are statistically indistinguishable.
    public var isWithinSpread: Bool { low <= 0 && high >= 0 }

    var reversed: Difference { Difference(metric: metric, to: to, value: -value, low: -high, high: -low) }
}

extension Difference {
    /// The difference of two runs on the same examples.
    ///
    /// With the difference d and its bootstrap interval [l, h], seeds widen the sides to √((d − l)² + s²), √((h − d)² + s²), where s
    /// is half of Student's two-sample interval, as seeds of different methods are not paired.
    /// - Parameters:
    ///   - all: the variance over seeds pooled over the whole comparison, which two or three seeds of two runs estimate poorly.
    ///   - isPaired: whether seeds are paired, as for a run and its quantized model; `all` is then the variance of such
    ///     paired differences.
    /// - Returns: `nil` if there are neither bootstrap resamples nor several seeds.
    init?(
        _ a: Statistic, to b: Statistic, metric: String, place: Int, all: SeedSpread? = nil, isPaired: Bool = false
    ) {
        let value = a.mean - b.mean
        var (below, above) = (0.0, 0.0)
        let hasRows = !a.resampled.isEmpty && a.resampled.count == b.resampled.count
        if hasRows {
            let (low, high) = Bootstrap.standard.interval(of: zip(a.resampled, b.resampled).map { $0 - $1 })
            (below, above) = (max(0, value - low), max(0, high - value))
        }
        let seeds =
            isPaired && a.values.count == b.values.count
            ? Self.halfWidthOverPairs(zip(a.values, b.values).map { $0 - $1 }, all)
            : Self.halfWidthOverSeeds(a.values, b.values, all)
        guard hasRows || seeds != nil else { return nil }
        let half = seeds ?? 0
        self.init(
            metric: metric, to: place, value: value, low: value - (below * below + half * half).squareRoot(),
            high: value + (above * above + half * half).squareRoot())
        guard low.isFinite, high.isFinite else { return nil }
    }

    /// t · σ √(1/n + 1/m). A run with one value, such as the untrained model's, counts as a constant; `nil` if both have
    /// one. σ is that of the whole comparison, or of the two runs if they vary more.
    private static func halfWidthOverSeeds(_ a: [Double], _ b: [Double], _ all: SeedSpread?) -> Double? {
        guard let own = SeedSpread([a, b]) else { return nil }
        let shares = [a, b].reduce(0) { $0 + ($1.count > 1 ? 1 / Double($1.count) : 0) }
        let (variance, freedom) = (
            max(own.variance, all?.variance ?? 0), max(own.freedom, all?.freedom ?? 0)
        )
        return studentQuantile(freedom) * (variance * shares).squareRoot()
    }

    /// t · σ / √n of differences over the same seeds.
    private static func halfWidthOverPairs(_ differences: [Double], _ all: SeedSpread?) -> Double? {
        guard let own = SeedSpread([differences]) else { return nil }
        let (variance, freedom) = (max(own.variance, all?.variance ?? 0), max(own.freedom, all?.freedom ?? 0))
        return studentQuantile(freedom) * (variance / Double(differences.count)).squareRoot()
    }

    /// The 97.5 % quantile of Student's t. From 11 degrees of freedom on, the Cornish–Fisher expansion, with an error below
    /// 0.0005.
    static func studentQuantile(_ freedom: Int) -> Double {
        let first = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228]
        guard freedom > first.count else { return first[max(0, freedom - 1)] }
        let (z, n) = (1.959964, Double(freedom))
        let (z3, z5, z7) = (pow(z, 3), pow(z, 5), pow(z, 7))
        return z + (z3 + z) / (4 * n) + (5 * z5 + 16 * z3 + 3 * z) / (96 * n * n)
            + (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * n * n * n)
    }
}

/// The variance over seeds, pooled over methods as in an analysis of variance (R. A. Fisher,
/// *Statistical Methods for Research Workers*, 1925, chapter 7).
struct SeedSpread {
    let variance: Double
    /// Degrees of freedom: number of values minus number of runs.
    let freedom: Int

    /// - Returns: `nil` if no run has several values.
    init?(_ runs: [[Double]]) {
        let several = runs.filter { $0.count > 1 }
        freedom = several.reduce(0) { $0 + $1.count - 1 }
        guard freedom > 0 else { return nil }
        let squares = several.reduce(0.0) { sum, values in
            let mean = values.reduce(0, +) / Double(values.count)
            return sum + values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
        }
        variance = squares / Double(freedom)
    }
}

extension ComparisonReport {
    /// The variance over seeds of all trained runs.
    private func seedSpread(_ metric: Metric) -> SeedSpread? {
        SeedSpread(runs.filter { !$0.isRequantized }.compactMap { $0.statistic(metric)?.values.filter(\.isFinite) })
    }

    /// The variance over seeds of the changes from quantization.
    private func pairSpread(_ metric: Metric) -> SeedSpread? {
        SeedSpread(
            reportedRuns.compactMap { run in
                guard let a = run.statistic(metric)?.values, let b = source(of: run)?.statistic(metric)?.values,
                    a.count == b.count
                else { return nil }
                return zip(a, b).map { $0 - $1 }.filter(\.isFinite)
            })
    }

    /// Stores the differences of each run from those it is compared with, so that a report read from JSON has them.
    mutating func findDifferences() {
        let (ranking, known) = (ranking, reportedRuns)
        let reading = [base, full, subject].map { $0?.id }
        let spreads = (metrics + [.loss]).reduce(into: [String: SeedSpread?]()) { $0[$1.key] = seedSpread($1) }
        for index in runs.indices {
            var found: [Difference] = []
            for metric in metrics + [.loss] {
                let all = spreads[metric.key] ?? nil
                let leader = best(of: known, by: metric)?.id
                let trained = best(of: known.filter(\.isTrained), by: metric)?.id
                let quantized = best(of: known.filter(\.isQuantized), by: metric)?.id
                let others = metric == ranking ? [leader, trained, quantized] + reading : [leader]
                let source = metric == ranking || metric == .loss ? runs[index].source : nil
                for place in Set((others + [source]).compactMap(\.self)).sorted()
                where place != index && runs.indices.contains(place) {
                    let isPaired = place == runs[index].source
                    guard let a = runs[index].statistic(metric), let b = runs[place].statistic(metric),
                        let difference = Difference(
                            a, to: b, metric: metric.key, place: place, all: isPaired ? pairSpread(metric) : all,
                            isPaired: isPaired)
                    else { continue }
                    found.append(difference)
                }
            }
            runs[index].differences = found.isEmpty ? nil : found
        }
    }

    /// Whether differences were computed from the per-example results.
    var hasDifferences: Bool { runs.contains { $0.differences != nil } }

    /// The difference of two runs; `nil` if no interval can be computed.
    func difference(of run: ReportedRun, to other: ReportedRun, by metric: Metric) -> Difference? {
        guard let a = run.statistic(metric), let b = other.statistic(metric) else { return nil }
        func stored(_ run: ReportedRun, to other: ReportedRun) -> Difference? {
            run.differences?.first { $0.metric == metric.key && $0.to == other.id }
        }
        if let known = stored(run, to: other) ?? stored(other, to: run)?.reversed { return known }
        let isPaired = run.source == other.id
        return Difference(
            a, to: b, metric: metric.key, place: other.id, all: isPaired ? pairSpread(metric) : seedSpread(metric),
            isPaired: isPaired)
    }

    /// The difference of a quantized model from the trained one.
    func quantizationChange(_ run: ReportedRun, by metric: Metric) -> Difference? {
        source(of: run).flatMap { difference(of: run, to: $0, by: metric) }
    }

    /// Whether two runs are statistically indistinguishable. Reports of earlier versions with one seed have no differences;
    /// for them the overlap of the runs' own intervals decides, which is less sensitive.
    /// - Returns: `nil` without any intervals.
    func isWithinSpread(_ run: ReportedRun, of other: ReportedRun, by metric: Metric) -> Bool? {
        if let difference = difference(of: run, to: other, by: metric) { return difference.isWithinSpread }
        guard let a = run.statistic(metric), let b = other.statistic(metric) else { return nil }
        return a.overlaps(b, over: spread)
    }
}
