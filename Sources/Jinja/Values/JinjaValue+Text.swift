extension JinjaValue {
    /// Python's `str()`.
    func string() throws -> String {
        switch self {
        case .undefined: ""
        case .string(let text), .markup(let text): text
        default: try representation()
        }
    }

    /// Python's `repr()`.
    func representation(_ level: Int = 0) throws -> String {
        guard level <= JinjaLimits.depth else {
            throw JinjaFailure("a value is nested more than \(level) levels deep")
        }
        func joined(_ values: [JinjaValue]) throws -> String {
            try values.map { try $0.representation(level + 1) }.joined(separator: ", ")
        }
        switch self {
        case .undefined: return "Undefined"
        case .none: return "None"
        case .boolean(let value): return value ? "True" : "False"
        case .integer(let value): return String(value)
        case .number(let value): return Self.text(of: value)
        case .string(let text): return Self.quoted(text)
        case .markup(let text): return "Markup(\(Self.quoted(text)))"
        case .list(let values): return "[\(try joined(values))]"
        case .tuple(let values): return "(\(try joined(values))\(values.count == 1 ? "," : ""))"
        case .dictionary(let dictionary):
            let pairs = try dictionary.entries.map {
                "\(try $0.key.representation(level + 1)): \(try $0.value.representation(level + 1))"
            }
            return "{\(pairs.joined(separator: ", "))}"
        case .view(let view): return "dict_\(view.part.rawValue)([\(try joined(view.values))])"
        case .range(let range):
            let stop = range.start + range.count * range.step
            return range.step == 1
                ? "range(\(range.start), \(stop))" : "range(\(range.start), \(stop), \(range.step))"
        case .namespace(let namespace):
            return "<Namespace \(try JinjaValue.dictionary(namespace.attributes).representation(level + 1))>"
        case .generator, .loop, .function: throw JinjaFailure("a \(typeName) cannot be converted to text")
        }
    }

    /// Python's `repr` of a float: the shortest digits that read back.
    static func text(of value: Double) -> String {
        value.isNaN ? "nan" : value.isInfinite ? (value < 0 ? "-inf" : "inf") : "\(value)"
    }

    static func quoted(_ text: String) -> String {
        let quote: Unicode.Scalar = text.utf8.contains(0x27) && !text.utf8.contains(0x22) ? "\"" : "'"
        var out = String.UnicodeScalarView()
        func escape(_ letter: Unicode.Scalar, _ value: UInt32, _ digits: Int) {
            let hex = String(value, radix: 16)
            out.append("\\")
            out.append(letter)
            out.append(contentsOf: (String(repeating: "0", count: max(0, digits - hex.count)) + hex).unicodeScalars)
        }
        out.append(quote)
        for scalar in text.unicodeScalars {
            switch scalar {
            case quote, "\\":
                out.append("\\")
                out.append(scalar)
            case "\n": out.append(contentsOf: "\\n".unicodeScalars)
            case "\r": out.append(contentsOf: "\\r".unicodeScalars)
            case "\t": out.append(contentsOf: "\\t".unicodeScalars)
            case _ where scalar.isPrintable: out.append(scalar)
            case _ where scalar.value < 0x100: escape("x", scalar.value, 2)
            case _ where scalar.value < 0x10000: escape("u", scalar.value, 4)
            default: escape("U", scalar.value, 8)
            }
        }
        out.append(quote)
        return String(out)
    }
}

extension Unicode.Scalar {
    /// Whether Python's `repr` leaves the character as it is.
    fileprivate var isPrintable: Bool {
        if value < 0x7F { return value >= 0x20 }
        switch properties.generalCategory {
        case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator,
            .spaceSeparator:
            return false
        default: return true
        }
    }
}
