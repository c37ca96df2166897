/// Finds stop texts in a text that arrives in pieces, and holds back what may become one.
struct StopMatcher {
    private let stops: [String.UnicodeScalarView]
    private let includesStop: Bool
    private var held: [Unicode.Scalar] = []

    /// - Parameter includesStop: whether the stop text belongs to the text.
    init(_ stops: [String], includesStop: Bool) {
        self.stops = stops.filter { !$0.isEmpty }.map(\.unicodeScalars)
        self.includesStop = includesStop
    }

    /// Adds a piece.
    /// - Returns: the text that is final, and the stop text that ends it, if one does.
    mutating func append(_ piece: String) -> (text: String, stop: String?) {
        guard !stops.isEmpty else { return (piece, nil) }
        held += piece.unicodeScalars
        if let match = firstMatch() {
            let end = match.start + (includesStop ? match.stop.count : 0)
            let text = Self.string(held[..<end])
            held = []
            return (text, String(match.stop))
        }
        let certain = held.count - longestBeginning()
        defer { held.removeFirst(certain) }
        return (Self.string(held[..<certain]), nil)
    }

    /// The rest of the text.
    mutating func finish() -> String {
        defer { held = [] }
        return Self.string(held[...])
    }

    /// The stop text that begins first; of several, the longest.
    private func firstMatch() -> (start: Int, stop: String.UnicodeScalarView)? {
        for start in held.indices {
            let found = stops.filter { held[start...].starts(with: $0) }
            if let stop = found.max(by: { $0.count < $1.count }) { return (start, stop) }
        }
        return nil
    }

    /// Length of the longest end of the text with which a stop text begins.
    private func longestBeginning() -> Int {
        let longest = stops.map(\.count).max() ?? 0
        for length in stride(from: min(held.count, longest - 1), to: 0, by: -1)
        where stops.contains(where: { $0.count > length && $0.starts(with: held.suffix(length)) }) {
            return length
        }
        return 0
    }

    private static func string(_ scalars: ArraySlice<Unicode.Scalar>) -> String {
        var text = String.UnicodeScalarView()
        text.append(contentsOf: scalars)
        return String(text)
    }
}
