/// About how wide a text is in a system font; errs on the wide side.
func textWidth(_ text: String, size: Double) -> Double {
    let units = text.reduce(0.0) { sum, character in
        switch character {
        case "i", "j", "l", "I", ".", ",", ":", ";", "|", "'", "!", "\u{202F}": sum + 0.32
        case "f", "r", "t", "(", ")", "[", "]", " ", "-", "/": sum + 0.4
        case "m", "w", "M", "W", "@", "%", "…": sum + 0.92
        case "A"..."Z", "±": sum + 0.7
        default: sum + (character.isASCII ? 0.58 : character.utf8.count > 2 ? 1.0 : 0.62)
        }
    }
    return units * size
}

/// The text, shortened with an ellipsis to fit.
func fitted(_ text: String, width: Double, size: Double) -> String {
    guard textWidth(text, size: size) > width else { return text }
    var kept = text
    while !kept.isEmpty, textWidth(kept + "…", size: size) > width { kept.removeLast() }
    while kept.last == " " { kept.removeLast() }
    return kept + "…"
}

/// Moves labels at the ends of lines apart: each keeps at least `gap` to its neighbors, stays within the
/// range, and lies as near to where it wants to be as the others allow.
func spread(_ wanted: [Double], gap: Double, within range: ClosedRange<Double>) -> [Double] {
    let order = wanted.indices.sorted { (wanted[$0], $0) < (wanted[$1], $1) }
    // Runs of labels that touch move as one, to the mean of what their members want.
    var groups: [(center: Double, members: [Int])] = []
    func half(_ count: Int) -> Double { Double(count - 1) * gap / 2 }
    func clamped(_ center: Double, _ count: Int) -> Double {
        min(max(center, range.lowerBound + half(count)), max(range.upperBound - half(count), range.lowerBound))
    }
    for index in order {
        var group = (center: clamped(wanted[index], 1), members: [index])
        while let before = groups.last,
            group.center - half(group.members.count) - (before.center + half(before.members.count)) < gap
        {
            groups.removeLast()
            let members = before.members + group.members
            // Member k wants the group's center at its own wish less its offset in the group.
            let wishes = members.enumerated().map { wanted[$0.element] - Double($0.offset) * gap }
            let center = wishes.reduce(0, +) / Double(members.count) + half(members.count)
            group = (clamped(center, members.count), members)
        }
        groups.append(group)
    }
    var placed = wanted
    for group in groups {
        for (offset, index) in group.members.enumerated() {
            placed[index] = group.center - half(group.members.count) + Double(offset) * gap
        }
    }
    return placed
}

struct Box: Sendable {
    var x: Double
    var y: Double
    var width: Double
    var height: Double

    /// Area shared with another box.
    func overlap(_ other: Box) -> Double {
        let w = min(x + width, other.x + other.width) - max(x, other.x)
        let h = min(y + height, other.y + other.height) - max(y, other.y)
        return w > 0 && h > 0 ? w * h : 0
    }
}

/// Finds places for labels beside points so that they cover neither each other nor anything else.
struct LabelPlacement {
    struct Place {
        var box: Box
        /// How far the label had to go; a far one gets a line to its point.
        var distance: Double
    }

    let frame: Box
    private(set) var obstacles: [Box]

    init(frame: Box, obstacles: [Box]) { (self.frame, self.obstacles) = (frame, obstacles) }

    mutating func place(x: Double, y: Double, width: Double, height: Double) -> Place {
        var best = Place(box: Box(x: x + 10, y: y - height / 2, width: width, height: height), distance: 10)
        var lowest = Double.infinity
        for distance in [9.0, 16, 26, 38, 52, 68] {
            // Right, left, above, below, then the corners: the order in which people look for a label.
            for (dx, dy) in [(1.0, 0.0), (-1, 0), (0, -1), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1)] {
                let diagonal = dx != 0 && dy != 0 ? 0.72 : 1
                let centerX = x + dx * (distance * diagonal + width / 2)
                let centerY = y + dy * (distance * diagonal + height / 2)
                let box = Box(x: centerX - width / 2, y: centerY - height / 2, width: width, height: height)
                let outside = width * height - box.overlap(frame)
                let covered = obstacles.reduce(0) { $0 + $1.overlap(box) }
                let cost = outside * 20 + covered * 10 + distance + (diagonal < 1 ? 2 : 0)
                if cost < lowest - 1e-9 { (lowest, best) = (cost, Place(box: box, distance: distance)) }
            }
        }
        obstacles.append(best.box)
        return best
    }
}

extension LabelPlacement {
    /// A place for a label that touches nothing; `nil` where there is none, and the label is better left out.
    mutating func placeFree(x: Double, y: Double, width: Double, height: Double) -> Place? {
        var trial = self
        let place = trial.place(x: x, y: y, width: width, height: height)
        let isInside = place.box.overlap(frame) >= width * height - 1e-6
        guard isInside, !obstacles.contains(where: { $0.overlap(place.box) > 0 }) else { return nil }
        self = trial
        return place
    }

    /// Keeps a box free of labels.
    mutating func add(_ box: Box) { self = LabelPlacement(frame: frame, obstacles: obstacles + [box]) }
}
