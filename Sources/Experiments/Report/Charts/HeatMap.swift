/// A matrix of shares between 0 and 1, drawn by depth of color.
struct HeatMap {
    /// Rows of values between 0 and 1.
    let values: [[Double]]
    let rowTitle: String
    let columnTitle: String
    let description: String
    let style: SeriesStyle

    func draw() -> Markup {
        let columns = values.first?.count ?? 0
        guard columns > 0 else { return "" }
        let size = max(3, min(30, 400 / Double(max(columns, values.count))))
        let (left, top) = (46.0, 26.0)
        let (width, height) = (Double(columns) * size, Double(values.count) * size)
        var cells: Markup = ""
        for (i, row) in values.enumerated() {
            for (j, value) in row.enumerated() {
                let share = value.isFinite ? min(max(value, 0), 1) : 0
                cells += """
                    <rect class="cell" x="\(left + Double(j) * size)" y="\(top + Double(i) * size)" width="\(size)" height="\(size)" \
                    fill-opacity="\(0.04 + 0.96 * share)"><title>\(i + 1), \(j + 1): \(Self.text(value))</title></rect>
                    """
            }
        }
        let ticks = [0, values.count - 1].map { index -> Markup in
            "<text class=\"tick\" x=\"\(left - 8)\" y=\"\(top + (Double(index) + 0.5) * size + 4)\" text-anchor=\"end\">\(index + 1)</text>"
        }
        let columnTicks = [0, columns - 1].map { index -> Markup in
            "<text class=\"tick\" x=\"\(left + (Double(index) + 0.5) * size)\" y=\"\(top + height + 16)\" text-anchor=\"middle\">\(index + 1)</text>"
        }
        return """
            <svg class="chart heat \(style.cssClass)" viewBox="0 0 540 \(top + height + 40)" role="img" aria-label="\(description)">\
            <text class="axis-title" x="0" y="12">\(rowTitle)</text>\(cells)\(ticks)\(columnTicks)\
            <text class="axis-title" x="\(left + max(width, 120))" y="\(top + height + 34)" text-anchor="end">\(columnTitle)</text></svg>
            """
    }

    private static func text(_ value: Double) -> String { NumberFormat.page.decimal(value, places: 2) }
}
