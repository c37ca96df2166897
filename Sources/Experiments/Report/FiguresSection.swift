import Foundation

/// The table of all results, and what each column means.
extension ReportBuilder {
    func figures() -> Markup {
        guard !report.runs.isEmpty else { return "" }
        let columns = self.columns()
        let heads: [Markup] = columns.map { column in
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
        /// Text after a newline is set smaller beneath.
        var title: String
        /// The metric of a column of quality.
        var metric: Metric?
        var unit = ""
        /// Whether large values are what a reader looks for first.
        var falling = false
        var explanation: String
        var cells: [Cell]
    }

    /// Decisive columns first; columns that only document the run last.
    private func columns() -> [Column] {
        let leading = report.leadingMetrics
        var columns = leading.map(quality) + quantizationColumns() + distanceToTheBest() + costColumns()
        columns += metrics.filter { !leading.contains($0) }.map(quality)
        if report.runs.contains(where: { $0.loss != nil }) { columns.append(quality(.loss)) }
        return columns + trainingColumns()
    }

    private func costColumns() -> [Column] {
        [
            column(
                "Trainable", unit: "parameters",
                explanation: "Trained parameters. Optimizer state and gradients grow with them.",
                value: { $0.isRequantized ? nil : Double($0.trainable) }, write: { numbers.decimal($0, places: 0) },
                reason: untrained),
            column(
                "Share",
                explanation: "Trainable parameters divided by all parameters, those of the adapter included.",
                value: { $0.isRequantized ? nil : $0.trainableShare }, write: numbers.percent,
                reason: { $0.isRequantized ? untrained($0) : "the total is unknown" }),
            column(
                "Speed", unit: "tokens/s", falling: true,
                explanation: "Training throughput in tokens per second, without padding, median over seeds.",
                value: { $0.tokensPerSecond }, write: numbers.significant, reason: untrained),
            column(
                "Peak\nmemory",
                explanation: "Largest resident memory of the whole process while training; for the untrained model, "
                    + "while evaluating. 1 GB is 10⁹ bytes.",
                value: { $0.peakBytes.map(Double.init) }, write: numbers.bytes, reason: { _ in "not measured" }),
            column(
                "File\nsize",
                explanation:
                    "Size of the saved adapter, or of the whole model after full fine-tuning.",
                value: { $0.adapterBytes.map(Double.init) }, write: numbers.bytes, reason: untrained),
            column(
                "ms/\(report.inferenceUnit)", unit: "merged",
                explanation:
                    "Milliseconds per generated token (greedy decoding, batch size 1) with the adapter merged into the weights.",
                value: { $0.inference?.merged }, write: numbers.significant, reason: { _ in "not measured" }),
            column(
                "ms/\(report.inferenceUnit)", unit: "unmerged",
                explanation:
                    "The same with the adapter unmerged, which is how several adapters share one base model.",
                value: { $0.inference?.unmerged }, write: numbers.significant, reason: { _ in "not measured" }),
        ]
    }

    private func trainingColumns() -> [Column] {
        var columns = [
            column(
                "Learning\nrate",
                explanation:
                    "Peak learning rate of the schedule; if several were tried, the one with the lowest validation loss.",
                value: { $0.learningRate }, write: numbers.rate, reason: untrained),
            column(
                "Steps", explanation: "Optimizer steps of each training run.",
                value: { $0.steps > 0 ? Double($0.steps) : nil }, write: { numbers.decimal($0, places: 0) },
                reason: untrained),
            column(
                "Training\ntime", explanation: "Wall-clock time of one training run on the machine named below.",
                value: { $0.trainingSeconds }, write: { numbers.duration(seconds: $0) }, reason: untrained),
        ]
        if let text = report.runs.compactMap(\.retention).first?.text {
            columns.append(
                column(
                    "Forgetting", unit: "nats/token",
                    explanation:
                        "Increase of the loss on general text (\(text)) through training, mean over seeds; negative if it fell.",
                    value: { $0.retention.map { $0.after.mean - $0.before } },
                    write: { numbers.signed($0, places: 3) }, reason: { _ in "not measured" }))
        }
        if report.runs.contains(where: { $0.inference?.largestDifference != nil }) {
            columns.append(
                column(
                    "Merge drift", unit: "largest logit",
                    explanation:
                        "Largest absolute difference of any logit between merged and unmerged: the rounding error of merging.",
                    value: { $0.inference?.largestDifference }, write: numbers.rate,
                    reason: { _ in "nothing to merge" }))
        }
        return columns
    }

    private func untrained(_ run: ReportedRun) -> String {
        run.isBase ? "not trained" : run.isRequantized ? "a quantized copy of another method's model" : "not measured"
    }

    private func column(
        _ title: String, unit: String = "", falling: Bool = false, explanation: String,
        value: (ReportedRun) -> Double?, write: (Double) -> String, reason: (ReportedRun) -> String
    ) -> Column {
        let cells = report.reportedRuns.map { run -> Cell in
            guard let value = value(run) else { return Cell(missing(reason(run)), value: nil) }
            guard value.isFinite else { return Cell(missing("not a finite number"), value: nil) }
            return Cell("\(write(value))", value: value)
        }
        return Column(title: title, unit: unit, falling: falling, explanation: explanation, cells: cells)
    }

    private func quality(_ metric: Metric) -> Column {
        let leader = report.best(of: report.reportedRuns, by: metric), best = leader?.statistic(metric)
        let cells = report.reportedRuns.map { run -> Cell in
            guard let value = run.statistic(metric) else {
                let known = metric == .loss ? run.loss : run.quality[metric.key]
                return Cell(missing(known == nil ? "not measured" : "not a finite number"), value: nil)
            }
            var content: Markup = "<span class=\"mean\">\(metric.format(value.mean, with: numbers))</span>"
            if let spread = spreadText(value, metric) { content += " <span class=\"spread\">\(spread)</span>" }
            guard let leader, let best, report.runs.count > 1 else { return Cell(content, value: value.mean) }
            if value.mean == best.mean {
                return Cell(content + "<span class=\"hidden\"> best</span>", value: value.mean, cssClass: "best")
            }
            if report.isWithinSpread(run, of: leader, by: metric) == true {
                content =
                    "<span class=\"spread\" aria-hidden=\"true\">≈ </span>\(content)<span class=\"hidden\"> statistically indistinguishable from the best</span>"
            }
            return Cell(content, value: value.mean)
        }
        return Column(
            title: metric.name, metric: metric, unit: metric == .loss ? "nats/token" : "",
            falling: metric.higherIsBetter, explanation: metric.explanation, cells: cells)
    }

    /// The change from quantizing trained models, and the sizes of the models.
    private func quantizationColumns() -> [Column] {
        guard report.showsModelSizes else { return [] }
        var columns = [
            column(
                "Model\nsize",
                explanation:
                    "Size of all weight files needed to run the model: the base as stored plus the "
                    + "adapter, or the whole model if the adapter was merged.",
                value: { $0.modelBytes.map(Double.init) }, write: numbers.bytes, reason: { _ in "not measured" })
        ]
        guard report.runs.contains(where: \.isRequantized), let metric = ranking else { return columns }
        let cells = report.reportedRuns.map { run -> Cell in
            guard run.isRequantized else { return Cell(missing("the trained model itself"), value: nil) }
            guard let difference = report.quantizationChange(run, by: metric) else {
                return Cell(missing("no interval available"), value: nil)
            }
            let parts = metric.format(difference, with: numbers)
            return Cell("\(parts.value) <span class=\"spread\">\(parts.interval)</span>", value: difference.value)
        }
        columns.insert(
            Column(
                title: "Quantization", unit: "Δ \(metric.name)", falling: metric.higherIsBetter,
                explanation:
                    "Change from merging the adapter and quantizing the model, with the 95\(numbers.space)% "
                    + "interval of the paired difference on the same test examples (and seeds).",
                cells: cells), at: 0)
        return columns
    }

    /// The difference of each run from the best by the ranking metric, with its interval.
    private func distanceToTheBest() -> [Column] {
        guard report.runs.count > 1, let metric = ranking, let best = report.best(of: report.reportedRuns, by: metric)
        else {
            return []
        }
        let top = best.statistic(metric)?.mean
        let differences = report.reportedRuns.map { report.difference(of: $0, to: best, by: metric) }
        guard differences.contains(where: { $0 != nil }) else { return [] }
        let cells = zip(report.reportedRuns, differences).map { run, difference -> Cell in
            if run.statistic(metric)?.mean == top { return Cell(missing("the best"), value: 0) }
            guard let difference else { return Cell(missing("no interval available"), value: nil) }
            let parts = metric.format(difference, with: numbers)
            return Cell("\(parts.value) <span class=\"spread\">\(parts.interval)</span>", value: difference.value)
        }
        return [
            Column(
                title: "vs. best", unit: metric.name, falling: metric.higherIsBetter,
                explanation: "Difference from the best method with its 95\(numbers.space)% interval: "
                    + (report.hasDifferences
                        ? "a paired bootstrap over the test examples and, with several seeds, the variance over seeds"
                        : "the variance over seeds")
                    + ". If the interval contains 0, the two are statistically indistinguishable.",
                cells: cells)
        ]
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
            let title = column.title.replacing("\n", with: " ")
            return (column.unit.isEmpty ? title : "\(title) (\(column.unit))", column.explanation)
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
