/// A part of a progress line.
struct ProgressPart: Equatable {
    let text: String
    /// 0 is always shown; parts of higher rank are dropped first if the line is too long.
    let rank: Int

    init(_ text: String, rank: Int = 0) { (self.text, self.rank) = (text, rank) }

    /// One line of at most `width` columns: a progress bar for `share`, then the parts. If there is no room, the bar is
    /// shortened first, then parts are dropped by rank.
    static func line(_ parts: [ProgressPart], share: Double, width: Int) -> String {
        var kept = parts.filter { !$0.text.isEmpty }
        while true {
            let text = joined(kept)
            let room = width - text.count - 1
            if room >= shortestBar { return bar(share, min(longestBar, room)) + " " + text }
            guard kept.count > 1, let least = kept.map(\.rank).max(),
                let index = kept.lastIndex(where: { $0.rank == least })
            else { return String(text.prefix(max(0, width))) }
            kept.remove(at: index)
        }
    }

    static func joined(_ parts: [ProgressPart]) -> String {
        parts.map(\.text).filter { !$0.isEmpty }.joined(separator: "  ")
    }

    private static let (shortestBar, longestBar) = (8, 24)

    private static func bar(_ share: Double, _ width: Int) -> String {
        let filled = share.isFinite ? Int((max(0, min(1, share)) * Double(width)).rounded()) : 0
        return String(repeating: "━", count: filled) + String(repeating: "╌", count: width - filled)
    }
}
