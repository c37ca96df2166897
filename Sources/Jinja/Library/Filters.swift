/// The filters. Signatures and results are Jinja's, except `tojson`, which is transformers'.
enum Filters {
    typealias Filter = @Sendable (Interpreter, JinjaValue, Arguments) throws -> JinjaValue

    static let all: [String: Filter] = [text, sequences, values, groups, layout, web].reduce(into: [:]) { all, part in
        all.merge(part) { first, _ in first }
    }

    /// A filter without arguments.
    static func plain(
        _ name: String, _ body: @escaping @Sendable (JinjaValue) throws -> JinjaValue
    ) -> Filter {
        { _, value, arguments in
            _ = try arguments.bound(name, [])
            return try body(value)
        }
    }

    /// Filters of numbers, of HTML marks, and of any value.
    private static let values: [String: Filter] = {
        let fallback: Filter = { _, value, arguments in
            let given = try arguments.bound("default", ["default_value", "boolean"])
            return value.isUndefined || (given.isTrue(1) && !value.isTrue) ? given[0] ?? .string("") : value
        }
        let escape = plain("escape") {
            if case .markup = $0 { return $0 }
            return .markup(Arithmetic.escaped(try $0.string()))
        }
        let length = plain("length") { .integer(try $0.length()) }
        return [
            "default": fallback, "d": fallback, "escape": escape, "e": escape, "length": length, "count": length,
            "forceescape": plain("forceescape") { .markup(Arithmetic.escaped(try $0.string())) },
            "safe": plain("safe") { .markup(try $0.string()) },
            "string": plain("string") { $0.text == nil ? .string(try $0.string()) : $0 },
            "tojson": json, "int": whole, "float": number, "round": round,
            "abs": plain("abs") { value in
                if let whole = value.wholeNumber {
                    return whole < 0 ? try Arithmetic.negative(value) : .integer(whole)
                }
                guard case .number(let number) = value else {
                    throw JinjaFailure("bad operand type for abs(): '\(value.typeName)'")
                }
                return .number(abs(number))
            },
        ]
    }()

    private static let json: Filter = { interpreter, value, arguments in
        let given = try arguments.bound("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])
        var writer = JSONText()
        writer.asciiOnly = given.isTrue(0)
        switch given[1] {
        case nil, .some(.none): break
        case .string(let text)?: writer.indent = text
        case let width?:
            writer.indent = String(repeating: " ", count: max(0, min(64, try width.integer(of: "indent"))))
        }
        if let separators = given[2], !separators.isNone {
            guard let pair = separators.elements, pair.count == 2 else {
                throw JinjaFailure("tojson's separators must be two strings")
            }
            writer.itemSeparator = try pair[0].text(of: "a separator")
            writer.keySeparator = try pair[1].text(of: "a separator")
        }
        writer.sortsKeys = given.isTrue(3)
        let text = try writer.text(of: value)
        try interpreter.spend(text.utf8.count / 16)
        return .string(text)
    }

    private static let whole: Filter = { _, value, arguments in
        let given = try arguments.bound("int", ["default", "base"])
        guard try given.integer(1, "the base") ?? 10 == 10 else { throw JinjaFailure("int's base must be 10") }
        func whole(_ number: Double) throws -> JinjaValue? {
            guard number.isFinite else { return nil }
            guard let value = Int(exactly: number.rounded(.towardZero)) else {
                throw JinjaFailure("the number \(number) is too large for an integer")
            }
            return .integer(value)
        }
        let fallback = given[0] ?? .integer(0)
        if let number = value.wholeNumber { return .integer(number) }
        if case .number(let number) = value { return try whole(number) ?? fallback }
        guard let text = value.text.map({ PythonNumber.digits($0) }) else {
            if case .undefined(let reason) = value { throw JinjaFailure(reason) }
            return fallback
        }
        if let number = text.flatMap({ Int($0) }) { return .integer(number) }
        return try text.flatMap { PythonNumber.float($0) }.flatMap { try whole($0) } ?? fallback
    }

    private static let number: Filter = { _, value, arguments in
        let fallback = try arguments.bound("float", ["default"])[0] ?? .number(0)
        if case .undefined(let reason) = value { throw JinjaFailure(reason) }
        if let number = value.numeric { return .number(number) }
        return value.text.flatMap { PythonNumber.digits($0) }.flatMap { PythonNumber.float($0) }.map { .number($0) }
            ?? fallback
    }

    private static let round: Filter = { _, value, arguments in
        let given = try arguments.bound("round", ["precision", "method"])
        let precision = try given.integer(0, "the precision") ?? 0
        let method = try given.text(1, "the method") ?? "common"
        guard -15...15 ~= precision else { throw JinjaFailure("round's precision must be -15 … 15") }
        guard let number = value.numeric else {
            if case .undefined(let reason) = value { throw JinjaFailure(reason) }
            throw JinjaFailure("round needs a number, not \(value.typeName)")
        }
        let scale = PythonNumber.power(of: precision)
        switch method {
        case "ceil": return .number((number * scale).rounded(.up) / scale)
        case "floor": return .number((number * scale).rounded(.down) / scale)
        case "common":
            if let whole = value.wholeNumber {
                guard precision < 0 else { return .integer(whole) }
                throw JinjaFailure("rounding an integer to tens is not supported")
            }
            return .number(PythonNumber.rounded(number, places: precision))
        default: throw JinjaFailure("round's method must be common, ceil or floor")
        }
    }
}
