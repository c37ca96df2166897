/// Translates regular expressions from Oniguruma, the reference's engine, to ICU.
///
/// Both have nearly the same syntax. The differences in Oniguruma:
/// - `.` matches every character but "\n";
/// - `^` and `$` match at the ends of each line, but `^` not after a "\n" that ends the text;
/// - `\w` excludes joiners and includes "²³¹¼½¾"; `\h` is a hexadecimal digit.
enum OnigurumaSyntax {
    private static let word = #"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u00B2\u00B3\u00B9\u00BC-\u00BE"#

    /// - Returns: `nil` for options that ICU interprets differently.
    static func translated(_ expression: String) -> String? {
        var result = ""
        /// Nesting depth of character classes.
        var depth = 0
        var scalars = expression.unicodeScalars.makeIterator()
        var isGroup = 0
        while let scalar = scalars.next() {
            // In Oniguruma `(?m` lets the dot match line breaks; in ICU it changes anchors.
            isGroup = scalar == "(" ? 1 : isGroup == 1 && scalar == "?" ? 2 : isGroup == 2 && isOption(scalar) ? 2 : 0
            if isGroup == 2, scalar == "m" || scalar == "s" || scalar == "x", depth == 0 { return nil }
            switch scalar {
            case "\\":
                guard let escaped = scalars.next() else { return nil }
                switch escaped {
                case "w": result += depth > 0 ? word : "[\(word)]"
                case "W": result += "[^\(word)]"
                case "h": result += depth > 0 ? "0-9a-fA-F" : "[0-9a-fA-F]"
                case "H": result += "[^0-9a-fA-F]"
                default:
                    result += "\\"
                    result.unicodeScalars.append(escaped)
                }
            case "[":
                depth += 1
                result += "["
            case "]":
                depth = max(0, depth - 1)
                result += "]"
            case "." where depth == 0: result += #"[^\n]"#
            case "^" where depth == 0: result += #"(?:^|(?<=\n)(?!\z))"#
            case "$" where depth == 0: result += #"(?=\n|\z)"#
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    private static func isOption(_ scalar: Unicode.Scalar) -> Bool {
        scalar == "i" || scalar == "m" || scalar == "s" || scalar == "x" || scalar == "-"
    }
}
