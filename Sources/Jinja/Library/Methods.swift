/// The methods of Python's types that the immutable sandbox allows.
enum Methods {
    private typealias Body = (Arguments) throws -> JinjaValue

    private static let numberAttributes: Set = [
        "as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator", "from_bytes", "fromhex", "hex",
        "imag",
        "is_integer", "numerator", "real", "to_bytes",
    ]

    /// The method `name` of a value, `nil` if its type has none.
    /// - Throws: for methods of Python that are not supported, or that would modify the value.
    static func method(_ name: String, of value: JinjaValue) throws -> JinjaValue? {
        let body: Body?
        switch value {
        case .string(let text): body = try TextMethods.method(name, text)
        case .markup(let text):
            if name.hasPrefix("_") { return nil }
            guard try TextMethods.method(name, text) != nil else { return nil }
            throw JinjaFailure("'\(name)' is not supported on text marked by 'safe' or 'escape'")
        case .dictionary(let dictionary): body = try method(name, dictionary)
        case .list(let values), .tuple(let values): body = try method(name, values, isList: value.typeName == "list")
        case .integer, .number, .boolean:
            guard !numberAttributes.contains(name) else {
                throw JinjaFailure("the attribute '\(name)' of numbers is not supported")
            }
            return nil
        case .function(let function):
            guard name.hasPrefix("_") else {
                throw JinjaFailure("the attribute '\(name)' of the function '\(function.name)' is not supported")
            }
            return nil
        default: return nil
        }
        return body.map { body in .function(Function(name: name) { _, arguments in try body(arguments) }) }
    }

    private static func method(_ name: String, _ dictionary: JinjaDictionary) throws -> Body? {
        switch name {
        case "keys", "values", "items":
            let part = DictionaryView.Part(rawValue: name) ?? .keys
            return { arguments in
                _ = try arguments.bound(name, [])
                return .view(DictionaryView(dictionary: dictionary, part: part))
            }
        case "get":
            return { arguments in
                let given = try arguments.bound("get", ["key", "default"], required: 1)
                return try dictionary.value(for: given[0] ?? .none) ?? given[1] ?? .none
            }
        case "copy": return { _ in .dictionary(dictionary) }
        case "pop", "popitem", "setdefault", "update", "clear": throw unsafe(name, "dict")
        case "fromkeys": throw JinjaFailure("the method 'fromkeys' is not supported")
        default: return nil
        }
    }

    private static func method(_ name: String, _ values: [JinjaValue], isList: Bool) throws -> Body? {
        switch name {
        case "index":
            return { arguments in
                let wanted = try arguments.bound("index", ["value"], required: 1)[0] ?? .none
                guard let index = values.firstIndex(where: { $0.isEqual(to: wanted) }) else {
                    throw JinjaFailure("\((try? wanted.representation()) ?? "the value") is not in list")
                }
                return .integer(index)
            }
        case "count":
            return { arguments in
                let wanted = try arguments.bound("count", ["value"], required: 1)[0] ?? .none
                return .integer(values.count { $0.isEqual(to: wanted) })
            }
        case "copy" where isList: return { _ in .list(values) }
        case "append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort":
            guard isList else { return nil }
            throw unsafe(name, "list")
        default: return nil
        }
    }

    private static func unsafe(_ name: String, _ type: String) -> JinjaFailure {
        JinjaFailure(
            "'\(name)' would change a \(type), which templates are not allowed to do",
            remedy: "build a new one, such as `values + [value]`, or keep it in a namespace")
    }

    enum Alignment { case left, right, center }

    /// `text` padded to `width` characters.
    static func padded(_ text: String, _ width: Int, _ filling: String, _ alignment: Alignment) throws -> String {
        guard width <= JinjaLimits.text / 4 else { throw JinjaFailure("a string is too long") }
        guard filling.unicodeScalars.count == 1 else {
            throw JinjaFailure("The fill character must be exactly one character long")
        }
        let count = text.unicodeScalars.count
        let gap = max(0, width - count)
        let left: Int
        switch alignment {
        case .left: left = 0
        case .right: left = gap
        // Python's rule for odd padding.
        case .center: left = gap / 2 + (gap & width & 1)
        }
        return String(repeating: filling, count: left) + text + String(repeating: filling, count: gap - left)
    }
}
