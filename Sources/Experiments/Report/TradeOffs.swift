import Foundation

/// The five quantities that methods trade against each other, and the Pareto frontier over them.
struct TradeOffs {
    enum Axis: String, CaseIterable {
        case quality, parameters, speed, inference, memory

        var higherIsBetter: Bool { self == .quality || self == .speed }

        /// Relative difference that counts as equal: timings and peaks vary this much from run to run.
        var tolerance: Double {
            switch self {
            case .quality, .parameters: 0
            case .speed, .inference: 0.05
            case .memory: 0.02
            }
        }
    }

    struct Entry {
        let run: ReportedRun
        let values: [Axis: Double]
        /// Whether no other method is at least as good in all five and better in one.
        var isOnFrontier = false
    }

    let metric: Metric
    private(set) var entries: [Entry]

    /// - Returns: `nil` where fewer than two trained methods have a quality.
    init?(_ report: ComparisonReport) {
        guard let metric = report.ranking else { return nil }
        self.metric = metric
        let base = report.base?.inference?.merged
        entries = report.reportedRuns.compactMap { run in
            guard run.isTrained, let quality = run.statistic(metric)?.mean else { return nil }
            var values: [Axis: Double] = [.quality: quality]
            if run.trainable > 0 { values[.parameters] = Double(run.trainable) }
            values[.speed] = run.tokensPerSecond
            values[.memory] = run.peakBytes.map(Double.init)
            values[.inference] = run.inferenceCost.map { cost in
                base == nil ? cost : (run.inference?.base ?? base).map { cost / $0 } ?? cost
            }
            return Entry(run: run, values: values.filter { $0.value.isFinite })
        }
        guard entries.count > 1 else { return nil }
        for index in entries.indices {
            entries[index].isOnFrontier = !entries.contains { other in
                other.run.id != entries[index].run.id && dominates(other, entries[index])
            }
        }
    }

    /// Whether a is at least as good as b on all axes that both have, and better on at least one.
    private func dominates(_ a: Entry, _ b: Entry) -> Bool {
        var isBetter = false
        for axis in Axis.allCases {
            guard let x = a.values[axis], let y = b.values[axis] else { continue }
            let higher = axis == .quality ? metric.higherIsBetter : axis.higherIsBetter
            let margin = abs(y) * axis.tolerance
            if higher ? x < y - margin : x > y + margin { return false }
            if higher ? x > y + margin : x < y - margin { isBetter = true }
        }
        return isBetter
    }

    /// The recommended method: the cheapest of those statistically indistinguishable in quality from the best.
    ///
    /// Cost is the product of peak memory, time per token trained, time per token generated and, as their numbers
    /// differ by powers of ten, the fourth root of the trained parameters.
    func choice(_ report: ComparisonReport) -> (entry: Entry, best: Entry, among: Int)? {
        let ranked = entries.sorted {
            metric.isBetter($0.values[.quality] ?? .nan, than: $1.values[.quality] ?? .nan)
        }
        guard let best = ranked.first else { return nil }
        let candidates = ranked.filter { entry in
            // Methods not significantly better than the base model are not recommended.
            if let base = report.base,
                report.isWithinSpread(entry.run, of: base, by: metric) == true
            {
                return false
            }
            return entry.run.id == best.run.id || report.isWithinSpread(entry.run, of: best.run, by: metric) == true
        }
        func cost(_ entry: Entry) -> Double {
            let logarithms: [Double?] = [
                entry.values[.memory].map { log($0) }, entry.values[.speed].map { -log($0) },
                entry.values[.inference].map { log($0) }, entry.values[.parameters].map { log($0) / 4 },
            ]
            return logarithms.compactMap(\.self).reduce(0, +)
        }
        guard let cheapest = candidates.min(by: { cost($0) < cost($1) }) else { return nil }
        return (cheapest, best, candidates.count)
    }
}

extension MethodRun {
    /// Milliseconds per generated token in single-adapter use: merged if the method can be merged.
    var inferenceCost: Double? { inference.map { $0.isMergeable == false ? $0.unmerged : $0.merged } }
}

extension ReportBuilder {
    /// The table of the five trade-offs.
    func tradeOffTable() -> Markup {
        guard let tradeOffs = TradeOffs(report) else { return "" }
        let axes = TradeOffs.Axis.allCases.filter { axis in tradeOffs.entries.contains { $0.values[axis] != nil } }
        let hasRetention = tradeOffs.entries.contains { $0.run.retention != nil }
        let sorted = tradeOffs.entries.sorted {
            tradeOffs.metric.isBetter($0.values[.quality] ?? .nan, than: $1.values[.quality] ?? .nan)
        }
        var heads: [Markup] = axes.map { axis in
            let (name, unit) = heading(axis, tradeOffs.metric)
            let first = axis.higherIsBetter ? "falling" : "rising"
            return
                "<th scope=\"col\" data-first=\"\(first)\">\(name) <small>\(unit)\(better(axis, tradeOffs.metric))</small></th>"
        }
        if hasRetention {
            heads.append(
                "<th scope=\"col\" data-first=\"rising\">Forgetting <small>nats/token on general text ↓<span class=\"hidden\"> lower is better</span></small></th>"
            )
        }
        let largest = axes.reduce(into: [TradeOffs.Axis: (low: Double, high: Double)]()) { result, axis in
            let values = tradeOffs.entries.compactMap { $0.values[axis] }
            result[axis] = (values.min() ?? 0, values.max() ?? 0)
        }
        let rows: [Markup] = sorted.map { entry in
            var cells: [Markup] = axes.map { axis in
                guard let value = entry.values[axis], let range = largest[axis] else {
                    return "<td>\(missing("not measured"))</td>"
                }
                let share = Self.length(value, axis, range)
                return """
                    <td data-value="\(String(value))"><span class="amount">\(figure(axis, value, entry.run, tradeOffs.metric))</span>\
                    <svg class="meter \(styles[entry.run.id].cssClass)" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">\
                    <rect class="track" width="100" height="6"/><rect class="\(isGain(axis, tradeOffs.metric) ? "fill" : "fill pale")" width="\(share * 100)" height="6"/></svg></td>
                    """
            }
            if hasRetention { cells.append(forgetting(entry.run)) }
            let mark: Markup =
                entry.isOnFrontier
                ? " <span class=\"frontier-mark\" title=\"On the Pareto frontier: no other method is as good in all five and better in one\">◆<span class=\"hidden\"> not dominated</span></span>"
                : ""
            return """
                <tr><th scope="row" data-value="\(entry.run.label)">\(styles[entry.run.id].swatch)\(entry.run.label)\(mark)</th>\(cells)</tr>
                """
        }
        let count = tradeOffs.entries.filter(\.isOnFrontier).count
        let spread = report.spread == .seeds ? " ± is the standard deviation over seeds." : ""
        return """
            <section aria-labelledby="five">
            <h2 id="five">Five trade-offs</h2>
            <p class="note">Sorted by quality. ◆ marks the \(count) \(count == 1 ? "method" : "methods") on the Pareto frontier: no other is as good in all five \
            and better in one (timings within 5\(numbers.space)% and memory within 2\(numbers.space)% count as equal). A longer bar is a \
            larger value: ↑ and full color where higher is better, ↓ and pale where lower is better. Parameters are on a \
            logarithmic scale.\(spread)</p>
            <div class="scroll" tabindex="0" role="region" aria-labelledby="five">
            <table class="sortable trade">
            <thead><tr><th scope="col" data-first="rising">Method</th>\(heads)</tr></thead>
            <tbody>
            \(rows.joined("\n"))
            </tbody>
            </table>
            </div>
            \(skippedMethods())
            </section>
            """
    }

    private func heading(_ axis: TradeOffs.Axis, _ metric: Metric) -> (String, String) {
        switch axis {
        case .quality: (metric.name, "quality")
        case .parameters: ("Parameters", "trained, share of all")
        case .speed: ("Training", "tokens/s")
        case .inference:
            ("Inference", report.base?.inference == nil ? "ms/\(report.inferenceUnit)" : "time, base = 1")
        case .memory: ("Memory", "peak while training")
        }
    }

    private func isGain(_ axis: TradeOffs.Axis, _ metric: Metric) -> Bool {
        axis == .quality ? metric.higherIsBetter : axis.higherIsBetter
    }

    /// The better direction as an arrow, with words for screen readers.
    private func better(_ axis: TradeOffs.Axis, _ metric: Metric) -> Markup {
        isGain(axis, metric)
            ? " ↑<span class=\"hidden\"> higher is better</span>" : " ↓<span class=\"hidden\"> lower is better</span>"
    }

    private func figure(_ axis: TradeOffs.Axis, _ value: Double, _ run: ReportedRun, _ metric: Metric) -> Markup {
        func spread(_ statistic: Statistic?, _ write: (Double) -> String) -> Markup {
            guard let sd = statistic?.sd, sd.isFinite else { return "" }
            return " <span class=\"spread\">±\(numbers.space)\(write(sd))</span>"
        }
        switch axis {
        case .quality:
            let value = run.statistic(metric)
            let text = value.flatMap { spreadText($0, metric) }.map {
                " <span class=\"spread\">\($0)</span>" as Markup
            }
            return "\(value.map { metric.format($0.mean, with: numbers) } ?? "")\(text ?? "")"
        case .parameters:
            return
                "\(numbers.short(value)) <span class=\"spread\">\(run.trainableShare.map(numbers.percent) ?? "")</span>"
        case .speed: return "\(numbers.significant(value))\(spread(run.speed, numbers.significant))"
        case .inference:
            let note: Markup =
                run.inference?.isMergeable == false
                ? " <span class=\"spread\" title=\"The method cannot be merged into the weights\">unmerged</span>"
                : ""
            return "\(numbers.decimal(value, places: 2))\(note)"
        case .memory: return "\(numbers.bytes(value))\(spread(run.memory, numbers.bytes))"
        }
    }

    private func forgetting(_ run: ReportedRun) -> Markup {
        guard let retention = run.retention, retention.after.mean.isFinite else {
            return "<td>\(missing("not measured"))</td>"
        }
        let change = retention.after.mean - retention.before
        let spread: Markup =
            retention.after.sd.map {
                " <span class=\"spread\">±\(numbers.space)\(numbers.decimal($0, places: 2))</span>"
            }
            ?? ""
        return "<td data-value=\"\(String(change))\">\(numbers.signed(change, places: 2))\(spread)</td>"
    }

    private func skippedMethods() -> Markup {
        guard let skipped = report.skipped, !skipped.isEmpty else { return "" }
        // Methods with the same reason are one item.
        var groups: [(labels: String, reason: String)] = []
        for method in skipped {
            if let place = groups.firstIndex(where: { $0.reason == method.reason }) {
                groups[place].labels += ", " + method.label
            } else {
                groups.append((method.label, method.reason))
            }
        }
        let items: [Markup] = groups.map { "<dt>\($0.labels)</dt><dd>\($0.reason)</dd>" }
        return """
            <details><summary>\(skipped.count) \(skipped.count == 1 ? "method was" : "methods were") skipped</summary>
            <dl class="glossary">\(items)</dl></details>
            """
    }

    /// Share of the full length that a value's bar has.
    private static func length(_ value: Double, _ axis: TradeOffs.Axis, _ range: (low: Double, high: Double))
        -> Double
    {
        guard range.high > 0, value > 0 else { return 0 }
        guard axis == .parameters, range.high > range.low, range.low > 0 else { return value / range.high }
        // The smallest keeps a tenth of the length.
        return 0.1 + 0.9 * log(value / range.low) / log(range.high / range.low)
    }
}
