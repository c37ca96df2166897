extension ComparisonReport {
    /// The comparison as an aligned table for a terminal, followed by the verdict in sentences.
    ///
    /// Long labels wrap first; then the least important columns are dropped until the table fits.
    /// - Parameters:
    ///   - color: whether to mark the best values with ANSI bold green.
    ///   - width: width of the terminal in columns.
    public func table(color: Bool, width: Int = 120) -> String {
        let all = allColumns()
        var columns = all
        columns[0].wrap(to: max(columns[0].longestWord, columns[0].width - columns.overhang(width)))
        while columns.overhang(width) > 0, let index = columns.leastImportant { columns.remove(at: index) }

        var out = columns.header
        for row in 0..<(runs.count + (baselines ?? []).count) {
            if row == runs.count { out.append("model-free baselines") }
            if let heading = familyHeading(before: row) { out.append(heading) }
            out += columns.row(row, color: color)
        }
        out.append("")
        let sentences =
            (Verdict(self, numbers: .terminal).sentences + [baselineSentence(.terminal)].compactMap(\.self))
            .joined(separator: " ")
        let textWidth = min(max(width, 40), 100)
        out += TerminalText.wrapped(TerminalText.printable(sentences), width: textWidth)
        for note in notes(columns, dropped: all.count - columns.count) {
            out += TerminalText.wrapped(note, width: textWidth)
        }
        return out.joined(separator: "\n") + "\n"
    }

    private func allColumns() -> [TerminalColumn] {
        let labels = runs.map(\.label) + (baselines ?? []).map(\.label)
        return [TerminalColumn(title: "method", texts: labels)] + terminalColumns(columns)
    }

    /// The columns that the terminal shows.
    func terminalColumns(_ columns: [ReportColumn]) -> [TerminalColumn] {
        columns.compactMap { column in
            column.terminal.map {
                TerminalColumn(title: $0.title, importance: $0.importance, cells: cells(column.content, $0))
            }
        }
    }

    /// The cells of all runs and baselines. Baselines have a quality and no cost.
    private func cells(_ content: ReportColumn.Content, _ terminal: ReportColumn.Terminal) -> [[TerminalCell]] {
        let numbers = NumberFormat.terminal
        let texts: [String?]
        switch content {
        case .quality(let metric): return qualityCells(metric)
        case .number(let number):
            texts = reportedRuns.map { run in
                if let write = terminal.write { return write(numbers, run) }
                return number.value(run).map { number.write(numbers, $0) }
            }
        case .difference(let metric, let cell):
            texts = reportedRuns.map { run in
                switch cell(run) {
                case .difference(let difference):
                    let parts = metric.format(difference, with: numbers)
                    return "\(parts.value) \(parts.interval)"
                case .unknown: return nil
                case .reference(let text, _, _): return text
                }
            }
        }
        return texts.map { [TerminalCell($0 ?? NumberFormat.missing)] }
            + (baselines ?? []).map { _ in [TerminalCell("")] }
    }

    private func qualityCells(_ metric: Metric) -> [[TerminalCell]] {
        let numbers = NumberFormat.terminal
        let best = best(of: reportedRuns, by: metric)?.statistic(metric)?.mean
        // Align the ± parts with each other, and the decimal points before them.
        let values = runs.map { $0.statistic(metric) } + (baselines ?? []).map { $0.statistic(metric) }
        let parts = values.enumerated().map { index, value -> (value: String, spread: String, isBest: Bool) in
            guard let value else { return (NumberFormat.missing, "", false) }
            let half = value.interval(over: self.spread).map { ($0.upperBound - $0.lowerBound) / 2 }
            let spread = half.map { " ±" + metric.format($0, with: numbers) } ?? ""
            let isBest = runs.count > 1 && index < runs.count && value.mean == best
            return (metric.format(value.mean, with: numbers), spread, isBest)
        }
        let spreadWidth = parts.map(\.spread.count).max() ?? 0
        return parts.map { part in
            let gap = String(repeating: " ", count: max(spreadWidth - part.spread.count, 0))
            // Pad a shorter spread between the value and the ±.
            let spread = part.spread.isEmpty ? gap : " " + gap + part.spread.dropFirst()
            return [TerminalCell(part.value + spread, isBest: part.isBest)]
        }
    }

    /// The family of a run that begins a group, in a report of many methods that are ordered by family.
    private func familyHeading(before row: Int) -> String? {
        let families = runs.map(\.family)
        let begins = families.indices.filter { $0 == 0 || families[$0] != families[$0 - 1] }
        guard runs.indices.contains(row), runs.count >= 8, begins.count > 1, begins.contains(row),
            begins.count == Set(families).count
        else { return nil }
        return families[row]
    }

    private func notes(_ columns: [TerminalColumn], dropped: Int) -> [String] {
        var notes: [String] = []
        if dropped > 0 {
            notes.append(
                dropped == 1
                    ? "One column did not fit; a wider terminal, JSON or the HTML report shows it."
                    : "\(dropped) columns did not fit; a wider terminal, JSON or the HTML report shows them.")
        }
        let hasIntervals = runs.contains { run in
            tableMetrics.contains { run.statistic($0)?.interval(over: .testRows) != nil }
        }
        if spread == .testRows, hasIntervals {
            notes.append("± is half the width of the interval.")
        }
        if columns.contains(where: { $0.cells.contains { $0.contains { $0.text.hasPrefix(NumberFormat.missing) } } })
        {
            notes.append("\(NumberFormat.missing) means not measured, not applicable, or not finite.")
        }
        return notes
    }
}
