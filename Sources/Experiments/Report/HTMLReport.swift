import Foundation
import PEFTSupport

extension ComparisonReport {
    /// The comparison as one HTML page: the verdict first, then results, charts, sample outputs and how to
    /// reproduce the run.
    ///
    /// The page loads nothing, follows the reader's light or dark scheme, and is well-formed XML. Everything
    /// in the report, model outputs included, is escaped.
    public func html() -> String { html(navigation: .empty) }

    /// The same with links to other pages of a server.
    package func html(navigation: Markup) -> String {
        let builder = ReportBuilder(self)
        let sections: [Markup] = [
            builder.opening(), builder.tradeOffTable(), builder.figures(), builder.charts(), builder.samples(),
            builder.recipe(),
        ]
        return HTMLPage(title: builder.title, body: sections.joined("\n"), navigation: navigation).markup.text
    }
}

/// The report, its metrics, and the style of each run, shared by the sections of the page.
struct ReportBuilder {
    let report: ComparisonReport
    let numbers = NumberFormat.page
    let styles: [SeriesStyle]
    let metrics: [Metric]
    let ranking: Metric?

    init(_ report: ComparisonReport) {
        self.report = report
        styles = report.styles
        metrics = report.metrics
        ranking = report.ranking
    }

    /// Runs with their styles.
    var entries: [(run: ReportedRun, style: SeriesStyle)] { zip(report.reportedRuns, styles).map { ($0, $1) } }

    /// Indices of the runs shown in crowded charts: all, or of more than ten the untrained model, full fine-tuning and the
    /// six best others.
    var notable: [Int] {
        guard report.runs.count > 10, let metric = ranking else { return Array(report.runs.indices) }
        let ranked = report.runs.indices.filter {
            report.runs[$0].isAdapter && report.runs[$0].statistic(metric) != nil
        }
        .sorted {
            metric.isBetter(
                report.runs[$0].statistic(metric)?.mean ?? .nan, than: report.runs[$1].statistic(metric)?.mean ?? .nan
            )
        }
        let shown = Set(ranked.prefix(6))
        return report.runs.indices.filter { index in
            let run = report.runs[index]
            return shown.contains(index) || run.source.map(shown.contains) ?? !run.isAdapter
        }
    }

    var title: String { "\(report.model.name) on \(report.data.name)" }

    /// A dash with its reason as a tooltip.
    func missing(_ reason: String) -> Markup {
        "<span class=\"none\" title=\"\(reason)\">\(NumberFormat.missing)<span class=\"hidden\"> (\(reason))</span></span>"
    }

    // MARK: - Opening

    func opening() -> Markup {
        let verdict = Verdict(report, numbers: numbers)
        let trained = report.runs.filter(\.isTrained).count
        let stored = report.runs.filter(\.isRequantized).count
        let count = report.runs.count - stored
        let seeds = report.seedCount
        let scope = [
            "\(count) \(count == 1 ? "method" : "methods")",
            stored == 0 ? nil : "\(stored) of their models also quantized",
            trained == 0 || seeds == 0 ? nil : seeds == 1 ? "one seed" : "\(seeds) seeds",
            report.data.testRows > 0 ? counted(report.data.testRows, "test example") : nil,
            String(report.date.prefix(10)),
        ]
        var lead: Markup = ""
        let others = [verdict.rivals, verdict.frugal].compactMap(\.self).joined(separator: " ")
        let shipping = verdict.shipping.joined(separator: " ")
        for paragraph in [
            verdict.choice ?? "", verdict.quality.joined(separator: " "), verdict.cost ?? "", others, shipping,
        ]
        where !paragraph.isEmpty {
            lead += "<p>\(paragraph)</p>\n"
        }
        if let sentence = report.baselineSentence(numbers) { lead += "<p>\(sentence)</p>\n" }
        if let spread = verdict.spread { lead += "<p class=\"note\">\(spread)</p>\n" }
        return """
            <header>
            <h1>\(title)</h1>
            <p class="soft">Fine-tuning methods compared: \(scope.compactMap(\.self).joined(separator: ", "))</p>
            </header>
            <section class="lead" aria-label="Verdict">
            \(lead)</section>
            \(keyFigures())
            """
    }

    private func keyFigures() -> Markup {
        guard let run = report.subject else { return "" }
        let full = run.isAdapter ? report.full : nil
        var tiles: [Markup] = []
        func tile(_ name: String, _ figure: String, unit: String = "", aside: String) {
            let small: Markup = unit.isEmpty ? "" : " <small>\(unit)</small>"
            tiles.append(
                """
                <div class="tile"><dt>\(name)</dt><dd><div class="figure">\(figure)\(small)</div><div class="aside">\(aside)</div></dd></div>
                """)
        }
        if let metric = ranking, let value = run.statistic(metric) {
            tile(metric.name, metric.format(value.mean, with: numbers), aside: distances(run, value, metric))
        }
        if run.trainable > 0 {
            tile(
                "Trained parameters", run.trainableShare.map(numbers.percent) ?? numbers.short(Double(run.trainable)),
                aside: "\(numbers.integer(run.trainable)) of \(numbers.short(Double(run.total)))")
        }
        if let bytes = run.peakBytes {
            let share = full?.peakBytes.map { full in
                "\(numbers.decimal(Double(bytes) / Double(max(full, 1)) * 100, places: 0))\(numbers.space)% of full fine-tuning's"
            }
            tile(
                "Peak memory", numbers.bytes(bytes),
                aside: share ?? (run.isBase ? "while evaluating" : "while training"))
        }
        if let speed = run.tokensPerSecond, speed.isFinite {
            let other = full?.tokensPerSecond.flatMap { $0.isFinite ? $0 : nil }
            tile(
                "Training speed", numbers.significant(speed), unit: "tokens/s",
                aside: other.map { "full fine-tuning \(numbers.significant($0))" } ?? "without padding")
        }
        if let bytes = run.adapterBytes {
            tile(
                "File size", numbers.bytes(bytes),
                aside: full?.adapterBytes.map { "full fine-tuning \(numbers.bytes($0))" } ?? "")
        }
        if let inference = run.inference, inference.merged.isFinite {
            let beside = inference.unmerged.isFinite ? "unmerged \(numbers.significant(inference.unmerged))" : ""
            tile(
                "Inference", numbers.significant(inference.merged), unit: "ms/\(report.inferenceUnit)",
                aside: run.isAdapter ? "merged; \(beside)" : "")
        }
        guard !tiles.isEmpty else { return "" }
        return """
            <section aria-label="Key figures">
            <p class="note">Key figures of <strong>\(run.label)</strong></p>
            <dl class="keys">
            \(tiles.joined("\n"))
            </dl>
            </section>
            """
    }

    private func distances(_ run: ReportedRun, _ value: Statistic, _ metric: Metric) -> String {
        var parts: [String] = []
        for (other, name) in [(report.base, "base"), (report.full, "full")] {
            guard let other, other.method != run.method, let level = other.statistic(metric) else { continue }
            let difference = numbers.signed(
                metric.rounded(value.mean) - metric.rounded(level.mean), places: metric.places)
            let hedge = report.isWithinSpread(run, of: other, by: metric) == true ? " (not significant)" : ""
            parts.append("\(difference) vs. \(name)\(hedge)")
        }
        return parts.joined(separator: ", ")
    }
}
