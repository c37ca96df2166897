import Foundation

/// A regular expression from a file or a user, with a limit of matching steps.
///
/// Backtracking takes exponential time for expressions such as `(a+)+b`. The engine (ICU) reports its progress every 10,000
/// steps, so the limit counts steps and not seconds, and is the same on every machine.
package struct LimitedExpression: @unchecked Sendable {
    private let expression: NSRegularExpression

    /// - Throws: Foundation's error if it is not a regular expression in ICU's syntax.
    package init(_ pattern: String) throws { expression = try NSRegularExpression(pattern: pattern) }

    /// Whether the expression matches somewhere in `text`.
    /// - Throws: ``PEFTError`` if that exceeds the step limit.
    package func matches(_ text: String) throws -> Bool { try !ranges(in: text, most: 1).isEmpty }

    /// The ranges of the matches, counted in UTF-16 code units.
    /// - Parameter most: maximum number of matches.
    /// - Throws: ``PEFTError`` if that exceeds the step limit.
    package func ranges(in text: String, most: Int = .max) throws -> [NSRange] {
        let length = text.utf16.count
        // 10 million steps are some tenths of a second; ordinary expressions take up to 100 steps a character.
        var reports = 1_000 + length / 64
        var isExhausted = false
        var ranges: [NSRange] = []
        let whole = NSRange(location: 0, length: length)
        expression.enumerateMatches(in: text, options: .reportProgress, range: whole) { match, flags, stop in
            if let match {
                ranges.append(match.range)
            } else if flags.contains(.progress) {
                reports -= 1
            }
            if reports <= 0 || flags.contains(.internalError) { isExhausted = true }
            if isExhausted || ranges.count >= most { stop.pointee = true }
        }
        guard !isExhausted else {
            throw PEFTError(
                "the regular expression '\(expression.pattern.prefix(80))' takes too many steps on a text of \(length) characters",
                remedy: "write it without nested repetitions such as (a+)+")
        }
        return ranges
    }
}
