import Foundation

/// Text from data, models, tokenizers and adapters may hold characters that command a terminal: colors, titles, the
/// cursor, even keys. A terminal is shown them as `\u{1b}`; pipes and files get the text as it is.
extension Console {
    /// The sequences that the program itself writes, for emphasis.
    private static let own = ["\u{1B}[1;32m", "\u{1B}[1m", "\u{1B}[0m"].map { Array($0.unicodeScalars) }

    /// Text with its control characters spelled out, but for tabs, line ends and the program's own emphasis.
    static func shown(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: isControl) else { return text }
        var result = ""
        var rest = Array(text.unicodeScalars)[...]
        while let scalar = rest.first {
            if let sequence = own.first(where: { rest.starts(with: $0) }) {
                result.unicodeScalars.append(contentsOf: sequence)
                rest.removeFirst(sequence.count)
                continue
            }
            rest.removeFirst()
            let endsLine = scalar == "\r" && rest.first == "\n"
            if isControl(scalar), !endsLine {
                result += spelledOut(scalar)
            } else {
                result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    /// The same in one line, for errors.
    static func shownInOneLine(_ text: String) -> String {
        shown(text.replacingOccurrences(of: "\r", with: spelledOut("\r"))).split(
            separator: "\n", omittingEmptySubsequences: false
        ).joined(separator: spelledOut("\n"))
    }

    private static func spelledOut(_ scalar: Unicode.Scalar) -> String { "\\u{\(String(scalar.value, radix: 16))}" }

    /// C0 and C1, where a terminal acts on them.
    private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar {
        case "\t", "\n": false
        default: scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value)
        }
    }
}
