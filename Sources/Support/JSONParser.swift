/// A strict JSON parser (RFC 8259) that reports the position and kind of an error.
///
/// Foundation's decoder on Linux reports only *that* a text is not JSON; a user with a broken line in a
/// file of 100,000 rows needs the column. It also reads `1.0` as an integer, which would change the text
/// that a template renders.
package struct JSONParser {
    /// The problem and its byte offset.
    package struct Failure: Error {
        package var message: String
        package var offset: Int
    }

    private let bytes: ArraySlice<UInt8>
    private var index: Int
    private var depth = 0
    private var allowsRepeatedFields = true
    private var tagsInfinity = false
    private static let deepest = 256

    /// - Parameter bytes: valid UTF-8.
    private init(_ bytes: ArraySlice<UInt8>) {
        self.bytes = bytes
        index = bytes.startIndex
    }

    /// Parses one value that fills `bytes` (valid UTF-8).
    /// - Parameter tagsInfinity: whether `Infinity` is read as `{"__float__": "Infinity"}` rather than rejected.
    package static func parse(
        _ bytes: ArraySlice<UInt8>, allowsRepeatedFields: Bool = true, tagsInfinity: Bool = false
    ) throws(Failure) -> JSON {
        var parser = JSONParser(bytes)
        (parser.allowsRepeatedFields, parser.tagsInfinity) = (allowsRepeatedFields, tagsInfinity)
        parser.skipSpace()
        let value = try parser.value()
        parser.skipSpace()
        if parser.peek != nil { throw parser.failure("unexpected \(parser.found) after the end of the value") }
        return value
    }

    /// Parses an array and passes its elements, with their text, to `body` until it returns `false`.
    package static func elements(
        of bytes: ArraySlice<UInt8>, _ body: (JSON, ArraySlice<UInt8>) throws -> Bool
    ) throws {
        var parser = JSONParser(bytes)
        parser.skipSpace()
        guard parser.take("[") else { throw parser.failure("expected '[', found \(parser.found)") }
        parser.skipSpace()
        if !parser.take("]") {
            while true {
                parser.skipSpace()
                let start = parser.index
                let value = try parser.value()
                guard try body(value, bytes[start..<parser.index]) else { return }
                parser.skipSpace()
                if parser.take("]") { break }
                guard parser.take(",") else {
                    throw parser.failure("expected ',' or ']' after an element, found \(parser.found)")
                }
            }
        }
        parser.skipSpace()
        if parser.peek != nil { throw parser.failure("unexpected \(parser.found) after the array") }
    }

    /// Parses concatenated values, separated by optional whitespace, and passes them with their text to `body`
    /// until it returns `false`.
    package static func values(
        of bytes: ArraySlice<UInt8>, _ body: (JSON, ArraySlice<UInt8>) throws -> Bool
    ) throws {
        var parser = JSONParser(bytes)
        parser.skipSpace()
        while parser.peek != nil {
            let start = parser.index
            let value = try parser.value()
            guard try body(value, bytes[start..<parser.index]) else { return }
            parser.skipSpace()
        }
    }

    /// The fields of an object in their order, each with its text.
    package static func members(
        of bytes: ArraySlice<UInt8>
    ) throws(Failure) -> [(name: String, value: JSON, text: ArraySlice<UInt8>)] {
        var parser = JSONParser(bytes)
        var members: [(name: String, value: JSON, text: ArraySlice<UInt8>)] = []
        parser.skipSpace()
        guard parser.take("{") else { throw parser.failure("expected '{', found \(parser.found)") }
        parser.skipSpace()
        if parser.take("}") { return members }
        while true {
            let name = try parser.fieldName()
            let start = parser.index
            members.append((name, try parser.value(), bytes[start..<parser.index]))
            parser.skipSpace()
            if parser.take("}") { return members }
            guard parser.take(",") else {
                throw parser.failure("expected ',' or '}' after a value, found \(parser.found)")
            }
        }
    }

    private var peek: UInt8? { index < bytes.endIndex ? bytes[index] : nil }

    /// The next character, for errors.
    private var found: String {
        guard index < bytes.endIndex else { return "the end" }
        let rest = bytes[index...].prefix(8)
        guard let scalar = String(decoding: rest, as: UTF8.self).unicodeScalars.first else { return "the end" }
        return scalar.value < 0x20 ? "a control character" : "'\(scalar)'"
    }

    private func failure(_ message: String, at offset: Int? = nil) -> Failure {
        Failure(message: message, offset: (offset ?? index) - bytes.startIndex)
    }

    private mutating func skipSpace() {
        while let byte = peek, byte == 0x20 || byte == 0x09 || byte == 0x0A || byte == 0x0D { index += 1 }
    }

    private mutating func take(_ scalar: Unicode.Scalar) -> Bool {
        guard peek == UInt8(ascii: scalar) else { return false }
        index += 1
        return true
    }

    private mutating func take(word: String) -> Bool {
        guard bytes[index...].starts(with: word.utf8) else { return false }
        index += word.utf8.count
        return true
    }

    private mutating func value() throws(Failure) -> JSON {
        guard let byte = peek else { throw failure("expected a value, found the end") }
        switch byte {
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "{"): return .object(try object())
        case UInt8(ascii: "["): return .array(try array())
        case UInt8(ascii: "-"), 0x30...0x39: return try number()
        default: break
        }
        if take(word: "true") { return .bool(true) }
        if take(word: "false") { return .bool(false) }
        if take(word: "null") { return .null }
        if tagsInfinity, take(word: "Infinity") { return .object(["__float__": .string("Infinity")]) }
        for word in ["NaN", "Infinity", "None", "True", "False"] where bytes[index...].starts(with: word.utf8) {
            throw failure("\(word) is not JSON")
        }
        if peek == UInt8(ascii: "'") { throw failure("strings need double quotes, found '") }
        throw failure("expected a value, found \(found)")
    }

    private mutating func deeper() throws(Failure) {
        depth += 1
        if depth > JSONParser.deepest { throw failure("nested deeper than \(JSONParser.deepest) levels") }
    }

    private mutating func object() throws(Failure) -> [String: JSON] {
        try deeper()
        defer { depth -= 1 }
        index += 1
        var fields: [String: JSON] = [:]
        skipSpace()
        if take("}") { return fields }
        while true {
            skipSpace()
            let start = index
            let key = try fieldName()
            if !allowsRepeatedFields, fields[key] != nil {
                throw failure("duplicate field '\(key)'", at: start)
            }
            fields[key] = try value()
            skipSpace()
            if take("}") { return fields }
            guard take(",") else { throw failure("expected ',' or '}' after a value, found \(found)") }
        }
    }

    /// A name with the colon after it, up to the value.
    private mutating func fieldName() throws(Failure) -> String {
        skipSpace()
        guard peek == UInt8(ascii: "\"") else {
            throw failure("expected a field name in double quotes, found \(found)")
        }
        let name = try string()
        skipSpace()
        guard take(":") else { throw failure("expected ':' after a field name, found \(found)") }
        skipSpace()
        return name
    }

    private mutating func array() throws(Failure) -> [JSON] {
        try deeper()
        defer { depth -= 1 }
        index += 1
        var values: [JSON] = []
        skipSpace()
        if take("]") { return values }
        while true {
            skipSpace()
            values.append(try value())
            skipSpace()
            if take("]") { return values }
            guard take(",") else { throw failure("expected ',' or ']' after a value, found \(found)") }
        }
    }

    private mutating func string() throws(Failure) -> String {
        let opening = index
        index += 1
        var text = ""
        while true {
            let plain = index
            skipPlain()
            guard let byte = peek else { throw failure("unterminated string", at: opening) }
            let part = String(decoding: bytes[plain..<index], as: UTF8.self)
            switch byte {
            case UInt8(ascii: "\""):
                index += 1
                // Most strings have no escapes.
                return text.isEmpty ? part : text + part
            case UInt8(ascii: "\\"):
                text += part
                text.unicodeScalars.append(try escape())
            default: throw failure("unescaped control character in a string; write it as an escape such as \\n")
            }
        }
    }

    /// Moves on to the next quote, backslash or control character.
    private mutating func skipPlain() {
        index = bytes.withUnsafeBufferPointer { buffer in
            var place = index - bytes.startIndex
            while place < buffer.count {
                let byte = buffer[place]
                if byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") { break }
                place += 1
            }
            return place + bytes.startIndex
        }
    }

    private mutating func escape() throws(Failure) -> Unicode.Scalar {
        let opening = index
        index += 1
        guard let kind = peek else { throw failure("unterminated string", at: opening) }
        index += 1
        switch kind {
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{C}"
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(kind)
        case UInt8(ascii: "u"):
            let first = try hexadecimal(opening)
            if let scalar = Unicode.Scalar(first) { return scalar }
            if first < 0xDC00, take(word: "\\u") {
                let second = try hexadecimal(opening)
                if (0xDC00..<0xE000).contains(second),
                    let scalar = Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))
                {
                    return scalar
                }
            }
            throw failure("unpaired surrogate", at: opening)
        default: throw failure("unknown escape in a string", at: opening)
        }
    }

    private mutating func hexadecimal(_ opening: Int) throws(Failure) -> UInt32 {
        let digits = bytes[index...].prefix(4)
        let text = String(decoding: digits, as: UTF8.self)
        guard digits.count == 4, digits.allSatisfy({ $0 != 0x2B && $0 != 0x2D }), let value = UInt32(text, radix: 16)
        else { throw failure("\\u needs four hexadecimal digits", at: opening) }
        index += 4
        return value
    }

    private mutating func number() throws(Failure) -> JSON {
        let start = index
        var isInteger = true
        _ = take("-")
        if !take("0") { guard digits() else { throw failure("expected a digit, found \(found)") } }
        if take(".") {
            isInteger = false
            guard digits() else { throw failure("expected a digit after '.', found \(found)") }
        }
        if take("e") || take("E") {
            isInteger = false
            if !take("+") { _ = take("-") }
            guard digits() else { throw failure("expected a digit in the exponent, found \(found)") }
        }
        let text = String(decoding: bytes[start..<index], as: UTF8.self)
        if isInteger, let value = Int(text) { return .integer(value) }
        guard let value = Double(text), value.isFinite else {
            throw failure("the number \(text) is too large", at: start)
        }
        return .number(value)
    }

    private mutating func digits() -> Bool {
        let start = index
        while let byte = peek, (0x30...0x39).contains(byte) { index += 1 }
        return index > start
    }
}
