import Foundation

extension ReportBuilder {
    func charts() -> Markup {
        let sections = [qualityCharts(), tradeOff(), costCharts(), curves()]
        return sections.compactMap(\.self).joined("\n")
    }

    private func figure(_ title: String, _ caption: Markup, _ drawing: Markup) -> Markup {
        """
        <figure>
        <h3>\(title)</h3>
        <figcaption>\(caption)</figcaption>
        <div class="drawing">\(drawing)</div>
        </figure>
        """
    }

    /// Drawn twice, for wide and for narrow windows, so that text has the right size in both.
    private func both(_ draw: (Double) -> Markup) -> Markup {
        "<div class=\"wide\">\(draw(540))</div><div class=\"narrow\">\(draw(350))</div>"
    }

    private func section(_ id: Markup, _ title: String, _ intro: Markup, grid: Markup, _ figures: [Markup]) -> Markup
    {
        """
        <section aria-labelledby="\(id)">
        <h2 id="\(id)">\(title)</h2>
        <p class="note">\(intro)</p>
        <div class="charts \(grid)">
        \(figures.joined("\n"))
        </div>
        </section>
        """
    }

    // MARK: - Quality

    private func qualityCharts() -> Markup? {
        let shown = report.leadingMetrics.filter { metric in report.runs.contains { $0.statistic(metric) != nil } }
        guard !shown.isEmpty else { return nil }
        let figures = shown.map { metric -> Markup in
            let rows = entries.map { run, style -> RowChart.Row in
                let value = run.statistic(metric)
                let shown = value.map { value in
                    [metric.format(value.mean, with: numbers), spreadText(value, metric)].compactMap(\.self)
                        .joined(separator: " ")
                }
                let interval = value?.interval(over: report.spread)
                return RowChart.Row(
                    label: run.label, short: report.shortLabel(run),
                    shown: shown ?? "\(NumberFormat.missing) not measured",
                    value: value.map { $0.mean * metric.scale },
                    interval: interval.map { $0.lowerBound * metric.scale...$0.upperBound * metric.scale },
                    style: style)
            }
            let chart = RowChart(rows: rows, description: describe("\(metric.name) per method", rows))
            return figure(
                metric.name, "\(metric.explanation)",
                chart.dots { value, places in numbers.decimal(value, places: places) })
        }
        let others = metrics.count > report.leadingMetrics.count ? " The table above lists the other metrics." : ""
        let hasBars = report.runs.contains { run in
            shown.contains { run.statistic($0)?.interval(over: report.spread) != nil }
        }
        let bars =
            !hasBars
            ? ""
            : report.spread == .seeds
                ? "Error bars are ± one standard deviation over seeds. "
                : "Error bars are 95\(numbers.space)% bootstrap intervals over test examples. "
        return section(
            "quality", "Quality", "\(bars)Each axis covers its own values and does not start at zero.\(others)",
            grid: "thirds", figures)
    }

    private func describe(_ subject: String, _ rows: [RowChart.Row]) -> String {
        subject + ". " + rows.map { "\($0.label): \($0.shown)" }.joined(separator: "; ") + "."
    }

    // MARK: - Trade-off and learning rates

    private func tradeOff() -> Markup? {
        let figures = [scatter(), learningRates()].compactMap(\.self)
        guard !figures.isEmpty else { return nil }
        return section(
            "trade-off", "Size and learning rate",
            "Quality against the number of trained parameters, and the search for each method's learning rate.",
            grid: "halves", figures)
    }

    private func scatter() -> Markup? {
        guard let metric = ranking else { return nil }
        let points = entries.compactMap { run, style -> ScatterChart.Point? in
            guard run.trainable > 0, let value = run.statistic(metric) else { return nil }
            return ScatterChart.Point(
                label: report.shortLabel(run), x: Double(run.trainable), y: value.mean * metric.scale,
                interval: value.interval(over: report.spread).map {
                    $0.lowerBound * metric.scale...$0.upperBound * metric.scale
                }, style: style)
        }
        guard points.count > 1 else { return nil }
        let base = report.base?.id
        let level = entries.first { $0.run.isBase && $0.run.id == base }.flatMap { run, style in
            run.statistic(metric).map { value in
                ScatterChart.Level(
                    label: "\(report.shortLabel(run)), untrained: \(metric.format(value.mean, with: numbers))",
                    y: value.mean * metric.scale, style: style)
            }
        }
        let listed = points.map {
            "\($0.label): \(numbers.decimal($0.y, places: metric.places)) at \(numbers.short($0.x)) parameters"
        }
        let chart = ScatterChart(
            points: points, level: level, xTitle: "trained parameters (log scale)", yTitle: metric.name,
            description: "\(metric.name) against trained parameters. \(listed.joined(separator: "; ")).",
            higherIsBetter: metric.higherIsBetter)
        return figure(
            "\(metric.name) against trained parameters",
            """
            \(metric.higherIsBetter ? "Up" : "Down") and to the left is better. The dotted line is the Pareto frontier: methods that no \
            other beats with fewer trained parameters.
            """, both(chart.draw))
    }

    private func learningRates() -> Markup? {
        let shown = Set(notable)
        let lines = entries.enumerated().filter { shown.contains($0.offset) }.map(\.element).compactMap {
            run, style -> LineChart.Line? in
            let trials = run.learningRateSearch
                .filter { $0.learningRate.isFinite && $0.learningRate > 0 && $0.validationLoss.isFinite }
                .sorted { $0.learningRate < $1.learningRate }
            guard !trials.isEmpty else { return nil }
            return LineChart.Line(
                label: report.shortLabel(run), style: style,
                points: trials.map { ($0.learningRate, $0.validationLoss) },
                chosen: run.learningRate, hasMarkers: true)
        }
        guard lines.contains(where: { $0.points.count > 1 }) else { return nil }
        let listed = zip(lines, lines.map { $0.points.min { $0.y < $1.y } }).compactMap { line, best in
            best.map { "\(line.label): lowest loss \(numbers.decimal($0.y, places: 3)) at \(numbers.rate($0.x))" }
        }
        let chart = LineChart(
            lines: lines, xKind: .logarithmic, xTitle: "learning rate (log scale)",
            yTitle: "validation loss (nats/token)",
            description: "Validation loss over learning rate. \(listed.joined(separator: "; ")).",
            xTick: { NumberFormat.page.rate($0) }, namesAtEnds: false)
        let lost = report.runs.flatMap(\.learningRateSearch).filter { !$0.validationLoss.isFinite }.count
        let note =
            lost > 0
            ? " \(lost) \(lost == 1 ? "trial" : "trials") diverged and \(lost == 1 ? "is" : "are") not drawn." : ""
        return figure(
            "Learning-rate search",
            """
            Validation loss of each rate tried; lower is better. A ring marks the rate used.\
            \(note)\(clipNote(chart))
            """, both(chart.draw) + legend(lines, always: true))
    }

    private func clipNote(_ chart: LineChart) -> String {
        chart.isClipped ? " Values above the axis are clipped to its top edge." : ""
    }

    /// Narrow drawings have no room for names at the ends of lines.
    private func legend(_ lines: [LineChart.Line], always: Bool = false) -> Markup {
        let items: [Markup] = lines.map { "<li>\($0.style.swatch) \($0.label)</li>" }
        return "<ul class=\"legend\(always ? " always" : "")\">\(items)</ul>"
    }

    // MARK: - Cost

    private func costCharts() -> Markup? {
        func chart(
            _ title: String, _ caption: Markup, isCost: Bool = true, includesStored: Bool = false,
            value: (ReportedRun) -> Double?,
            write: (Double) -> String, absent: (ReportedRun) -> String
        ) -> Markup? {
            let rows = entries.filter { includesStored || !$0.run.isRequantized }.map { run, style -> RowChart.Row in
                let known = value(run).flatMap { $0.isFinite ? $0 : nil }
                return RowChart.Row(
                    label: run.label, short: report.shortLabel(run),
                    shown: known.map(write) ?? "\(NumberFormat.missing) \(absent(run))", value: known, style: style)
            }
            guard rows.contains(where: { $0.value != nil }) else { return nil }
            return figure(
                "\(title) \(isCost ? "↓" : "↑")", caption,
                RowChart(rows: rows, description: describe(title, rows)).bars(areCosts: isCost))
        }
        func untrained(_ run: ReportedRun) -> String { run.isBase ? "not trained" : "not measured" }
        let figures = [
            chart(
                "Peak memory",
                "Largest resident memory of the process while training; for the base model, while evaluating. Shorter is better.",
                value: { $0.peakBytes.map(Double.init) }, write: { numbers.bytes($0) },
                absent: { _ in "not measured" }),
            chart(
                "Training speed", "Tokens per second without padding, median over seeds. Longer is better.",
                isCost: false,
                value: { $0.tokensPerSecond }, write: { numbers.significant($0) + numbers.space + "tokens/s" },
                absent: untrained),
            chart(
                "File size", "The saved adapter, or the whole model after full fine-tuning. Shorter is better.",
                value: { $0.adapterBytes.map(Double.init) }, write: { numbers.bytes($0) }, absent: untrained),
            report.showsModelSizes
                ? chart(
                    "Model size",
                    "All weight files needed to run the model, the base as stored included. Shorter is better.",
                    includesStored: true, value: { $0.modelBytes.map(Double.init) }, write: { numbers.bytes($0) },
                    absent: { _ in "not measured" }) : nil,
        ].compactMap(\.self)
        guard !figures.isEmpty else { return nil }
        return section(
            "cost", "Cost of training", "Measured on the machine named at the end of this page.",
            grid: "thirds", figures)
    }

    // MARK: - Curves

    private func curves() -> Markup? {
        let figures = [
            curve("Training loss", "On the training batches.", \.training),
            curve(
                "Validation loss", "On the validation examples. Where it rises again, the method overfits.",
                \.validation),
        ].compactMap(\.self)
        guard !figures.isEmpty else { return nil }
        let count = report.runs.filter(\.isTrained).count
        let some =
            notable.count { report.runs[$0].isTrained } < count
            ? " Shown are \(notable.count { report.runs[$0].isTrained }) of \(count) methods: full fine-tuning and the best."
            : ""
        let seeds = (report.seedCount > 1 ? " Thin lines are single seeds, thick lines their mean." : "") + some
        return section(
            "curves", "Learning curves", "Loss per target token in nats; lower is better.\(seeds)", grid: "halves",
            figures)
    }

    private func curve(_ title: String, _ caption: String, _ part: (MethodRun.Curve) -> [MethodRun.Point]) -> Markup?
    {
        let limit = 120
        var lost: [String] = []
        var isThinned = false
        let shown = Set(notable)
        let lines = entries.enumerated().filter { shown.contains($0.offset) }.map(\.element).compactMap {
            run, style -> LineChart.Line? in
            let seeds = run.curves.map { part($0).map { (x: Double($0.step), y: $0.loss) } }
            if seeds.contains(where: { $0.contains { !$0.y.isFinite } }) { lost.append(run.label) }
            let mean = Curves.mean(seeds)
            guard mean.count > 1 else { return nil }
            isThinned = isThinned || mean.count > limit
            let strands = seeds.count > 1 ? seeds.map { Curves.thinned($0.sorted { $0.x < $1.x }, to: limit) } : []
            return LineChart.Line(
                label: report.shortLabel(run), style: style, points: Curves.thinned(mean, to: limit), strands: strands
            )
        }
        guard !lines.isEmpty else {
            guard !lost.isEmpty else { return nil }
            return figure(title, "\(caption)", "<p class=\"note\">\(divergence(lost)) There is nothing to draw.</p>")
        }
        let listed = lines.compactMap { line in
            line.points.last.map { "\(line.label) ends at \(numbers.decimal($0.y, places: 3))" }
        }
        let chart = LineChart(
            lines: lines, xKind: .linear, xTitle: "step", yTitle: "nats per target token",
            description: "\(title) over steps. \(listed.joined(separator: "; ")).",
            xTick: { $0 < 1e5 ? NumberFormat.page.integer(Int($0)) : NumberFormat.page.short($0) })
        let thinned = isThinned ? " Each point is the mean of neighboring steps." : ""
        let note = lost.isEmpty ? "" : " " + divergence(lost)
        return figure(title, "\(caption)\(thinned)\(clipNote(chart))\(note)", both(chart.draw) + legend(lines))
    }

    private func divergence(_ labels: [String]) -> String {
        "\(labels.joined(separator: ", ")): the loss was NaN or infinite at some steps, which are not drawn."
    }
}
