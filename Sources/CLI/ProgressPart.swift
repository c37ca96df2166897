/// A part of a line of progress.
struct ProgressPart: Equatable {
    let text: String
    /// 0 for what has to be seen; parts with higher numbers are left out first where a line has no room.
    let rank: Int

    init(_ text: String, rank: Int = 0) { (self.text, self.rank) = (text, rank) }

    /// The parts as one line of at most `width` columns behind a bar of `share`: the bar is made shorter first, then the
    /// parts of least importance go.
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
