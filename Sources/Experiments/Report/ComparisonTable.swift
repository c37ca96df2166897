import Foundation

extension ComparisonReport {
    /// The comparison as an aligned table for a terminal, followed by the verdict in sentences.
    ///
    /// Long labels wrap first; then the least important columns are dropped until the table fits.
    /// - Parameters:
    ///   - color: whether to mark the best values with ANSI bold green.
    ///   - width: width of the terminal in columns.
    public func table(color: Bool, width: Int = 120) -> String {
        var columns = tableColumns()
        columns[0].wrap(to: max(columns[0].longestWord, columns[0].width - overhang(columns, width)))
        while overhang(columns, width) > 0, let index = leastImportant(columns) { columns.remove(at: index) }

        var out: [String] = []
        let headerLines = columns.map(\.title.count).max() ?? 0
        for line in 0..<headerLines {
            // Titles are aligned at the bottom.
            out.append(
                render(columns) { column in
                    let index = line - (headerLines - column.title.count)
                    return Cell(index >= 0 ? column.title[index] : "")
                })
        }
        out.append(String(repeating: "─", count: totalWidth(columns)))
        let beside = baselines ?? []
        for row in 0..<(runs.count + beside.count) {
            if row == runs.count { out.append("model-free baselines") }
            let height = columns.map { $0.cells[row].count }.max() ?? 1
            for line in 0..<height {
                out.append(
                    render(columns) { column in
                        let lines = column.cells[row]
                        guard line < lines.count else { return Cell("") }
                        return lines[line].marked(color && lines[line].isBest)
                    })
            }
        }
        out.append("")
        let sentences =
            (Verdict(self, numbers: .terminal).sentences + [baselineSentence(.terminal)].compactMap(\.self))
            .joined(separator: " ")
        out += wrapped(printable(sentences), width: min(max(width, 40), 100))
        for note in notes(columns) { out += wrapped(note, width: min(max(width, 40), 100)) }
        return out.joined(separator: "\n") + "\n"
    }

    private func tableColumns() -> [Column] {
        let numbers = NumberFormat.terminal
        func text(_ run: ReportedRun, _ write: (ReportedRun) -> String?) -> [Cell] {
            [Cell(write(run) ?? NumberFormat.missing)]
        }
        func column(
            _ title: String..., importance: Int, write: @escaping (ReportedRun) -> String?
        ) -> Column {
            Column(title: title, importance: importance, cells: reportedRuns.map { text($0, write) })
        }
        var columns = [
            Column(
                title: ["method"], importance: .max, isText: true,
                cells: (runs.map(\.label) + (baselines ?? []).map(\.label)).map { [Cell(printable($0))] })
        ]
        columns += tableMetrics.map(metricColumn) + storingColumn() + distanceColumn()
        if showsModelSizes {
            columns.append(column("model", "size", importance: 88) { $0.modelBytes.map(numbers.bytes) })
        }
        columns += [
            column("trainable", "parameters", importance: 90) {
                $0.isRequantized ? nil : numbers.integer($0.trainable)
            },
            column("share", importance: 80) { $0.isRequantized ? nil : $0.trainableShare.map(numbers.percent) },
            column("learn.", "rate", importance: 20) { $0.learningRate.map(numbers.rate) },
            column("tokens", "/s", importance: 70) {
                $0.tokensPerSecond.map { numbers.decimal($0, places: $0 < 99.5 ? 1 : 0) }
            },
            column("peak", "memory", importance: 75) { $0.peakBytes.map(numbers.bytes) },
            column("file", "size", importance: 60) { $0.adapterBytes.map(numbers.bytes) },
            column("forget", "nats", importance: 45) { run in
                run.retention.map { numbers.signed($0.after.mean - $0.before, places: 2) }
            },
            column("ms/\(inferenceUnit)", "merged/un", importance: 40) { run in
                run.inference.map { numbers.significant($0.merged) + "/" + numbers.significant($0.unmerged) }
            },
        ]
        if !runs.contains(where: { $0.retention != nil }) { columns.removeAll { $0.title.first == "forget" } }
        // Baselines have a quality and no cost.
        for index in columns.indices {
            let missing = runs.count + (baselines ?? []).count - columns[index].cells.count
            columns[index].cells += [[Cell]](repeating: [Cell("")], count: max(0, missing))
        }
        return columns
    }

    private var tableMetrics: [Metric] { leadingMetrics.isEmpty ? [.loss] : leadingMetrics }

    private func metricColumn(_ metric: Metric) -> Column {
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
        let cells = parts.map { part in
            let gap = String(repeating: " ", count: max(spreadWidth - part.spread.count, 0))
            // Pad a shorter spread between the value and the ±.
            let spread = part.spread.isEmpty ? gap : " " + gap + part.spread.dropFirst()
            return [Cell(part.value + spread, isBest: part.isBest)]
        }
        return Column(title: [metric.name], importance: metric == ranking ? 100 : 50, cells: cells)
    }

    /// The change from quantizing the trained model, with its interval.
    private func storingColumn() -> [Column] {
        guard runs.contains(where: \.isRequantized), let metric = ranking else { return [] }
        let texts = reportedRuns.map { run -> String? in
            quantizationChange(run, by: metric).map {
                let parts = metric.format($0, with: .terminal)
                return "\(parts.value) \(parts.interval)"
            }
        }
        return [
            Column(
                title: ["quantized", "Δ \(metric.name)"], importance: 86,
                cells: texts.map { [Cell($0 ?? NumberFormat.missing)] })
        ]
    }

    /// The difference of each run from the best, with its interval.
    private func distanceColumn() -> [Column] {
        guard runs.count > 1, let metric = ranking, let best = best(of: reportedRuns, by: metric) else { return [] }
        let top = best.statistic(metric)?.mean
        let texts = reportedRuns.map { run -> String? in
            if run.statistic(metric)?.mean == top { return "best" }
            let parts = difference(of: run, to: best, by: metric).map { metric.format($0, with: .terminal) }
            return parts.map { "\($0.value) \($0.interval)" }
        }
        guard texts.contains(where: { $0 != nil && $0 != "best" }) else { return [] }
        return [
            Column(
                title: ["vs. best", metric.name], importance: 55,
                cells: texts.map { [Cell($0 ?? NumberFormat.missing)] })
        ]
    }

    private func notes(_ columns: [Column]) -> [String] {
        var notes: [String] = []
        let dropped = tableColumns().count - columns.count
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

// MARK: - Layout

private let gap = 2

private struct Cell {
    var text: String
    var isBest = false
    var isMarked = false

    init(_ text: String, isBest: Bool = false) { (self.text, self.isBest) = (text, isBest) }

    func marked(_ isMarked: Bool) -> Cell {
        var cell = self
        cell.isMarked = isMarked
        return cell
    }

    func padded(to width: Int, isText: Bool) -> String {
        let space = String(repeating: " ", count: max(width - displayWidth(text), 0))
        let shown = isMarked ? "\u{1B}[1;32m\(text)\u{1B}[0m" : text
        return isText ? shown + space : space + shown
    }
}

private struct Column {
    /// One line or two.
    var title: [String]
    var importance: Int
    var isText = false
    /// Lines of each row's cell.
    var cells: [[Cell]]

    var width: Int {
        max(title.map(displayWidth).max() ?? 0, cells.flatMap { $0.map { displayWidth($0.text) } }.max() ?? 0)
    }

    var longestWord: Int {
        let words = cells.flatMap { $0.flatMap { $0.text.split(separator: " ") } }.map { displayWidth(String($0)) }
        return max(words.max() ?? 0, 18)
    }

    mutating func wrap(to width: Int) {
        guard width < self.width else { return }
        cells = cells.map { lines in
            wrapped(lines.map(\.text).joined(separator: " "), width: width, indent: "  ").map { Cell($0) }
        }
    }
}

private func totalWidth(_ columns: [Column]) -> Int {
    columns.map(\.width).reduce(0, +) + gap * max(columns.count - 1, 0)
}

private func overhang(_ columns: [Column], _ width: Int) -> Int { max(totalWidth(columns) - width, 0) }

private func leastImportant(_ columns: [Column]) -> Int? {
    columns.indices.filter { columns[$0].importance < 100 }.min { columns[$0].importance < columns[$1].importance }
}

private func render(_ columns: [Column], cell: (Column) -> Cell) -> String {
    var line = ""
    for (index, column) in columns.enumerated() {
        if index > 0 { line += String(repeating: " ", count: gap) }
        line += cell(column).padded(to: column.width, isText: column.isText)
    }
    while line.last == " " { line.removeLast() }
    return line
}

/// Wraps words into lines of at most `width` columns; a longer word gets a line of its own.
private func wrapped(_ text: String, width: Int, indent: String = "") -> [String] {
    var lines: [String] = []
    var line = ""
    for word in text.split(separator: " ") {
        if line.isEmpty {
            line = String(word)
        } else if displayWidth(line) + 1 + displayWidth(String(word)) <= width {
            line += " " + word
        } else {
            lines.append(line)
            line = indent + word
        }
    }
    return line.isEmpty ? lines : lines + [line]
}

/// Text that can't steer the terminal: control characters become spaces.
private func printable(_ text: String) -> String {
    var out = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
        switch scalar.properties.generalCategory {
        case .control, .lineSeparator, .paragraphSeparator, .surrogate: out.append(" ")
        // Bidirectional overrides.
        case .format where scalar != "\u{200D}": continue
        default: out.append(scalar)
        }
    }
    return String(out)
}

/// Terminal columns a text takes: two for East Asian wide characters and emoji.
private func displayWidth(_ text: String) -> Int {
    text.reduce(0) { sum, character in
        guard let scalar = character.unicodeScalars.first else { return sum }
        let isWide =
            switch scalar.value {
            case 0x1100...0x115F, 0x2E80...0x303E, 0x3041...0xA4CF, 0xAC00...0xD7A3, 0xF900...0xFAFF,
                0xFE30...0xFE6F, 0xFF00...0xFF60, 0xFFE0...0xFFE6, 0x1F300...0x1FAFF, 0x20000...0x3FFFD:
                true
            default: false
            }
        return sum + (isWide ? 2 : 1)
    }
}
