/// A glob pattern: `*` for any characters, `?` for one, `[a-z]` for one of a set.
///
/// As in Python's `fnmatch`, `*` matches slashes as well, and a pattern that ends in a slash matches everything beneath.
struct Glob {
    private let pattern: [Character]

    init(_ pattern: String) { self.pattern = Array(pattern.hasSuffix("/") ? pattern + "*" : pattern) }

    func matches(_ name: String) -> Bool {
        let name = Array(name)
        var (p, n) = (0, 0)
        var (starAt, starMatch): (Int?, Int) = (nil, 0)
        while n < name.count {
            if p < pattern.count, pattern[p] == "*" {
                (starAt, starMatch) = (p, n)
                p += 1
            } else if p < pattern.count, let next = step(p, name[n]) {
                (p, n) = (next, n + 1)
            } else if let star = starAt {
                // The last star takes one character more.
                starMatch += 1
                (p, n) = (star + 1, starMatch)
            } else {
                return false
            }
        }
        return pattern[p...].allSatisfy { $0 == "*" }
    }

    /// The place after the element at `p`, if that element matches.
    private func step(_ p: Int, _ character: Character) -> Int? {
        switch pattern[p] {
        case "?": return p + 1
        case "[":
            var start = p + 1
            let isNegated = start < pattern.count && pattern[start] == "!"
            if isNegated { start += 1 }
            guard start + 1 < pattern.count, let end = pattern[(start + 1)...].firstIndex(of: "]") else {
                return character == "[" ? p + 1 : nil
            }
            var (place, isIn) = (start, false)
            while place < end {
                if place + 2 < end, pattern[place + 1] == "-" {
                    isIn = isIn || (pattern[place] <= character && character <= pattern[place + 2])
                    place += 3
                } else {
                    isIn = isIn || pattern[place] == character
                    place += 1
                }
            }
            return isIn != isNegated ? end + 1 : nil
        default: return pattern[p] == character ? p + 1 : nil
        }
    }
}
