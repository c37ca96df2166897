/// The candidate closest to `name`, for "did you mean" remedies.
///
/// - Returns: the candidate with the smallest Levenshtein distance, or `nil` where none is closer than
///   two thirds of the longer name's length, so that a hint is never a wild guess.
public func nearestName<Names: Collection>(to name: String, in candidates: Names) -> String?
where Names.Element == String {
    let wanted = Array(name.lowercased().unicodeScalars)
    var best: (name: String, distance: Int)?
    for candidate in candidates {
        let scalars = Array(candidate.lowercased().unicodeScalars)
        let distance = editDistance(wanted, scalars)
        guard distance * 3 <= 2 * max(wanted.count, scalars.count) else { continue }
        if distance < (best?.distance ?? .max) { best = (candidate, distance) }
    }
    return best?.name
}

private func editDistance(_ a: [Unicode.Scalar], _ b: [Unicode.Scalar]) -> Int {
    var previous = Array(0...b.count)
    for (i, x) in a.enumerated() {
        var current = [i + 1]
        current.reserveCapacity(b.count + 1)
        for (j, y) in b.enumerated() {
            current.append(min(previous[j + 1] + 1, current[j] + 1, previous[j] + (x == y ? 0 : 1)))
        }
        previous = current
    }
    return previous[b.count]
}
