import Foundation

/// Regular expressions of Hugging Face's files, which are Python's, for `NSRegularExpression`.
enum PythonPattern {
    /// Named groups, `(?P<name>…)`, and references to them, `(?P=name)`, as ICU writes them: with names of letters and digits.
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
