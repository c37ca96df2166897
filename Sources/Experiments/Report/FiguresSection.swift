import Foundation

/// The table of all results, and what each column means.
extension ReportBuilder {
    func figures() -> Markup {
        guard !report.runs.isEmpty else { return "" }
        let columns = pageColumns()
        let heads: [Markup] = columns.map(\.page).map { column in
            let lines = column.title.split(separator: "\n").map(String.init)
            let small: [Markup] = (lines.dropFirst() + [column.unit]).filter { !$0.isEmpty }.map {
                " <small>\($0)</small>"
            }
            let first = column.falling ? "falling" : "rising"
            return "<th scope=\"col\" data-first=\"\(first)\">\(lines.first ?? "")\(small)</th>"
        }
        let rows: [Markup] = entries.enumerated().map { index, entry in
            let cells: [Markup] = columns.map { $0.cells[index].markup }
            return """
                <tr><th scope="row" data-value="\(entry.run.label)">\(entry.style.swatch)\(entry.run.label)</th>\(cells)</tr>
                """
        }
        return """
            <section aria-labelledby="figures">
            <h2 id="figures">All results</h2>
            <p class="note">\(tableNote)</p>
            <div class="scroll" tabindex="0" role="region" aria-labelledby="figures">
            <table class="sortable">
            <thead><tr><th scope="col" data-first="rising">Method</th>\(heads)</tr></thead>
            <tbody>
            \(rows.joined("\n"))
            </tbody>
            \(baselineRows(columns))</table>
            </div>
            <details>
            <summary>What the columns mean</summary>
            \(glossary(columns))
            </details>
            </section>
            """
    }

    private var tableNote: String {
        var sentences: [String] = []
        if report.runs.count > 1 {
            sentences.append(
                "Bold marks the best value of a quality column, ≈ values that are statistically indistinguishable from it."
            )
        }
        if report.spread == .seeds {
            sentences.append("± is the standard deviation over seeds.")
        } else if hasIntervals {
            sentences.append("Brackets show the 95\(numbers.space)% bootstrap interval over test examples.")
        }
        sentences.append("Hover over a dash (\(NumberFormat.missing)) for its reason.")
        if report.runs.count > 1 { sentences.append("Click a heading to sort.") }
        return sentences.joined(separator: " ")
    }

    /// Model-free baselines, beneath the methods.
    private func baselineRows(_ columns: [Column]) -> Markup {
        guard let baselines = report.baselines, !baselines.isEmpty else { return "" }
        let rows: [Markup] = baselines.map { baseline in
            let cells: [Markup] = columns.map { column in
                guard let metric = column.metric, let value = baseline.statistic(metric) else {
                    return Cell(missing("not applicable without a model"), value: nil).markup
                }
                var content: Markup = "<span class=\"mean\">\(metric.format(value.mean, with: numbers))</span>"
                if let spread = spreadText(value, metric) { content += " <span class=\"spread\">\(spread)</span>" }
                return Cell(content, value: value.mean).markup
            }
            return "<tr><th scope=\"row\">\(baseline.label)<br/><small>model-free baseline</small></th>\(cells)</tr>"
        }
        return "<tbody class=\"baselines\">\n\(rows.joined("\n"))\n</tbody>\n"
    }

    private var hasIntervals: Bool {
        report.runs.contains { run in metrics.contains { run.statistic($0)?.interval(over: report.spread) != nil } }
    }

    // MARK: - Columns

    private struct Cell {
        var markup: Markup

        init(_ content: Markup, value: Double?, cssClass: String = "") {
            // Sorting compares these numbers; a missing one goes last.
            let data: Markup = value.flatMap { $0.isFinite ? " data-value=\"\(String($0))\"" : nil } ?? ""
            let named: Markup = cssClass.isEmpty ? "" : " class=\"\(cssClass)\""
            markup = "<td\(named)\(data)>\(content)</td>"
        }
    }

    private struct Column {
        let page: ReportColumn.Page
        /// The metric of a column of quality.
        let metric: Metric?
        let cells: [Cell]
    }

    /// The report's columns, by section.
    private func pageColumns() -> [Column] {
        let all = report.columns
        return ReportColumn.Page.Section.allCases.flatMap { section in
            all.compactMap { column in
                guard let page = column.page, page.section == section else { return nil }
                switch column.content {
                case .quality(let metric): return Column(page: page, metric: metric, cells: qualityCells(metric))
                case .number(let number): return Column(page: page, metric: nil, cells: cells(number))
                case .difference(let metric, let cell):
                    return Column(
                        page: page, metric: nil, cells: report.reportedRuns.map { self.cell(cell($0), metric) })
                }
            }
        }
    }

    private func cells(_ number: ReportColumn.Number) -> [Cell] {
        report.reportedRuns.map { run in
            guard let value = number.value(run) else { return Cell(missing(number.reason(run)), value: nil) }
            guard value.isFinite else { return Cell(missing("not a finite number"), value: nil) }
            return Cell("\(number.write(numbers, value))", value: value)
        }
    }

    private func cell(_ cell: ReportColumn.DifferenceCell, _ metric: Metric) -> Cell {
        switch cell {
        case .difference(let difference):
            let parts = metric.format(difference, with: numbers)
            return Cell("\(parts.value) <span class=\"spread\">\(parts.interval)</span>", value: difference.value)
        case .unknown: return Cell(missing("no interval available"), value: nil)
        case .reference(_, let reason, let value): return Cell(missing(reason), value: value)
        }
    }

    private func qualityCells(_ metric: Metric) -> [Cell] {
        let all = report.reportedRuns
        let leader = report.best(of: all, by: metric), best = leader?.statistic(metric)
        return all.map { run in
            guard let value = run.statistic(metric) else {
                let known = metric == .loss ? run.loss : run.quality[metric.key]
                return Cell(missing(known == nil ? "not measured" : "not a finite number"), value: nil)
            }
            var content: Markup = "<span class=\"mean\">\(metric.format(value.mean, with: numbers))</span>"
            if let spread = spreadText(value, metric) { content += " <span class=\"spread\">\(spread)</span>" }
            guard let leader, let best, all.count > 1 else { return Cell(content, value: value.mean) }
            if value.mean == best.mean {
                return Cell(content + "<span class=\"hidden\"> best</span>", value: value.mean, cssClass: "best")
            }
            if report.isWithinSpread(run, of: leader, by: metric) == true {
                content =
                    "<span class=\"spread\" aria-hidden=\"true\">≈ </span>\(content)<span class=\"hidden\"> statistically indistinguishable from the best</span>"
            }
            return Cell(content, value: value.mean)
        }
    }

    /// `± 0.4` over seeds, `[41.1, 45.0]` over rows.
    func spreadText(_ value: Statistic, _ metric: Metric) -> String? {
        guard let interval = value.interval(over: report.spread) else { return nil }
        if report.spread == .seeds, let sd = value.sd {
            return "±\(numbers.space)\(metric.format(sd, with: numbers))"
        }
        let low = metric.format(interval.lowerBound, with: numbers)
        return "[\(low), \(metric.format(interval.upperBound, with: numbers))]"
    }

    // MARK: - Glossary

    private func glossary(_ columns: [Column]) -> Markup {
        var terms = columns.map { column in
            let page = column.page
            let title = page.title.replacing("\n", with: " ")
            return (page.unit.isEmpty ? title : "\(title) (\(page.unit))", page.explanation)
        }
        if report.spread == .seeds {
            terms.insert(
                (
                    "±",
                    "Standard deviation over \(report.seedCount) seeds: how much a value varies when only the random seed of "
                        + "training changes. With few seeds it is a rough estimate. The base model is not trained and "
                        + "has none."
                ), at: 0)
        }
        if report.spread == .testRows, hasIntervals {
            terms.insert(
                (
                    "[low, high]",
                    "95\(numbers.space)% bootstrap interval over test examples: how much the mean would vary with other examples of "
                        + "the same distribution. It does not cover other seeds."
                ), at: 0)
        }
        let items: [Markup] = terms.map { "<dt>\($0.0)</dt><dd>\($0.1)</dd>" }
        return "<dl class=\"glossary\">\(items)</dl>"
    }
}
