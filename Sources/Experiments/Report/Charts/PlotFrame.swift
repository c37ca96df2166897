/// The rectangle between two axes: gridlines, tick labels and axis titles.
struct PlotFrame {
    let width: Double
    let height: Double
    var left = 46.0
    var right = 12.0
    var top = 26.0
    var bottom = 42.0

    var plot: Box { Box(x: left, y: top, width: width - left - right, height: height - top - bottom) }
    var xRange: (Double, Double) { (left, width - right) }
    /// Upwards.
    var yRange: (Double, Double) { (height - bottom, top) }

    func axes(
        x: Scale, y: Scale, xTitle: String, yTitle: String, xTick: (Double) -> String, yTick: (Double) -> String
    ) -> Markup {
        let box = plot
        var content: Markup = ""
        for tick in y.ticks {
            let position = y(tick)
            content += """
                <line class="grid" x1="\(box.x)" x2="\(box.x + box.width)" y1="\(position)" y2="\(position)"/>\
                <text class="tick" x="\(box.x - 8)" y="\(position + 4)" text-anchor="end">\(yTick(tick))</text>
                """
        }
        // Labels that would touch the one before stay away; their gridlines remain.
        var taken = -Double.infinity
        for tick in x.ticks {
            let position = x(tick)
            let text = xTick(tick)
            let half = textWidth(text, size: 12) / 2
            content += """
                <line class="grid" x1="\(position)" x2="\(position)" y1="\(box.y)" y2="\(box.y + box.height)"/>
                """
            guard position - half > taken + 6, position + half <= width + 2 else { continue }
            taken = position + half
            content += """
                <text class="tick" x="\(position)" y="\(box.y + box.height + 17)" text-anchor="middle">\(text)</text>
                """
        }
        return content + """
            <line class="axis" x1="\(box.x)" x2="\(box.x + box.width)" y1="\(box.y + box.height)" y2="\(box.y + box.height)"/>\
            <text class="axis-title" x="0" y="12">\(yTitle)</text>\
            <text class="axis-title" x="\(box.x + box.width)" y="\(height - 5)" text-anchor="end">\(xTitle)</text>
            """
    }

    func svg(description: String, _ content: Markup) -> Markup {
        """
        <svg class="chart" viewBox="0 0 \(width) \(height)" role="img" aria-label="\(description)">\(content)</svg>
        """
    }
}
