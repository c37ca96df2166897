extension Sequence<Int> {
    /// The most frequent number, the largest of several; `nil` of an empty sequence. A file with several ranks has one that
    /// its configuration names, and a pattern for each of the rest.
    var mostFrequent: Int? {
        let counts = reduce(into: [Int: Int]()) { $0[$1, default: 0] += 1 }
        return counts.max { ($0.value, $0.key) < ($1.value, $1.key) }?.key
    }
}
