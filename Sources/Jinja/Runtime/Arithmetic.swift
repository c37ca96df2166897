import Foundation

/// Python's arithmetic on integers (64 bits; overflow is an error), floats, strings and lists.
enum Arithmetic {
    static func result(_ a: JinjaValue, _ sign: String, _ b: JinjaValue) throws -> JinjaValue {
        if let x = a.wholeNumber, let y = b.wholeNumber { return try whole(x, sign, y) }
        if let x = a.numeric, let y = b.numeric { return try real(x, sign, y) }
        switch (a, sign, b) {
        case (.string(let format), "%", .undefined): return .string(try PercentFormat.text(format, b))
        case (.undefined(let reason), _, _), (_, _, .undefined(let reason)): throw JinjaFailure(reason)
        case (.string(let x), "+", .string(let y)): return .string(try joined(x, y))
        case (.markup(let x), "+", .markup(let y)): return .markup(try joined(x, y))
        case (.markup(let x), "+", .string(let y)): return .markup(try joined(x, escaped(y)))
        case (.string(let x), "+", .markup(let y)): return .markup(try joined(escaped(x), y))
        case (.list(let x), "+", .list(let y)): return .list(x + y)
        case (.tuple(let x), "+", .tuple(let y)): return .tuple(x + y)
        case (.string, "*", _), (.list, "*", _), (.tuple, "*", _):
            if let count = b.wholeNumber { return try repeated(a, count) }
        case (_, "*", .string), (_, "*", .list), (_, "*", .tuple):
            if let count = a.wholeNumber { return try repeated(b, count) }
        case (.string(let format), "%", _): return .string(try PercentFormat.text(format, b))
        case (.markup, "%", _):
            throw JinjaFailure("'%' is not supported on text marked by 'safe' or 'escape'")
        default: break
        }
        throw JinjaFailure("unsupported operand type(s) for \(sign): '\(a.typeName)' and '\(b.typeName)'")
    }

    static func negative(_ value: JinjaValue) throws -> JinjaValue {
        if let whole = value.wholeNumber { return try Self.whole(0, "-", whole) }
        if case .number(let number) = value { return .number(-number) }
        if case .undefined(let reason) = value { throw JinjaFailure(reason) }
        throw JinjaFailure("bad operand type for unary -: '\(value.typeName)'")
    }

    static func positive(_ value: JinjaValue) throws -> JinjaValue {
        if let whole = value.wholeNumber { return .integer(whole) }
        if case .number = value { return value }
        if case .undefined(let reason) = value { throw JinjaFailure(reason) }
        throw JinjaFailure("bad operand type for unary +: '\(value.typeName)'")
    }

    /// Escapes HTML's special characters as MarkupSafe does.
    static func escaped(_ text: String) -> String {
        var out = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": out += "&amp;"
            case "<": out += "&lt;"
            case ">": out += "&gt;"
            case "'": out += "&#39;"
            case "\"": out += "&#34;"
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out
    }

    private static func joined(_ a: String, _ b: String) throws -> String {
        guard a.utf8.count + b.utf8.count <= JinjaLimits.text else { throw JinjaFailure("a string is too long") }
        return a + b
    }

    private static func repeated(_ value: JinjaValue, _ count: Int) throws -> JinjaValue {
        let count = max(0, count)
        func check(_ size: Int) throws {
            guard count == 0 || size <= JinjaLimits.text / count else { throw JinjaFailure("a value is too long") }
        }
        switch value {
        case .string(let text):
            try check(text.utf8.count)
            return .string(String(repeating: text, count: count))
        case .list(let values):
            try check(values.count)
            return .list(Array(repeatElement(values, count: count).joined()))
        case .tuple(let values):
            try check(values.count)
            return .tuple(Array(repeatElement(values, count: count).joined()))
        default: return value
        }
    }

    private static func whole(_ a: Int, _ sign: String, _ b: Int) throws -> JinjaValue {
        func checked(_ result: (partialValue: Int, overflow: Bool)) throws -> JinjaValue {
            guard !result.overflow else { throw JinjaFailure("the result of \(a) \(sign) \(b) is too large") }
            return .integer(result.partialValue)
        }
        switch sign {
        case "+": return try checked(a.addingReportingOverflow(b))
        case "-": return try checked(a.subtractingReportingOverflow(b))
        case "*": return try checked(a.multipliedReportingOverflow(by: b))
        case "/":
            guard b != 0 else { throw JinjaFailure("division by zero") }
            return .number(Double(a) / Double(b))
        case "//", "%":
            guard b != 0 else { throw JinjaFailure("integer division or modulo by zero") }
            let (quotient, overflow) = a.dividedReportingOverflow(by: b)
            guard !overflow else { return try checked((0, true)) }
            let rest = a - quotient * b
            // Python rounds towards negative infinity, and the remainder has the divisor's sign.
            let isBelow = rest != 0 && (rest < 0) != (b < 0)
            return .integer(sign == "//" ? (isBelow ? quotient - 1 : quotient) : (isBelow ? rest + b : rest))
        default:
            if b < 0 { return try real(Double(a), sign, Double(b)) }
            var (base, exponent, result) = (a, b, 1)
            while exponent > 0 {
                if exponent & 1 == 1 {
                    let (product, overflow) = result.multipliedReportingOverflow(by: base)
                    guard !overflow else { return try checked((0, true)) }
                    result = product
                }
                exponent >>= 1
                if exponent > 0 {
                    let (square, overflow) = base.multipliedReportingOverflow(by: base)
                    guard !overflow else { return try checked((0, true)) }
                    base = square
                }
            }
            return .integer(result)
        }
    }

    private static func real(_ a: Double, _ sign: String, _ b: Double) throws -> JinjaValue {
        switch sign {
        case "+": return .number(a + b)
        case "-": return .number(a - b)
        case "*": return .number(a * b)
        case "/", "//", "%":
            guard b != 0 else { throw JinjaFailure("float division by zero") }
            if sign == "/" { return .number(a / b) }
            var rest = fmod(a, b)
            if rest != 0, (rest < 0) != (b < 0) { rest += b }
            return .number(sign == "%" ? rest : ((a - rest) / b).rounded())
        default:
            guard a != 0 || b >= 0 else { throw JinjaFailure("0.0 cannot be raised to a negative power") }
            return .number(pow(a, b))
        }
    }
}
