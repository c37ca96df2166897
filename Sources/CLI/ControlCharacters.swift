import Foundation

/// Data, models, tokenizers and adapters may contain control characters that change a terminal's colors, title, cursor
/// or even key bindings. They are escaped as `\u{1b}` on a terminal; pipes and files get the text unchanged.
extension Console {
    /// Escape sequences that the program itself writes, for emphasis.
    private static let emphasis = ["\u{1B}[1;32m", "\u{1B}[1m", "\u{1B}[0m"].map { Array($0.unicodeScalars) }

    /// Text with its control characters escaped, except tabs, line breaks and the program's own emphasis.
    static func shown(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: isControl) else { return text }
        var result = ""
        var rest = Array(text.unicodeScalars)[...]
        while let scalar = rest.first {
            if let sequence = emphasis.first(where: { rest.starts(with: $0) }) {
                result.unicodeScalars.append(contentsOf: sequence)
                rest.removeFirst(sequence.count)
                continue
            }
            rest.removeFirst()
            let endsLine = scalar == "\r" && rest.first == "\n"
            if isControl(scalar), !endsLine {
                result += escaped(scalar)
            } else {
                result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    /// The same on one line, for errors.
    static func shownInOneLine(_ text: String) -> String {
        shown(text.replacingOccurrences(of: "\r", with: escaped("\r"))).split(
            separator: "\n", omittingEmptySubsequences: false
        ).joined(separator: escaped("\n"))
    }

    private static func escaped(_ scalar: Unicode.Scalar) -> String { "\\u{\(String(scalar.value, radix: 16))}" }

    /// C0 and C1 control characters, except tab and line feed.
    private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar {
        case "\t", "\n": false
        default: scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value)
        }
    }
}
