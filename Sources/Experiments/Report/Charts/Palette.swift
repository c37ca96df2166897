/// How a series looks in every chart: a color and a shape, so that color is never the only distinction.
struct SeriesStyle: Hashable, Sendable {
    /// CSS class that sets `--m`; see ``Palette/style``.
    let color: Int
    let shape: Shape

    enum Shape: Int, CaseIterable, Sendable { case circle, square, diamond, triangle, wedge, cross }

    var cssClass: Markup { "m\(color)" }

    /// The symbol with its center at (x, y).
    func marker(x: Double, y: Double, radius r: Double = 5) -> Markup {
        switch shape {
        case .circle: return "<circle class=\"dot\" cx=\"\(x)\" cy=\"\(y)\" r=\"\(r)\"/>"
        case .square:
            let s = r * 0.9
            return
                "<rect class=\"dot\" x=\"\(x - s)\" y=\"\(y - s)\" width=\"\(2 * s)\" height=\"\(2 * s)\" rx=\"1\"/>"
        case .diamond: return polygon([(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)], x, y, r)
        case .triangle: return polygon([(0, -1.2), (1.15, 0.85), (-1.15, 0.85)], x, y, r)
        case .wedge: return polygon([(0, 1.2), (1.15, -0.85), (-1.15, -0.85)], x, y, r)
        case .cross:
            let (a, b) = (0.4, 1.15)
            return polygon(
                [
                    (-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a),
                    (-a, -a),
                ], x, y, r)
        }
    }

    private func polygon(_ corners: [(Double, Double)], _ x: Double, _ y: Double, _ r: Double) -> Markup {
        let points: [Markup] = corners.map { "\(x + $0.0 * r),\(y + $0.1 * r)" }
        return "<polygon class=\"dot\" points=\"\(points.joined(" "))\"/>"
    }

    /// The symbol alone, for tables and legends.
    var swatch: Markup {
        """
        <svg class="swatch \(cssClass)" viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">\
        \(marker(x: 7, y: 7, radius: 4.6))</svg>
        """
    }
}

/// Colors that stay apart for readers with color-vision deficiency, dark enough to read as text on the
/// page (4.5 : 1 and more) in both schemes.
enum Palette {
    private static let light = [
        "#6b7280", "#1d5fae", "#c2410c", "#047857", "#9d3c8c", "#7c6200", "#0e7490", "#be185d", "#5b4bc4",
    ]
    private static let dark = [
        "#9aa4b1", "#7db4f5", "#fb9157", "#4fc79b", "#e197d3", "#d9bb4f", "#5cc8de", "#f58ab5", "#aea2fa",
    ]

    static let gray = SeriesStyle(color: 0, shape: .circle)
    static let blue = SeriesStyle(color: 1, shape: .square)

    /// Styles from orange on, for any number of series beside the gray and the blue one.
    static func series(_ index: Int) -> SeriesStyle {
        let shapes = SeriesStyle.Shape.allCases
        // Seven colors and five shapes have no common factor: pairs repeat after 35.
        return SeriesStyle(color: 2 + index % 7, shape: shapes[[2, 3, 0, 5, 4][index % 5] % shapes.count])
    }

    static var style: String {
        func rules(_ colors: [String]) -> String {
            colors.enumerated().map { ".m\($0.offset){--m:\($0.element)}" }.joined()
        }
        return rules(light) + "@media screen and (prefers-color-scheme:dark){" + rules(dark) + "}"
    }
}
