import PEFTSupport

/// What Python's `json.dumps` writes.
struct JSONText {
    var asciiOnly = false
    /// What each level is moved by; `nil` writes one line.
    var indent: String?
    var itemSeparator: String?
    var keySeparator = ": "
    var sortsKeys = false

    func text(of value: JinjaValue) throws -> String {
        var out = ""
        try write(value, into: &out, level: 0)
        return out
    }

    private func write(_ value: JinjaValue, into out: inout String, level: Int) throws {
        guard level <= JinjaLimits.depth else {
            throw JinjaFailure("a value is nested more than \(level) levels deep")
        }
        switch value {
        case .none: out += "null"
        case .boolean(let value): out += value ? "true" : "false"
        case .integer(let value): out += String(value)
        case .number(let value): out += Self.text(of: value)
        case .string(let text), .markup(let text): JSON.quote(text, asciiOnly: asciiOnly, into: &out)
        case .list(let values), .tuple(let values):
            try write(values, "[", "]", into: &out, level) { value, out in
                try write(value, into: &out, level: level + 1)
            }
        case .dictionary(let dictionary):
            var pairs = try dictionary.entries.map { (name: try Self.name(of: $0.key), value: $0.value) }
            if sortsKeys { pairs.sort { $0.name.precedes($1.name) } }
            try write(pairs, "{", "}", into: &out, level) { pair, out in
                JSON.quote(pair.name, asciiOnly: asciiOnly, into: &out)
                out += keySeparator
                try write(pair.value, into: &out, level: level + 1)
            }
        default: throw JinjaFailure("Object of type \(value.typeName) is not JSON serializable")
        }
    }

    private func write<Element>(
        _ elements: [Element], _ open: String, _ close: String, into out: inout String, _ level: Int,
        _ body: (Element, inout String) throws -> Void
    ) throws {
        out += open
        let separator = itemSeparator ?? (indent == nil ? ", " : ",")
        for (index, element) in elements.enumerated() {
            if index > 0 { out += separator }
            if let indent { out += "\n" + String(repeating: indent, count: level + 1) }
            try body(element, &out)
        }
        if let indent, !elements.isEmpty { out += "\n" + String(repeating: indent, count: level) }
        out += close
    }

    private static func text(of value: Double) -> String {
        value.isNaN ? "NaN" : value.isInfinite ? (value < 0 ? "-Infinity" : "Infinity") : JinjaValue.text(of: value)
    }

    private static func name(of key: JinjaValue) throws -> String {
        switch key {
        case .string(let text), .markup(let text): text
        case .none: "null"
        case .boolean(let value): value ? "true" : "false"
        case .integer(let value): String(value)
        case .number(let value): text(of: value)
        default: throw JinjaFailure("keys must be str, int, float, bool or None, not \(key.typeName)")
        }
    }
}

extension JinjaValue {
    /// The value as `json.dumps(value, ensure_ascii=False)` writes it; `nil` for a value that JSON doesn't have.
    package var jsonText: String? { try? JSONText().text(of: self) }
}
