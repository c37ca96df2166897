/// The `13a` tokenization of NIST's mteval script, as in sacrebleu: punctuation and symbols become
/// tokens, but a full stop or a comma between digits stays in its number.
enum BLEUTokenizer {
    typealias Scalars = [Unicode.Scalar]

    static func tokens(of text: String) -> [ArraySlice<Unicode.Scalar>] {
        var scalars = Scalars(text.unicodeScalars)
        while let last = scalars.last, isSpace(last) { scalars.removeLast() }
        scalars = replace("<skipped>", in: scalars, with: "")
        scalars = replace("-\n", in: scalars, with: "")
        scalars = replace("\n", in: scalars, with: " ")
        if scalars.contains("&") {
            for (entity, character) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
                scalars = replace(entity, in: scalars, with: character)
            }
        }
        scalars = [" "] + scalars + [" "]
        scalars = surroundSymbols(scalars)
        scalars = rewritePairs(scalars) { !isDigit($0) && isStop($1) ? [$0, " ", $1, " "] : nil }
        scalars = rewritePairs(scalars) { isStop($0) && !isDigit($1) ? [" ", $0, " ", $1] : nil }
        scalars = rewritePairs(scalars) { isDigit($0) && $1 == "-" ? [$0, " ", $1, " "] : nil }
        return scalars.split(whereSeparator: isSpace)
    }

    private static func isDigit(_ scalar: Unicode.Scalar) -> Bool { ("0"..."9").contains(scalar) }
    private static func isStop(_ scalar: Unicode.Scalar) -> Bool { scalar == "." || scalar == "," }

    /// Whitespace as in Python's `str.split`, which includes the information separators.
    private static func isSpace(_ scalar: Unicode.Scalar) -> Bool {
        (0x1C...0x1F).contains(scalar.value) || scalar.properties.isWhitespace
    }

    /// ASCII symbols apart from the apostrophe, the comma, the hyphen and the full stop.
    private static func surroundSymbols(_ scalars: Scalars) -> Scalars {
        var out: Scalars = []
        out.reserveCapacity(scalars.count + scalars.count / 4)
        for scalar in scalars {
            switch scalar {
            case "{"..."~", "["..."`", " "..."&", "("..."+", ":"..."@", "/": out += [" ", scalar, " "]
            default: out.append(scalar)
            }
        }
        return out
    }

    /// Replaces adjacent pairs from left to right; replaced text is not matched again.
    private static func rewritePairs(
        _ scalars: Scalars, _ replacement: (Unicode.Scalar, Unicode.Scalar) -> Scalars?
    ) -> Scalars {
        var out: Scalars = []
        out.reserveCapacity(scalars.count + scalars.count / 4)
        var index = 0
        while index < scalars.count {
            if index + 1 < scalars.count, let pair = replacement(scalars[index], scalars[index + 1]) {
                out += pair
                index += 2
            } else {
                out.append(scalars[index])
                index += 1
            }
        }
        return out
    }

    private static func replace(_ pattern: String, in scalars: Scalars, with replacement: String) -> Scalars {
        let pattern = Scalars(pattern.unicodeScalars)
        guard let first = pattern.first, scalars.contains(first) else { return scalars }
        var out: Scalars = []
        out.reserveCapacity(scalars.count)
        var index = 0
        while index < scalars.count {
            if scalars[index] == first, scalars[index...].starts(with: pattern) {
                out.append(contentsOf: replacement.unicodeScalars)
                index += pattern.count
            } else {
                out.append(scalars[index])
                index += 1
            }
        }
        return out
    }
}
