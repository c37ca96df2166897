/// The candidate closest to `name`, for "did you mean" remedies.
///
/// - Returns: the candidate with the smallest Damerau-Levenshtein distance (optimal string alignment: a transposition of
///   neighbors is one edit), or `nil` where none is near: a third of the longer name's length may differ, or one
///   character of a short name. Names of the same letters in another order count as near, and so does a name that
///   begins in the same way.
package func nearestName<Names: Collection>(to name: String, in candidates: Names) -> String?
where Names.Element == String {
    let wanted = Array(name.lowercased().unicodeScalars)
    var best: (name: String, distance: Int)?
    for candidate in candidates {
        let scalars = Array(candidate.lowercased().unicodeScalars)
        guard let distance = nearDistance(wanted, scalars) else { continue }
        if distance < (best?.distance ?? .max) { best = (candidate, distance) }
    }
    return best?.name
}

/// A measure of how far two names are that are near each other; `nil` if they aren't.
private func nearDistance(_ a: [Unicode.Scalar], _ b: [Unicode.Scalar]) -> Int? {
    if a == b { return 0 }
    let (shorter, longer) = a.count <= b.count ? (a, b) : (b, a)
    guard !shorter.isEmpty else { return nil }
    // Of names that are equally far the one with the same letters is meant.
    let hasSameLetters = a.count == b.count && a.sorted() == b.sorted()
    let edits = editDistance(a, b)
    let distance = 2 * edits - (hasSameLetters ? 1 : 0)
    // Names of one or two letters are one edit away from too many others.
    guard longer.count >= 3 else { return a.first == b.first ? distance : nil }
    if edits <= max(1, longer.count / 3) { return distance }
    if hasSameLetters, a.count >= 4 { return distance }
    // The end of a name may be another word (classify, classification), or one more (wi, wi_0).
    let common = zip(shorter, longer).prefix { $0 == $1 }.count
    if common == shorter.count, common >= 2, !longer[common].properties.isAlphabetic,
        longer[common].properties.numericType == nil
    {
        return distance
    }
    return common >= 4 && common * 4 >= shorter.count * 3 ? distance : nil
}

/// Insertions, deletions, substitutions and transpositions of neighbors that make one of the other, where no part is
/// edited twice.
private func editDistance(_ a: [Unicode.Scalar], _ b: [Unicode.Scalar]) -> Int {
    var beforeLast: [Int] = []
    var last = Array(0...b.count)
    for (i, x) in a.enumerated() {
        var current = [i + 1]
        current.reserveCapacity(b.count + 1)
        for (j, y) in b.enumerated() {
            var least = min(last[j + 1] + 1, current[j] + 1, last[j] + (x == y ? 0 : 1))
            if i > 0, j > 0, x == b[j - 1], a[i - 1] == y { least = min(least, beforeLast[j - 1] + 1) }
            current.append(least)
        }
        (beforeLast, last) = (last, current)
    }
    return last[b.count]
}
