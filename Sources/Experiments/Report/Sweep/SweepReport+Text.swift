extension SweepReport {
    /// The sweep as an aligned table for a terminal, followed by the result in sentences.
    public func table(width: Int = 120) -> String {
        let numbers = NumberFormat.terminal
        let metric = ranking
        let forgets = points.contains { $0.run.retention != nil }
        var rows: [[String]] = [
            [field, metric.name, "loss", "parameters", "share", "learn. rate", "tokens/s", "peak memory"]
                + (forgets ? ["forgetting"] : []) + [""]
        ]
        for point in points {
            let run = point.run
            let quality = run.statistic(metric).map { value in
                metric.format(value.mean, with: numbers)
                    + (value.sd.map { " ±" + metric.format($0, with: numbers) } ?? "")
            }
            let marks = [point.value == best ? "best" : nil, point.value == plateau ? "plateau" : nil]
            rows.append(
                [
                    point.value, quality ?? NumberFormat.missing,
                    run.loss.map { numbers.decimal($0.mean, places: 3) } ?? NumberFormat.missing,
                    numbers.integer(run.trainable), run.trainableShare.map(numbers.percent) ?? NumberFormat.missing,
                    run.learningRate.map(numbers.rate) ?? NumberFormat.missing,
                    run.tokensPerSecond.map { numbers.decimal($0, places: 0) } ?? NumberFormat.missing,
                    run.peakBytes.map(numbers.bytes) ?? NumberFormat.missing,
                ]
                    + (forgets
                        ? [
                            run.retention.map { numbers.signed($0.after.mean - $0.before, places: 2) }
                                ?? NumberFormat.missing
                        ] : []) + [
                        marks.compactMap(\.self).joined(separator: ", ")
                    ])
        }
        var lines = Self.aligned(rows)
        lines.append("")
        lines += sentences(numbers)
        if !similarity.isEmpty {
            lines.append("")
            lines.append("Subspace similarity φ of the A matrices (1: contained, 0: orthogonal):")
            var table = [["from", "to", "all directions", "first direction", "random"]]
            for pair in similarity {
                table.append([
                    pair.from, pair.isBetweenSeeds ? "another seed" : pair.to, numbers.decimal(pair.whole, places: 3),
                    numbers.decimal(pair.first, places: 3), numbers.decimal(pair.random, places: 3),
                ])
            }
            lines += Self.aligned(table)
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private static func aligned(_ rows: [[String]]) -> [String] {
        let columns = rows.first?.count ?? 0
        let widths = (0..<columns).map { column in rows.map { $0[column].count }.max() ?? 0 }
        var lines = rows.map { row in
            var line = ""
            for (index, cell) in row.enumerated() {
                let space = String(repeating: " ", count: widths[index] - cell.count)
                // The first column is a name, the last a remark; numbers are right-aligned.
                line += (index == 0 || index == columns - 1 ? cell + space : space + cell) + "  "
            }
            while line.last == " " { line.removeLast() }
            return line
        }
        lines.insert(String(repeating: "─", count: lines.map(\.count).max() ?? 0), at: 1)
        return lines
    }
}
