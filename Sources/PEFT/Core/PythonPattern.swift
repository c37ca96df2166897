import Foundation

/// Converts Python regular expressions of Hugging Face's files for `NSRegularExpression`.
enum PythonPattern {
    /// Converts named groups `(?P<name>…)` and backreferences `(?P=name)` to ICU syntax, whose names are
    /// alphanumeric.
    static func translated(_ pattern: String) -> String {
        guard pattern.contains("(?P") else { return pattern }
        var result = ""
        var names: [String: String] = [:]
        var rest = Substring(pattern)
        while let start = rest.range(of: "(?P") {
            result += rest[..<start.lowerBound]
            let tail = rest[start.upperBound...]
            let isEscaped = result.reversed().prefix { $0 == "\\" }.count % 2 == 1
            if !isEscaped, tail.hasPrefix("<"), let end = tail.firstIndex(of: ">") {
                let name = String(tail[tail.index(after: tail.startIndex)..<end])
                let own = "group\(names.count + 1)"
                names[name] = own
                result += "(?<\(own)>"
                rest = tail[tail.index(after: end)...]
            } else if !isEscaped, tail.hasPrefix("="), let end = tail.firstIndex(of: ")") {
                let name = String(tail[tail.index(after: tail.startIndex)..<end])
                result += "\\k<\(names[name] ?? name)>"
                rest = tail[tail.index(after: end)...]
            } else {
                result += "(?P"
                rest = tail
            }
        }
        return result + rest
    }
}
