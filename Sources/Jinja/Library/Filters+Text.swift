extension Filters {
    static let text: [String: Filter] = [
        "upper": plain("upper") { try changed($0) { $0.uppercased() } },
        "lower": plain("lower") { try changed($0) { $0.lowercased() } },
        "capitalize": plain("capitalize") { try changed($0) { $0.pythonCapitalized } },
        "title": plain("title") { try changed($0, title) },
        "trim": { _, value, arguments in
            let set = try arguments.bound("trim", ["chars"]).text(0, "the characters")
            return try changed(value) { $0.stripped(set) }
        },
        "replace": { _, value, arguments in
            let given = try arguments.bound("replace", ["old", "new", "count"], required: 2)
            let text = try unmarked(value, "replace")
            let (old, new) = (try unmarked(given[0], "replace"), try unmarked(given[1], "replace"))
            return .string(text.replacing(old, by: new, most: try given.integer(2, "the count") ?? -1))
        },
        "indent": { _, value, arguments in
            let given = try arguments.bound("indent", ["width", "first", "blank"])
            let width: String
            if let text = given[0]?.text {
                width = text
            } else {
                width = String(repeating: " ", count: max(0, min(1000, try given.integer(0, "the width") ?? 4)))
            }
            let text = try value.text(of: "what is indented")
            return .string(
                indented(try unmarked(.string(text), "indent"), width, first: given.isTrue(1), blank: given.isTrue(2))
            )
        },
        "wordcount": plain("wordcount") { value in
            var (count, isInside) = (0, false)
            for scalar in try unmarked(value, "wordcount").unicodeScalars {
                let isWord = scalar.properties.isAlphabetic || scalar.properties.numericType != nil || scalar == "_"
                if isWord, !isInside { count += 1 }
                isInside = isWord
            }
            return .integer(count)
        },
        "center": { _, value, arguments in
            let width = try arguments.bound("center", ["width"]).integer(0, "the width") ?? 80
            return .string(try Methods.padded(unmarked(value, "center"), width, " ", .center))
        },
    ]

    /// Transforms the text of any value; keeps an HTML mark.
    private static func changed(_ value: JinjaValue, _ change: (String) -> String) throws -> JinjaValue {
        let text = change(try value.string())
        if case .markup = value { return .markup(text) }
        return .string(text)
    }

    /// Text of any value that isn't marked as HTML, for filters whose result a mark would change.
    static func unmarked(_ value: JinjaValue?, _ filter: String) throws -> String {
        guard let value else { return "" }
        if case .markup = value {
            throw JinjaFailure("the filter '\(filter)' is not supported on text marked by 'safe' or 'escape'")
        }
        return try value.string()
    }

    /// Jinja's title case: words begin after whitespace, hyphens and opening brackets.
    private static func title(_ text: String) -> String {
        var out = ""
        var isInside = false
        for scalar in text.unicodeScalars {
            if scalar.isPythonSpace || "-({[<".unicodeScalars.contains(scalar) {
                out.unicodeScalars.append(scalar)
                isInside = false
            } else {
                out += isInside ? scalar.properties.lowercaseMapping : scalar.properties.uppercaseMapping
                isInside = true
            }
        }
        return out
    }

    private static func indented(_ text: String, _ width: String, first: Bool, blank: Bool) -> String {
        let lines = (text + "\n").lines()
        let rest = lines.dropFirst().map { blank || !$0.isEmpty ? width + $0 : $0 }
        return (first ? width : "") + ([lines.first ?? ""] + rest).joined(separator: "\n")
    }
}
