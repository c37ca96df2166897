/// Points with intervals over a logarithmic axis: quality against trained parameters shows what a parameter buys.
struct ScatterChart {
    struct Point {
        var label: String
        var x: Double
        var y: Double
        var interval: ClosedRange<Double>?
        var style: SeriesStyle
    }
    /// A level without a place on the x axis: the untrained model.
    struct Level {
        var label: String
        var y: Double
        var style: SeriesStyle
    }

    let points: [Point]
    let level: Level?
    let xTitle: String
    let yTitle: String
    let description: String
    let higherIsBetter: Bool

    private let font = 12.5

    func draw(width: Double) -> Markup {
        let frame = PlotFrame(width: width, height: width < 450 ? 320 : 360, right: 16)
        let numbers = NumberFormat.page
        let x = Scale.logarithmic(points.map(\.x), room: 0.14, start: frame.xRange.0, end: frame.xRange.1)
        let values =
            points.flatMap { [$0.y, $0.interval?.lowerBound ?? $0.y, $0.interval?.upperBound ?? $0.y] }
            + (level.map { [$0.y] } ?? [])
        let y = Scale.linear(values, start: frame.yRange.0, end: frame.yRange.1)
        var content = frame.axes(
            x: x, y: y, xTitle: xTitle, yTitle: yTitle, xTick: numbers.short,
            yTick: { numbers.decimal($0, places: y.tickPlaces) })
        content += frontier(x: x, y: y)

        let marks = points.map { (x: x($0.x), y: y($0.y)) }
        var obstacles = marks.map { Box(x: $0.x - 7, y: $0.y - 7, width: 14, height: 14) }
        for (point, mark) in zip(points, marks) {
            guard let interval = point.interval else { continue }
            let (a, b) = (y(interval.upperBound), y(interval.lowerBound))
            obstacles.append(Box(x: mark.x - 3, y: a, width: 6, height: b - a))
            content += """
                <g class="\(point.style.cssClass)"><line class="interval" x1="\(mark.x)" x2="\(mark.x)" y1="\(a)" y2="\(b)"/></g>
                """
        }
        var placement = LabelPlacement(frame: frame.plot, obstacles: obstacles)
        if let level { content += draw(level, y: y(level.y), frame: frame, placement: &placement) }
        // The crowded ones choose first: from the middle of the cloud outwards, by position.
        var labels: Markup = ""
        for index in points.indices.sorted(by: { (marks[$0].x, $0) > (marks[$1].x, $1) }) {
            labels += draw(points[index], at: marks[index], frame: frame, placement: &placement)
        }
        return frame.svg(description: description, content + labels)
    }

    private func draw(
        _ point: Point, at mark: (x: Double, y: Double), frame: PlotFrame, placement: inout LabelPlacement
    ) -> Markup {
        let label = fitted(point.label, width: frame.plot.width * 0.55, size: font)
        let size = textWidth(label, size: font)
        let place = placement.place(x: mark.x, y: mark.y, width: size, height: 15)
        let box = place.box
        var content: Markup = ""
        // The side of the text that faces its point.
        let anchor = box.x > mark.x ? "start" : box.x + box.width < mark.x ? "end" : "middle"
        let textX = anchor == "start" ? box.x : anchor == "end" ? box.x + box.width : box.x + box.width / 2
        if place.distance > 20 {
            let toY = box.y > mark.y ? box.y + 1 : box.y + box.height < mark.y ? box.y + box.height : box.y + 7
            content += "<line class=\"leader\" x1=\"\(mark.x)\" y1=\"\(mark.y)\" x2=\"\(textX)\" y2=\"\(toY)\"/>"
        }
        let numbers = NumberFormat.page
        let title = "\(point.label): \(numbers.decimal(point.y, places: 1)), \(numbers.short(point.x)) parameters"
        return """
            <g class="\(point.style.cssClass)"><title>\(title)</title>\(content)\
            \(point.style.marker(x: mark.x, y: mark.y, radius: 5.5))\
            <text class="name" x="\(textX)" y="\(box.y + 11.5)" text-anchor="\(anchor)">\(label)</text></g>
            """
    }

    private func draw(_ level: Level, y: Double, frame: PlotFrame, placement: inout LabelPlacement) -> Markup {
        let plot = frame.plot
        let label = fitted(level.label, width: plot.width * 0.8, size: font)
        let size = textWidth(label, size: font)
        placement.add(Box(x: plot.x, y: y - 3, width: plot.width, height: 6))
        // Above the line, unless that leaves the plot.
        let baseline = y - 6 > plot.y + 12 ? y - 6 : y + 16
        placement.add(Box(x: plot.x + 4, y: baseline - 11, width: size, height: 15))
        return """
            <g class="\(level.style.cssClass)"><line class="level" x1="\(plot.x)" x2="\(plot.x + plot.width)" y1="\(y)" y2="\(y)"/>\
            <text class="name" x="\(plot.x + 4)" y="\(baseline)">\(label)</text></g>
            """
    }

    /// The points that no other beats in both directions, joined by a staircase.
    private func frontier(x: Scale, y: Scale) -> Markup {
        var best: [Point] = []
        for point in points.sorted(by: {
            ($0.x, higherIsBetter ? -$0.y : $0.y) < ($1.x, higherIsBetter ? -$1.y : $1.y)
        }) {
            if let last = best.last, higherIsBetter ? point.y <= last.y : point.y >= last.y { continue }
            best.append(point)
        }
        guard best.count > 1 else { return "" }
        var path: Markup = "M\(x(best[0].x)) \(y(best[0].y))"
        for (before, point) in zip(best, best.dropFirst()) {
            path += "L\(x(point.x)) \(y(before.y))L\(x(point.x)) \(y(point.y))"
        }
        return "<path class=\"frontier\" d=\"\(path)\"/>"
    }
}
