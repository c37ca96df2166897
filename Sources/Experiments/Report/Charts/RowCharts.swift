/// Charts with a row per series: name and value above, mark beneath. Long names have the whole width, and
/// the same drawing serves a phone and a third of a wide page.
struct RowChart {
    struct Row {
        var label: String
        /// Where the label has no room.
        var short: String
        /// Shown at the right; a dash with its reason where nothing was measured.
        var shown: String
        var value: Double?
        var interval: ClosedRange<Double>?
        var style: SeriesStyle
    }

    let rows: [Row]
    /// Read aloud in place of the drawing.
    let description: String

    private let width = 350.0
    private let rowHeight = 38.0
    private let font = 12.5

    private func heading(_ row: Row, y: Double) -> Markup {
        let room = width - textWidth(row.shown, size: font) - 14
        let name = textWidth(row.label, size: font) <= room ? row.label : row.short
        return """
            <text class="label" x="0" y="\(y)">\(fitted(name, width: room, size: font))</text>\
            <text class="\(row.value == nil ? "value none" : "value")" x="\(width)" y="\(y)" text-anchor="end">\(row.shown)</text>
            """
    }

    private func row(_ row: Row, top: Double, mark: Markup) -> Markup {
        """
        <g class="row \(row.style.cssClass)"><title>\(row.label): \(row.shown)</title>\
        \(heading(row, y: top + 12))\(mark)</g>
        """
    }

    private func svg(height: Double, _ content: Markup) -> Markup {
        """
        <svg class="chart" viewBox="0 0 \(width) \(height)" role="img" aria-label="\(description)">\(content)</svg>
        """
    }

    /// Bars from zero; a longer one is always a larger number.
    /// - Parameter areCosts: whether less is better, for which bars are pale.
    func bars(areCosts: Bool = false) -> Markup {
        let largest = rows.compactMap(\.value).max() ?? 0
        var content: Markup = ""
        for (index, entry) in rows.enumerated() {
            let top = Double(index) * rowHeight
            let length = largest > 0 ? max((entry.value ?? 0) / largest * width, 0) : 0
            var mark: Markup =
                "<rect class=\"track\" x=\"0\" y=\"\(top + 19)\" width=\"\(width)\" height=\"9\" rx=\"2\"/>"
            if entry.value != nil {
                mark +=
                    "<rect class=\"\(areCosts ? "fill pale" : "fill")\" x=\"0\" y=\"\(top + 19)\" width=\"\(max(length, 1.5))\" height=\"9\" rx=\"2\"/>"
            }
            content += row(entry, top: top, mark: mark)
        }
        return svg(height: Double(rows.count) * rowHeight, content)
    }

    /// Dots with intervals over a common axis that need not start at zero.
    func dots(ticks format: (Double, Int) -> String) -> Markup {
        let values =
            rows.compactMap(\.value) + rows.compactMap(\.interval).flatMap { [$0.lowerBound, $0.upperBound] }
        let scale = Scale.linear(values, start: 8, end: width - 8)
        let bottom = Double(rows.count) * rowHeight
        var content: Markup = ""
        for tick in scale.ticks {
            let x = scale(tick)
            content += """
                <line class="grid" x1="\(x)" x2="\(x)" y1="0" y2="\(bottom)"/>\
                <text class="tick" x="\(x)" y="\(bottom + 16)" text-anchor="middle">\(format(tick, scale.tickPlaces))</text>
                """
        }
        for (index, entry) in rows.enumerated() {
            let top = Double(index) * rowHeight
            let y = top + 24
            var mark: Markup = ""
            if let interval = entry.interval {
                let (a, b) = (scale(interval.lowerBound), scale(interval.upperBound))
                mark += """
                    <line class="interval" x1="\(a)" x2="\(b)" y1="\(y)" y2="\(y)"/>\
                    <line class="cap" x1="\(a)" x2="\(a)" y1="\(y - 4)" y2="\(y + 4)"/>\
                    <line class="cap" x1="\(b)" x2="\(b)" y1="\(y - 4)" y2="\(y + 4)"/>
                    """
            }
            if let value = entry.value { mark += entry.style.marker(x: scale(value), y: y, radius: 5) }
            content += row(entry, top: top, mark: mark)
        }
        return svg(height: bottom + 22, content)
    }
}
