import Foundation

/// Python's `%` formatting of strings: `"%s, %5.2f" % (name, number)`.
struct PercentFormat {
    private enum Values {
        case sequence([JinjaValue])
        case mapping(JinjaDictionary)
    }
    private let values: Values
    private var next = 0

    /// - Parameter value: a tuple of values, a dictionary of them by name, or one value.
    static func text(_ format: String, _ value: JinjaValue) throws -> String {
        var formatter = PercentFormat(value)
        let text = try formatter.text(Array(format.unicodeScalars))
        // Python treats a list as a mapping, whose entries may be unused.
        if case .list = value { return text }
        if case .sequence(let values) = formatter.values, formatter.next < values.count {
            throw JinjaFailure("not all arguments converted during string formatting")
        }
        return text
    }

    private init(_ value: JinjaValue) {
        switch value {
        case .tuple(let values): self.values = .sequence(values)
        case .dictionary(let dictionary): values = .mapping(dictionary)
        default: values = .sequence([value])
        }
    }

    private mutating func value() throws -> JinjaValue {
        switch values {
        case .sequence(let values):
            guard next < values.count else { throw JinjaFailure("not enough arguments for format string") }
            next += 1
            return values[next - 1]
        case .mapping(let dictionary):
            guard next == 0 else { throw JinjaFailure("not enough arguments for format string") }
            next += 1
            return .dictionary(dictionary)
        }
    }

    /// A conversion specifier such as `%-8.3f`.
    private struct Conversion {
        var flags: Set<Unicode.Scalar> = []
        var width = 0
        var precision: Int?
    }

    private mutating func text(_ format: [Unicode.Scalar]) throws -> String {
        var out = String.UnicodeScalarView()
        var place = 0
        func character() throws -> Unicode.Scalar {
            guard place < format.count else { throw JinjaFailure("incomplete format") }
            return format[place]
        }
        while place < format.count {
            guard format[place] == "%" else {
                out.append(format[place])
                place += 1
                continue
            }
            place += 1
            var named: JinjaValue?
            if try character() == "(" {
                guard case .mapping(let dictionary) = values else { throw JinjaFailure("format requires a mapping") }
                guard let end = format[place...].firstIndex(of: ")") else {
                    throw JinjaFailure("incomplete format key")
                }
                var name = String.UnicodeScalarView()
                name.append(contentsOf: format[(place + 1)..<end])
                guard let value = dictionary[String(name)] else { throw JinjaFailure("KeyError: '\(String(name))'") }
                (named, place) = (value, end + 1)
            }
            var conversion = Conversion()
            while "-+ #0".unicodeScalars.contains(try character()) {
                conversion.flags.insert(format[place])
                place += 1
            }
            func number() throws -> Int? {
                if try character() == "*" {
                    place += 1
                    return try value().integer(of: "* of a format")
                }
                var digits = ""
                while case let digit = try character(), "0123456789".unicodeScalars.contains(digit) {
                    digits.unicodeScalars.append(digit)
                    place += 1
                }
                return digits.isEmpty ? nil : Int(digits) ?? .max
            }
            if let width = try number() {
                if width < 0 { conversion.flags.insert("-") }
                conversion.width = try Self.checked(abs(max(width, -Int.max)))
            }
            if try character() == "." {
                place += 1
                conversion.precision = try Self.checked(max(0, number() ?? 0))
            }
            while "hlL".unicodeScalars.contains(try character()) { place += 1 }
            let kind = try character()
            place += 1
            if kind == "%" {
                out.append("%")
                continue
            }
            out.append(contentsOf: try converted(try named ?? value(), kind, conversion).unicodeScalars)
        }
        return String(out)
    }

    private static func checked(_ size: Int) throws -> Int {
        guard size <= 10_000 else { throw JinjaFailure("the width \(size) in a format is too large") }
        return size
    }

    private func converted(_ value: JinjaValue, _ kind: Unicode.Scalar, _ conversion: Conversion) throws -> String {
        func cut(_ text: String) -> String {
            guard let precision = conversion.precision else { return text }
            return String(String.UnicodeScalarView(text.unicodeScalars.prefix(precision)))
        }
        switch kind {
        case "s": return padded("", cut(try value.string()), conversion, isNumber: false)
        case "r": return padded("", cut(try value.representation()), conversion, isNumber: false)
        case "a": throw JinjaFailure("the format %a is not supported")
        case "c":
            if let code = value.wholeNumber {
                guard let scalar = UInt32(exactly: code).flatMap(Unicode.Scalar.init) else {
                    throw JinjaFailure("%c arg not in range(0x110000)")
                }
                return padded("", String(scalar), conversion, isNumber: false)
            }
            guard let text = value.text, text.unicodeScalars.count == 1 else {
                throw JinjaFailure("%c requires int or char")
            }
            return padded("", text, conversion, isNumber: false)
        case "d", "i", "u", "x", "X", "o": return try whole(value, kind, conversion)
        case "e", "E", "f", "F", "g", "G": return try real(value, kind, conversion)
        default: throw JinjaFailure("unsupported format character '\(kind)'")
        }
    }

    private func whole(_ value: JinjaValue, _ kind: Unicode.Scalar, _ conversion: Conversion) throws -> String {
        var number = value.wholeNumber
        if number == nil, case .number(let real) = value, "diu".unicodeScalars.contains(kind) {
            number = Int(exactly: real.rounded(.towardZero))
        }
        guard let number else {
            if case .undefined(let reason) = value { throw JinjaFailure(reason) }
            throw JinjaFailure("%\(kind) format: a real number is required, not \(value.typeName)")
        }
        var digits: String
        switch kind {
        case "x": digits = String(number.magnitude, radix: 16)
        case "X": digits = String(number.magnitude, radix: 16).uppercased()
        case "o": digits = String(number.magnitude, radix: 8)
        default: digits = String(number.magnitude)
        }
        if let precision = conversion.precision {
            digits = String(repeating: "0", count: max(0, precision - digits.count)) + digits
        }
        var sign = sign(number < 0, conversion)
        if conversion.flags.contains("#"), "xXo".unicodeScalars.contains(kind) { sign += "0\(kind)" }
        return padded(sign, digits, conversion, isNumber: true)
    }

    private func real(_ value: JinjaValue, _ kind: Unicode.Scalar, _ conversion: Conversion) throws -> String {
        let number = try value.numeric ?? failure(value)
        let sign = sign(number.sign == .minus && !number.isNaN, conversion)
        let isUpper = "EFG".unicodeScalars.contains(kind)
        guard number.isFinite else {
            let text = number.isNaN ? "nan" : "inf"
            return padded(sign, isUpper ? text.uppercased() : text, conversion, isNumber: true)
        }
        let format = "%\(conversion.flags.contains("#") ? "#" : "").*\(kind)"
        let digits = String(format: format, conversion.precision ?? 6, number.magnitude)
        return padded(sign, digits, conversion, isNumber: true)
    }

    private func failure(_ value: JinjaValue) throws -> Double {
        if case .undefined(let reason) = value { throw JinjaFailure(reason) }
        throw JinjaFailure("must be real number, not \(value.typeName)")
    }

    private func sign(_ isNegative: Bool, _ conversion: Conversion) -> String {
        isNegative ? "-" : conversion.flags.contains("+") ? "+" : conversion.flags.contains(" ") ? " " : ""
    }

    private func padded(_ sign: String, _ text: String, _ conversion: Conversion, isNumber: Bool) -> String {
        let missing = max(0, conversion.width - sign.unicodeScalars.count - text.unicodeScalars.count)
        if conversion.flags.contains("-") { return sign + text + String(repeating: " ", count: missing) }
        if isNumber, conversion.flags.contains("0") { return sign + String(repeating: "0", count: missing) + text }
        return String(repeating: " ", count: missing) + sign + text
    }
}
