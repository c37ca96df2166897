/// Lines over a common axis, named at their right ends where there is room.
struct LineChart {
    struct Line {
        var label: String
        var style: SeriesStyle
        /// The line itself, left to right; gaps where a value is not finite.
        var points: [(x: Double, y: Double)]
        /// Thin lines behind it: the seeds.
        var strands: [[(x: Double, y: Double)]] = []
        /// Intervals of the points, as error bars; as many as points, or none.
        var intervals: [ClosedRange<Double>?] = []
        /// A point to ring: the choice.
        var chosen: Double?
        /// Whether each point gets a symbol.
        var hasMarkers = false
    }

    let lines: [Line]
    let xKind: Scale.Kind
    let xTitle: String
    let yTitle: String
    let description: String
    let xTick: @Sendable (Double) -> String
    var namesAtEnds = true
    /// Places of the ticks on a logarithmic axis; by themselves if not given.
    var xTicks: [Double]?

    private let font = 12.5

    /// The highest value drawn. A few outliers at the start must not flatten everything else.
    static func ceiling(_ values: [Double]) -> Double {
        let sorted = values.filter(\.isFinite).sorted()
        guard let highest = sorted.last else { return 1 }
        let usual = sorted[min(Int(Double(sorted.count) * 0.95), sorted.count - 1)]
        let lowest = sorted[0]
        return highest - lowest > 3 * (usual - lowest) && usual > lowest ? usual + 0.25 * (usual - lowest) : highest
    }

    private var allPoints: [(x: Double, y: Double)] {
        lines.flatMap { $0.points + $0.strands.flatMap(\.self) + $0.ends }.filter { $0.x.isFinite && $0.y.isFinite }
    }

    /// Whether values above the drawn range were cut off at its top edge.
    var isClipped: Bool {
        let values = allPoints.map(\.y)
        return (values.max() ?? 0) > Self.ceiling(values)
    }

    private func errorBar(x: Double, from low: Double, to high: Double) -> Markup {
        """
        <line class="interval" x1="\(x)" x2="\(x)" y1="\(low)" y2="\(high)"/>\
        <line class="cap" x1="\(x - 4)" x2="\(x + 4)" y1="\(low)" y2="\(low)"/>\
        <line class="cap" x1="\(x - 4)" x2="\(x + 4)" y1="\(high)" y2="\(high)"/>
        """
    }

    func draw(width: Double) -> Markup {
        let isWide = width >= 450
        let hasNames = isWide && namesAtEnds
        let labelRoom = hasNames ? min(lines.map { textWidth($0.label, size: font) }.max() ?? 0, 150) + 16 : 0
        let frame = PlotFrame(
            width: width, height: isWide ? 340 : 280, right: hasNames ? max(labelRoom, 12) : 12)
        let all = allPoints
        let ceiling = Self.ceiling(all.map(\.y))
        let x =
            xKind == .linear
            ? Scale.tight(all.map(\.x), ticks: isWide ? 7 : 5, start: frame.xRange.0, end: frame.xRange.1)
            : Scale.logarithmic(all.map(\.x), ticks: xTicks, start: frame.xRange.0, end: frame.xRange.1)
        let y = Scale.tight(
            all.map { min($0.y, ceiling) }, room: 0.06, ticks: 8, start: frame.yRange.0, end: frame.yRange.1)
        let numbers = NumberFormat.page
        var content = frame.axes(
            x: x, y: y, xTitle: xTitle, yTitle: yTitle, xTick: xTick,
            yTick: { numbers.decimal($0, places: y.tickPlaces) })

        func path(_ points: [(x: Double, y: Double)]) -> Markup {
            var out: [Markup] = []
            var isOpen = false
            for point in points {
                guard point.x.isFinite, point.y.isFinite else { isOpen = false; continue }
                let (px, py) = (x(point.x), max(y(point.y), frame.plot.y))
                out.append(isOpen ? "L\(px) \(py)" : "M\(px) \(py)")
                isOpen = true
            }
            return out.joined()
        }
        for line in lines {
            let strands: [Markup] = line.strands.map { "<path class=\"strand\" d=\"\(path($0))\"/>" }
            content += "<g class=\"\(line.style.cssClass)\">\(strands)</g>"
        }
        let ends = lines.map { line in line.points.last { $0.x.isFinite && $0.y.isFinite } }
        let wanted = ends.map { $0.map { max(y($0.y), frame.plot.y) } ?? frame.plot.y }
        let placed = spread(wanted, gap: 16, within: frame.plot.y + 6...frame.plot.y + frame.plot.height - 4)
        for (index, line) in lines.enumerated() {
            var marks: Markup = "<title>\(line.label)</title><path class=\"line\" d=\"\(path(line.points))\"/>"
            for (point, interval) in zip(line.points, line.intervals) {
                guard let interval, point.x.isFinite else { continue }
                marks += errorBar(
                    x: x(point.x), from: y(interval.lowerBound), to: max(y(interval.upperBound), frame.plot.y))
            }
            for point in line.points where line.hasMarkers && point.x.isFinite && point.y.isFinite {
                let (px, py) = (x(point.x), max(y(point.y), frame.plot.y))
                if let chosen = line.chosen, abs(point.x - chosen) <= abs(chosen) * 1e-6 {
                    marks += "<circle class=\"ring\" cx=\"\(px)\" cy=\"\(py)\" r=\"9\"/>"
                }
                marks += line.style.marker(x: px, y: py, radius: 4)
            }
            if hasNames, let end = ends[index] {
                let (px, py) = (x(end.x), wanted[index])
                let labelX = frame.xRange.1 + 14
                if !line.hasMarkers { marks += line.style.marker(x: px, y: py, radius: 3.6) }
                let label = fitted(line.label, width: labelRoom - 12, size: font)
                marks += """
                    <path class="leader" d="M\(px + 6) \(py)L\(labelX - 3) \(placed[index])"/>\
                    <text class="name" x="\(labelX)" y="\(placed[index] + 4)">\(label)</text>
                    """
            }
            content += "<g class=\"\(line.style.cssClass)\">\(marks)</g>"
        }
        return frame.svg(description: description, content)
    }
}

extension LineChart.Line {
    /// The ends of the error bars, which the axis has to hold.
    fileprivate var ends: [(x: Double, y: Double)] {
        zip(points, intervals).flatMap { point, interval in
            interval.map { [(point.x, $0.lowerBound), (point.x, $0.upperBound)] } ?? []
        }
    }
}
