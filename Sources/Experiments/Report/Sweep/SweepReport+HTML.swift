import PEFTSupport

extension SweepReport {
    /// The sweep as one self-contained HTML page.
    package func html(navigation: Markup = .empty) -> String {
        let builder = ReportBuilder(comparison)
        let numbers = NumberFormat.page
        let title = "\(field.capitalized) of \(method) on \(data.name)"
        let lead: [Markup] = sentences(numbers).map { "<p>\($0)</p>" }
        let seeds = comparison.seedCount
        let scope = [
            counted(points.count, "value"), "\(seeds) \(seeds == 1 ? "seed" : "seeds") each", model.name,
            counted(data.testRows, "test example"), String(date.prefix(10)),
        ].joined(separator: ", ")
        let sections: [Markup] = [
            """
            <header>
            <h1>\(title)</h1>
            <p class="soft">One field varied, everything else equal: \(scope)</p>
            </header>
            <section class="lead" aria-label="Result">
            \(lead.joined("\n"))
            </section>
            """,
            chartSection(builder), similaritySection(builder), builder.figures(), builder.recipe(),
        ]
        return HTMLPage(title: title, body: sections.joined("\n"), navigation: navigation).markup.text
    }

    private func chartSection(_ builder: ReportBuilder) -> Markup {
        let numbers = NumberFormat.page
        let style = SeriesStyle(color: 2, shape: .circle)
        let positions = positions
        var figures: [Markup] = []
        for metric in [ranking, .loss] where figures.isEmpty || metric != ranking {
            let line = points.enumerated().compactMap { index, point in
                point.run.statistic(metric).map { (x: positions.values[index], y: $0.mean * metric.scale) }
            }
            let spreads = builder.report.spread
            let intervals = points.compactMap { $0.run.statistic(metric) }.map { statistic in
                statistic.interval(over: spreads).map {
                    $0.lowerBound * metric.scale...$0.upperBound * metric.scale
                }
            }
            guard line.count > 1 else { continue }
            let seeds = points.map { $0.run.statistic(metric)?.values.count ?? 0 }.max() ?? 0
            let strands = (0..<(seeds > 1 ? seeds : 0)).map { seed in
                points.enumerated().compactMap { index, point -> (x: Double, y: Double)? in
                    guard let values = point.run.statistic(metric)?.values, seed < values.count else { return nil }
                    return (positions.values[index], values[seed] * metric.scale)
                }
            }
            let chosen = plateau.flatMap { value in points.firstIndex { $0.value == value } }
            let names = points.map(\.value)
            let isLogarithmic = positions.isLogarithmic
            let chart = LineChart(
                lines: [
                    .init(
                        label: metric.name, style: style, points: line, strands: strands, intervals: intervals,
                        chosen: chosen.map { positions.values[$0] }, hasMarkers: true)
                ],
                xKind: isLogarithmic ? .logarithmic : .linear,
                xTitle: isLogarithmic ? "\(field) (log scale)" : field, yTitle: metric.name,
                description:
                    "\(metric.name) over \(field). "
                    + zip(names, line).map { "\($0): \(numbers.decimal($1.y, places: metric.places))" }
                    .joined(separator: "; ") + ".",
                xTick: { position in
                    if isLogarithmic { return numbers.short(position) }
                    let index = Int(position.rounded())
                    return abs(position - Double(index)) < 1e-6 && names.indices.contains(index) ? names[index] : ""
                }, namesAtEnds: false, xTicks: isLogarithmic ? positions.values : nil)
            let spread: Markup =
                seeds > 1
                ? "The thick line is the mean, thin lines are single seeds. "
                : "One seed, so the variance is unknown. "
            let ring: Markup =
                plateau == nil ? "" : "The ring marks the smallest value within one standard deviation of the best. "
            let bars: Markup =
                !intervals.contains { $0 != nil }
                ? ""
                : spreads == .seeds
                    ? "Error bars are ± one standard deviation over seeds. "
                    : "Error bars are 95\(numbers.space)% bootstrap intervals over test examples. "
            figures.append(
                """
                <figure><h3>\(metric.name)</h3><figcaption>\(spread)\(bars)\(ring)\(metric.explanation)</figcaption>
                <div class="drawing"><div class="wide">\(chart.draw(width: 540))</div><div class="narrow">\(chart.draw(width: 350))</div></div></figure>
                """)
        }
        return """
            <section aria-labelledby="values"><h2 id="values">Quality over \(field)</h2>
            <div class="charts halves">
            \(figures.joined("\n"))
            </div></section>
            """
    }

    /// Positions of the values on the axis: the numbers themselves, or their order if they are names.
    private var positions: (values: [Double], isLogarithmic: Bool) {
        let numbers = points.map { Double($0.value) ?? .nan }
        guard numbers.allSatisfy({ $0.isFinite && $0 > 0 }) else { return (points.indices.map(Double.init), false) }
        return (numbers, true)
    }

    private func similaritySection(_ builder: ReportBuilder) -> Markup {
        let pairs = similarity.filter { !$0.isBetweenSeeds }
        func cells(_ pair: SubspaceSimilarity) -> Int { pair.grid.count * (pair.grid.first?.count ?? 0) }
        guard let largest = pairs.max(by: { cells($0) < cells($1) }) else { return "" }
        let numbers = NumberFormat.page
        let style = SeriesStyle(color: 1, shape: .square)
        // The largest value against the plateau shows whether the additional directions matter.
        let second =
            pairs.first { $0.from == plateau && $0.to == largest.to && cells($0) != cells(largest) }
            ?? similarity.filter(\.isBetweenSeeds).max { cells($0) < cells($1) }
        let maps: [Markup] = [largest, second].compactMap(\.self).map { pair in
            let to = pair.isBetweenSeeds ? "\(pair.to), another seed" : pair.to
            let map = HeatMap(
                values: pair.grid, rowTitle: "directions of \(field) \(pair.from)",
                columnTitle: "directions of \(field) \(to)",
                description:
                    "Subspace similarity of \(field) \(pair.from) and \(to): \(numbers.decimal(pair.whole, places: 2)) with all directions.",
                style: style)
            return """
                <figure><h3>\(field) \(pair.from) and \(to)</h3>
                <figcaption>φ is \(numbers.decimal(pair.whole, places: 2)) for all directions and \(numbers.decimal(pair.first, places: 2)) for the first of each; \
                random subspaces have \(numbers.decimal(pair.random, places: 2)).</figcaption>
                <div class="drawing">\(map.draw())</div></figure>
                """
        }
        let rows: [Markup] = similarity.map { pair in
            """
            <tr><th scope="row">\(pair.from)</th><td>\(pair.isBetweenSeeds ? "another seed" : pair.to)</td>\
            <td>\(numbers.decimal(pair.whole, places: 3))</td><td>\(numbers.decimal(pair.first, places: 3))</td>\
            <td>\(numbers.decimal(pair.random, places: 3))</td></tr>
            """
        }
        return """
            <section aria-labelledby="subspaces"><h2 id="subspaces">Subspaces</h2>
            <p class="note">Similarity φ of the subspaces spanned by two adapters' A matrices (Hu et al. 2021, eq. 4), between 0 \
            (orthogonal) and 1 (contained), averaged over the projections. Row i and column j of a heat map use the strongest i and j directions.</p>
            <div class="charts halves">\(maps.joined("\n"))</div>
            <details><summary>All pairs</summary><div class="scroll"><table><thead><tr><th scope="col">\(field)</th><th scope="col">against</th>\
            <th scope="col">all directions</th><th scope="col">first of each</th><th scope="col">random</th></tr></thead>
            <tbody>\(rows.joined("\n"))</tbody></table></div></details></section>
            """
    }
}
