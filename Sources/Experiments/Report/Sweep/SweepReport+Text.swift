extension SweepReport {
    /// The sweep as an aligned table for a terminal, followed by the result in sentences.
    /// - Parameter width: width of the terminal in columns; the least important columns are left out until the table fits.
    package func table(width: Int = 120) -> String {
        let report = comparison
        let remarks = points.map { point in
            [point.value == best ? "best" : nil, point.value == plateau ? "plateau" : nil].compactMap(\.self)
                .joined(separator: ", ")
        }
        var columns = [TerminalColumn(title: field, texts: points.map(\.value))]
        columns += report.terminalColumns(report.sweepColumns)
        columns.append(TerminalColumn(title: "", texts: remarks))
        while columns.overhang(width) > 0, let index = columns.leastImportant { columns.remove(at: index) }
        var lines = columns.header + points.indices.flatMap { columns.row($0) }
        lines.append("")
        lines += sentences(.terminal)
        if !similarity.isEmpty {
            lines += ["", "Subspace similarity φ of the A matrices (1: contained, 0: orthogonal):"]
            lines += similarityColumns.header + similarity.indices.flatMap { similarityColumns.row($0) }
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private var similarityColumns: [TerminalColumn] {
        func numbers(_ title: String, _ value: (SubspaceSimilarity) -> Double) -> TerminalColumn {
            TerminalColumn(
                title: [title], importance: .max,
                cells: similarity.map { [TerminalCell(NumberFormat.terminal.decimal(value($0), places: 3))] })
        }
        return [
            TerminalColumn(title: "from", texts: similarity.map(\.from)),
            TerminalColumn(title: "to", texts: similarity.map { $0.isBetweenSeeds ? "another seed" : $0.to }),
            numbers("all directions", \.whole), numbers("first direction", \.first), numbers("random", \.random),
        ]
    }
}
