import Foundation
import PEFTSupport
import Training

/// A past or running run of `peft train`, `compare`, `sweep` or `neighbors`, for lists and pages.
package struct RunEntry: Sendable {
    package enum Kind: String, CaseIterable, Sendable {
        case training, comparison, sweep
        case map = "soft-prompt map"

        var heading: String {
            switch self {
            case .training: "Training runs"
            case .comparison: "Comparisons"
            case .sweep: "Sweeps"
            case .map: "Soft-prompt maps"
            }
        }
    }

    package typealias State = RunDescription.State

    package var kind: Kind
    /// The output's path, relative to the folder of runs.
    package var name: String
    package var title: String
    package var detail: String
    /// State of a training run; `finished` for reports.
    package var state: RunDescription.State
    package var date: Date
    /// The report as its command wrote it, or a ``TrainingRun``, as JSON.
    package var content: Data

    package init(
        kind: Kind, name: String, title: String, detail: String, state: RunDescription.State, date: Date,
        content: Data
    ) {
        (self.kind, self.name, self.title, self.detail) = (kind, name, title, detail)
        (self.state, self.date, self.content) = (state, date, content)
    }

    /// An entry of a training run.
    package init(_ run: TrainingRun) throws {
        let description = run.description
        self.init(
            kind: .training, name: run.name, title: "\(description.method) on \(description.data)",
            detail: run.summary, state: run.state, date: Date(timeIntervalSince1970: description.started),
            content: try ReportJSON.data(run.thinned))
    }

    /// An entry of a report; `nil` if the data are none.
    package init?(report data: Data, name: String, date: Date) {
        let numbers = NumberFormat.terminal
        if let report = try? ReportJSON.report(ComparisonReport.self, from: data) {
            let winner = report.ranking.flatMap { metric in
                report.runs.filter { $0.statistic(metric) != nil }.min {
                    metric.isBetter($0.statistic(metric)?.mean ?? .nan, than: $1.statistic(metric)?.mean ?? .nan)
                }.map { run in
                    "best: \(run.label), \(metric.name) "
                        + metric.format(run.statistic(metric)?.mean ?? .nan, with: numbers)
                }
            }
            let detail = [counted(report.runs.count, "method"), winner].compactMap(\.self).joined(separator: ", ")
            self.init(
                kind: .comparison, name: name, title: "\(report.model.name) on \(report.data.name)", detail: detail,
                state: .finished, date: Self.date(report.date) ?? date, content: data)
        } else if let report = try? ReportJSON.report(SweepReport.self, from: data) {
            let best = report.best.map { ", best: \($0)" } ?? ""
            self.init(
                kind: .sweep, name: name, title: "\(report.field) of \(report.method) on \(report.data.name)",
                detail: counted(report.points.count, "value") + best, state: .finished,
                date: Self.date(report.date) ?? date, content: data)
        } else if let report = try? ReportJSON.report(NeighborsReport.self, from: data) {
            self.init(
                kind: .map, name: name, title: "Neighbors of \(report.adapter)",
                detail: report.method, state: .finished,
                date: date, content: data)
        } else {
            return nil
        }
    }

    private static func date(_ text: String) -> Date? { ISO8601DateFormatter().date(from: text) }

    /// The training run of this entry.
    package var training: TrainingRun? {
        kind == .training ? try? ReportJSON.report(TrainingRun.self, from: content) : nil
    }

    /// The page of a report, as its command writes it, with links to other pages.
    /// - Returns: `nil` for training runs, and for content that this version can't read.
    package func reportPage(navigation: Markup) -> String? {
        switch kind {
        case .training: nil
        case .comparison:
            (try? ReportJSON.report(ComparisonReport.self, from: content))?.html(navigation: navigation)
        case .sweep: (try? ReportJSON.report(SweepReport.self, from: content))?.html(navigation: navigation)
        case .map: (try? ReportJSON.report(NeighborsReport.self, from: content))?.html(navigation: navigation)
        }
    }
}
