import Foundation
import Training

/// How far a run is from another by one metric, and how sure that is.
///
/// Both runs were measured on the same test rows, so what a row does to both cancels: the interval is that of a *paired*
/// bootstrap (Efron, Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 8; P. Koehn, *Statistical Significance
/// Tests for Machine Translation Evaluation*, 2004), whose drawings of rows the two runs share. Corpus-level metrics such as
/// F1 or BLEU are computed anew from each drawing. Intervals of the runs themselves may overlap widely where this one is
/// far from 0, as rows differ from each other more than methods do.
public struct Difference: Codable, Sendable, Equatable {
    /// A key of ``MethodRun/quality``, or `loss`.
    public var metric: String
    /// Place of the other run in ``ComparisonReport/runs``.
    public var to: Int
    /// This run's mean less the other's.
    public var value: Double
    /// 95 % interval; where there are several seeds, chance in training counts as well.
    public var low: Double
    public var high: Double

    /// Whether the interval holds 0: the comparison doesn't tell the two apart.
    public var isWithinSpread: Bool { low <= 0 && high >= 0 }

    var reversed: Difference { Difference(metric: metric, to: to, value: -value, low: -high, high: -low) }
}

extension Difference {
    /// The difference of two runs over the same rows.
    ///
    /// With d the difference and rows' interval [l, h], seeds widen each side to √((d − l)² + s²), √((h − d)² + s²), where s
    /// is half of Student's two-sample interval: seeds of different methods aren't pairs.
    /// - Parameters:
    ///   - all: the spread over seeds in the whole comparison, which two or three seeds of two runs say little of.
    ///   - arePairs: whether seeds are pairs, as those of a run and of its model stored anew; `all` is then that of such
    ///     pairs' differences.
    /// - Returns: `nil` where there are neither rows nor several seeds to tell by.
    init?(
        _ a: Statistic, to b: Statistic, metric: String, place: Int, all: SeedSpread? = nil, arePairs: Bool = false
    ) {
        let value = a.mean - b.mean
        var (below, above) = (0.0, 0.0)
        let hasRows = !a.resampled.isEmpty && a.resampled.count == b.resampled.count
        if hasRows {
            let (low, high) = Bootstrap.standard.interval(of: zip(a.resampled, b.resampled).map { $0 - $1 })
            (below, above) = (max(0, value - low), max(0, high - value))
        }
        let seeds =
            arePairs && a.values.count == b.values.count
            ? Self.halfWidthOverPairs(zip(a.values, b.values).map { $0 - $1 }, all)
            : Self.halfWidthOverSeeds(a.values, b.values, all)
        guard hasRows || seeds != nil else { return nil }
        let half = seeds ?? 0
        self.init(
            metric: metric, to: place, value: value, low: value - (below * below + half * half).squareRoot(),
            high: value + (above * above + half * half).squareRoot())
        guard low.isFinite, high.isFinite else { return nil }
    }

    /// t · σ √(1/n + 1/m). A run with one value, such as the untrained model's, counts as a constant; `nil` where both have
    /// one. σ is that of the whole comparison, or of the two runs alone where they vary more.
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

    /// The 97.5 % quantile of Student's t. From 11 degrees of freedom on the expansion of Fisher and Cornish, which is right to
    /// 0.0005 there.
    static func studentQuantile(_ freedom: Int) -> Double {
        let first = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228]
        guard freedom > first.count else { return first[max(0, freedom - 1)] }
        let (z, n) = (1.959964, Double(freedom))
        let (z3, z5, z7) = (pow(z, 3), pow(z, 5), pow(z, 7))
        return z + (z3 + z) / (4 * n) + (5 * z5 + 16 * z3 + 3 * z) / (96 * n * n)
            + (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * n * n * n)
    }
}

/// The variance of runs that differ in their seed alone, pooled over methods as in an analysis of variance (R. A. Fisher,
/// *Statistical Methods for Research Workers*, 1925, chapter 7).
struct SeedSpread {
    let variance: Double
    /// Values less runs.
    let freedom: Int

    /// - Returns: `nil` where no run has several values.
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
    /// Of all runs by this metric that were trained.
    private func seedSpread(_ metric: Metric) -> SeedSpread? {
        SeedSpread(runs.filter { !$0.isStoredAnew }.compactMap { $0.statistic(metric)?.values.filter(\.isFinite) })
    }

    /// Of what storing models anew changes.
    private func pairSpread(_ metric: Metric) -> SeedSpread? {
        SeedSpread(
            runs.compactMap { run in
                guard let source = run.source, runs.indices.contains(source),
                    let a = run.statistic(metric)?.values, let b = runs[source].statistic(metric)?.values,
                    a.count == b.count
                else { return nil }
                return zip(a, b).map { $0 - $1 }.filter(\.isFinite)
            })
    }

    /// Writes down how far each run is from the others that it is compared with, so that a report read again says the same.
    mutating func findDifferences() {
        let ranking = ranking
        let reading = [base, full, subject].compactMap { $0.flatMap(place(of:)) }
        let spreads = (metrics + [.loss]).reduce(into: [String: SeedSpread?]()) { $0[$1.key] = seedSpread($1) }
        for index in runs.indices {
            var found: [Difference] = []
            for metric in metrics + [.loss] {
                let all = spreads[metric.key] ?? nil
                let leader = best(of: runs, by: metric).flatMap(place(of:))
                let trained = best(of: runs.filter(\.isTrained), by: metric).flatMap(place(of:))
                let quantised = best(of: runs.filter(\.isQuantised), by: metric).flatMap(place(of:))
                let others = metric == ranking ? [leader, trained, quantised] + reading : [leader]
                let source = metric == ranking || metric == .loss ? runs[index].source : nil
                for place in Set((others + [source]).compactMap(\.self)).sorted()
                where place != index && runs.indices.contains(place) {
                    let arePairs = place == runs[index].source
                    guard let a = runs[index].statistic(metric), let b = runs[place].statistic(metric),
                        let difference = Difference(
                            a, to: b, metric: metric.key, place: place, all: arePairs ? pairSpread(metric) : all,
                            arePairs: arePairs)
                    else { continue }
                    found.append(difference)
                }
            }
            runs[index].differences = found.isEmpty ? nil : found
        }
    }

    /// Whether differences were found while the rows' results were there.
    var hasDifferences: Bool { runs.contains { $0.differences != nil } }

    /// How far a run is from another; `nil` where nothing tells how sure that is.
    func difference(of run: MethodRun, to other: MethodRun, by metric: Metric) -> Difference? {
        guard let a = run.statistic(metric), let b = other.statistic(metric) else { return nil }
        let (own, others) = (place(of: run), place(of: other))
        func stored(_ run: MethodRun, _ place: Int?) -> Difference? {
            run.differences?.first { $0.metric == metric.key && $0.to == place }
        }
        if let known = stored(run, others) ?? stored(other, own)?.reversed { return known }
        let arePairs = run.source != nil && run.source == others
        return Difference(
            a, to: b, metric: metric.key, place: others ?? 0, all: arePairs ? pairSpread(metric) : seedSpread(metric),
            arePairs: arePairs)
    }

    /// How far a model that was stored anew is from what it was before.
    func changeByStoring(_ run: MethodRun, by metric: Metric) -> Difference? {
        guard let source = run.source, runs.indices.contains(source) else { return nil }
        return difference(of: run, to: runs[source], by: metric)
    }

    /// Whether the comparison can't tell two runs apart. Reports of earlier versions with one seed have no differences; there
    /// the runs' own intervals decide, which hides smaller gaps.
    /// - Returns: `nil` where there are no intervals at all.
    func isWithinSpread(_ run: MethodRun, of other: MethodRun, by metric: Metric) -> Bool? {
        if let difference = difference(of: run, to: other, by: metric) { return difference.isWithinSpread }
        guard let a = run.statistic(metric), let b = other.statistic(metric) else { return nil }
        return a.overlaps(b, over: spread)
    }

    /// Two runs may share a label; figures tell them apart.
    private func place(of run: MethodRun) -> Int? {
        // Not a number is equal to itself here.
        func figures(_ run: MethodRun) -> [String: [UInt64]] { run.quality.mapValues { $0.values.map(\.bitPattern) } }
        return runs.firstIndex {
            $0.label == run.label && $0.trainable == run.trainable && $0.steps == run.steps
                && figures($0) == figures(run)
        }
    }
}
