/// The map of a soft prompt: its vectors and their nearest words, projected onto two principal components.
extension NeighborsReport {
    private struct Mark {
        let name: String
        let x: Double
        let y: Double
        let style: SeriesStyle
        let radius: Double
        /// Which marks are named first.
        let rank: Int
    }

    func map(width: Double) -> Markup {
        let isWide = width >= 450
        let frame = PlotFrame(width: width, height: isWide ? 520 : 380, left: 12, right: 12, top: 12, bottom: 12)
        let all = tokens.flatMap { [$0.place] + $0.neighborPlaces }
        let (x, y) = (
            CrowdScale(all.map { $0[0] }, start: frame.xRange.0 + 8, end: frame.xRange.1 - 8),
            CrowdScale(all.map { $0[1] }, start: frame.yRange.0 - 8, end: frame.yRange.1 + 8)
        )
        let marks = marks { (x($0[0]), y($0[1])) }
        var content: Markup = ""
        for token in tokens {
            for place in token.neighborPlaces {
                content += """
                    <line class="link" x1="\(x(token.place[0]))" y1="\(y(token.place[1]))" x2="\(x(place[0]))" y2="\(y(place[1]))"/>
                    """
            }
        }
        for mark in marks.reversed() {
            content += """
                <g class="\(mark.style.cssClass)"><title>\(mark.name)</title>\
                \(mark.style.marker(x: mark.x, y: mark.y, radius: mark.radius))</g>
                """
        }
        return frame.svg(
            description: "Virtual tokens and their nearest words, projected onto two principal components.",
            content + names(marks, frame: frame, most: isWide ? 48 : 18))
    }

    /// Each virtual token and each word once, in the order in which they get their names.
    private func marks(at place: ([Double]) -> (x: Double, y: Double)) -> [Mark] {
        var seen: Set<Int> = []
        var marks: [Mark] = []
        for token in tokens {
            let (x, y) = place(token.place)
            marks.append(
                Mark(
                    name: "virtual token \(token.name)", x: x, y: y, style: SeriesStyle(color: 2, shape: .diamond),
                    radius: 4.5, rank: 1))
            for (index, word) in token.cosine.enumerated() where index < token.neighborPlaces.count {
                guard seen.insert(word.id).inserted else { continue }
                let (x, y) = place(token.neighborPlaces[index])
                marks.append(
                    Mark(
                        name: word.text, x: x, y: y,
                        style: SeriesStyle(color: word.namesTask ? 3 : 1, shape: .circle),
                        radius: 3, rank: word.namesTask ? 0 : 2 + index))
            }
        }
        return marks.enumerated().sorted { ($0.element.rank, $0.offset) < ($1.element.rank, $1.offset) }.map(
            \.element)
    }

    /// Labels that overlap neither each other nor a mark, with a leader line where they are far from their mark.
    private func names(_ marks: [Mark], frame: PlotFrame, most: Int) -> Markup {
        let size = 12.0
        var placement = LabelPlacement(
            frame: frame.plot,
            obstacles: marks.map {
                Box(x: $0.x - $0.radius, y: $0.y - $0.radius, width: 2 * $0.radius, height: 2 * $0.radius)
            })
        var content: Markup = ""
        var count = 0
        for mark in marks where count < most {
            let short = mark.name.hasPrefix("virtual token ") ? String(mark.name.dropFirst(14)) : mark.name
            let text = fitted(short, width: 110, size: size)
            guard
                let place = placement.placeFree(x: mark.x, y: mark.y, width: textWidth(text, size: size), height: 14)
            else { continue }
            count += 1
            let box = place.box
            var line: Markup = ""
            if place.distance > 16 {
                let toX = min(max(mark.x, box.x), box.x + box.width)
                let toY = min(max(mark.y, box.y), box.y + box.height)
                line = "<line class=\"leader\" x1=\"\(mark.x)\" y1=\"\(mark.y)\" x2=\"\(toX)\" y2=\"\(toY)\"/>"
            }
            content += """
                <g class="\(mark.style.cssClass)"><title>\(mark.name)</title>\(line)\
                <text class="name" x="\(box.x)" y="\(box.y + 11)">\(text)</text></g>
                """
        }
        return content
    }
}
