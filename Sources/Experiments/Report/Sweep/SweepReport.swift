import Foundation
import PEFTSupport

/// The result of `peft sweep`: quality and cost at each value of one configuration field.
package struct SweepReport: Codable, Sendable {
    package var version: String
    package var date: String
    package var model: ComparisonReport.Model
    package var data: ComparisonReport.DataSet
    package var machine: ComparisonReport.Machine
    package var settings: [String: JSON]
    package var primaryMetric: String
    package var method: String
    /// The field that was varied.
    package var field: String
    /// The budget of trained parameters that every value was adjusted to, if there was one.
    package var budget: Int?
    /// In the order of the values on the command line.
    package var points: [Point]
    /// The value with the best mean.
    package var best: String?
    /// The smallest value (first in the order of trained parameters) within one standard deviation of the best.
    package var plateau: String?
    /// Subspace similarities of the trained A matrices, for methods that have them.
    package var similarity: [SubspaceSimilarity]

    package struct Point: Codable, Sendable {
        package var value: String
        package var run: MethodRun

        package init(value: String, run: MethodRun) { (self.value, self.run) = (value, run) }
    }

    init(
        _ report: ComparisonReport, field: String, method: String, values: [String], budget: Int?,
        similarity: [SubspaceSimilarity]
    ) {
        (version, date, model, data) = (report.version, report.date, report.model, report.data)
        (machine, settings, primaryMetric) = (report.machine, report.settings, report.primaryMetric)
        (self.field, self.method, self.budget, self.similarity) = (field, method, budget, similarity)
        points = zip(values, report.runs).map { Point(value: $0, run: $1) }
        (best, plateau) = Self.plateau(points, metric: report.ranking ?? .loss)
    }

    /// The best value, and the smallest one within one standard deviation of it.
    static func plateau(_ points: [Point], metric: Metric) -> (best: String?, plateau: String?) {
        let measured = points.compactMap { point in point.run.statistic(metric).map { (point, $0) } }
        guard
            let best = measured.min(by: { metric.isBetter($0.1.mean, than: $1.1.mean) }),
            let sd = best.1.sd
        else {
            // One seed has no standard deviation, so nothing is known to be equal to the best.
            return (measured.min(by: { metric.isBetter($0.1.mean, than: $1.1.mean) })?.0.value, nil)
        }
        let close = measured.filter { abs($0.1.mean - best.1.mean) <= sd }
        let smallest = close.enumerated().min {
            ($0.element.0.run.trainable, $0.offset) < ($1.element.0.run.trainable, $1.offset)
        }
        return (best.0.value, smallest?.element.0.value)
    }

    /// The report as JSON, keys sorted.
    package func json() throws -> Data { try ReportJSON.data(self) }

    /// The sweep as a comparison whose methods are the values.
    var comparison: ComparisonReport {
        ComparisonReport(
            version: version, date: date, model: model, data: data, machine: machine, settings: settings,
            primaryMetric: primaryMetric,
            runs: points.map { point in
                var run = point.run
                run.label = "\(field) \(point.value)"
                return run
            })
    }

    var ranking: Metric { comparison.ranking ?? .loss }

    /// The result in sentences.
    func sentences(_ numbers: NumberFormat) -> [String] {
        guard let best, let top = points.first(where: { $0.value == best })?.run.statistic(ranking) else {
            return ["No value has a finite quality."]
        }
        let metric = ranking
        let shown = metric.format(top.mean, with: numbers)
        var sentences: [String] = []
        if let plateau, let sd = top.sd, let point = points.first(where: { $0.value == plateau }) {
            let spread = metric.format(sd, with: numbers)
            if plateau == best {
                sentences.append(
                    "\(field) \(best) is the best (\(metric.name) \(shown)), and no smaller value is within one standard deviation (\(spread)) of it."
                )
            } else {
                let value = metric.format(point.run.statistic(metric)?.mean ?? .nan, with: numbers)
                sentences.append(
                    "The plateau begins at \(field) \(plateau): \(metric.name) \(value), within one standard deviation (\(spread)) of the best (\(shown) at \(best)), with \(numbers.integer(point.run.trainable)) trained parameters."
                )
            }
            if let last = points.last?.value, best == last, plateau == last {
                sentences.append("The best value is the largest one tried; a larger one may be better.")
            }
        } else {
            sentences.append(
                "\(field) \(best) has the best mean (\(metric.name) \(shown)). One seed has no standard deviation, so no plateau is marked; use --seeds 3."
            )
        }
        let between = similarity.filter { !$0.isBetweenSeeds }
        if let pair = between.max(by: {
            $0.grid.count * ($0.grid.first?.count ?? 0) < $1.grid.count * ($1.grid.first?.count ?? 0)
        }) {
            sentences.append(
                "\(numbers.decimal(pair.whole * 100, places: 0))\(numbers.space)% of the subspace of \(field) \(pair.from) lies in that of \(pair.to) (random subspaces: \(numbers.decimal(pair.random * 100, places: 0))\(numbers.space)%); their strongest directions share \(numbers.decimal(pair.first * 100, places: 0))\(numbers.space)%."
            )
        }
        return sentences
    }
}
