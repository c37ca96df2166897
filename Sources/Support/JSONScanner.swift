/// Reads large JSON texts in place, without creating ``JSON`` values.
///
/// For objects with very many members, and for those whose names must be compared by bytes:
/// the keys of `[String: JSON]` are equal if they are canonically equivalent ("é", "e" + U+0301).
/// Skipped values are not validated.
package struct JSONScanner {
    package typealias Failure = JSONParser.Failure

    private let bytes: [UInt8]
    /// Offset of the next value, after whitespace.
    package private(set) var index = 0
    /// The last string or member name read, unescaped.
    package private(set) var text: [UInt8] = []

    /// - Parameter bytes: valid UTF-8.
    package init(_ bytes: [UInt8]) {
        self.bytes = bytes
        skipSpace()
    }

    /// The first byte of the next value, `nil` at the end.
    package var peek: UInt8? { index < bytes.count ? bytes[index] : nil }

    /// Reads an object; `body` finds a member's name in ``text`` and must read or skip its value.
    package mutating func members(_ body: (inout JSONScanner) throws -> Void) throws {
        try open("{")
        if take("}") { return }
        while true {
            try string()
            guard take(":") else { throw failure("expected ':' after a field name") }
            try body(&self)
            if take("}") { return }
            guard take(",") else { throw failure("expected ',' or '}' after a value") }
        }
    }

    /// Reads an array; `body` must read or skip each element.
    package mutating func elements(_ body: (inout JSONScanner) throws -> Void) throws {
        try open("[")
        if take("]") { return }
        while true {
            try body(&self)
            if take("]") { return }
            guard take(",") else { throw failure("expected ',' or ']' after an element") }
        }
    }

    /// Reads a string into ``text``.
    package mutating func string() throws(Failure) {
        guard peek == UInt8(ascii: "\"") else { throw failure("expected a string") }
        let opening = index
        index += 1
        text.removeAll(keepingCapacity: true)
        while index < bytes.count {
            let byte = bytes[index]
            index += 1
            switch byte {
            case UInt8(ascii: "\""):
                skipSpace()
                return
            case UInt8(ascii: "\\"): try escape(opening)
            case 0..<0x20: throw failure("unescaped control character in a string", at: index - 1)
            default: text.append(byte)
            }
        }
        throw failure("unterminated string", at: opening)
    }

    /// Reads a non-negative integer.
    package mutating func count() throws(Failure) -> Int {
        let start = index
        var value = 0
        while let byte = peek, 0x30...0x39 ~= byte, index - start < 18 {
            value = value * 10 + Int(byte - 0x30)
            index += 1
        }
        let isWhole = peek.map { !".eE0123456789".utf8.contains($0) } ?? true
        guard index > start, isWhole, index == start + 1 || bytes[start] != 0x30 else {
            throw failure("expected a non-negative integer", at: start)
        }
        skipSpace()
        return value
    }

    /// Skips one value of any kind.
    package mutating func skipValue() throws(Failure) {
        let start = index
        var depth = 0
        while index < bytes.count {
            switch bytes[index] {
            case UInt8(ascii: "\""):
                try skipString()
                if depth > 0 { continue }
            case UInt8(ascii: "{"), UInt8(ascii: "["):
                depth += 1
                index += 1
                continue
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                guard depth > 0 else { throw failure("expected a value") }
                depth -= 1
                index += 1
                if depth > 0 { continue }
            default:
                if depth > 0 {
                    index += 1
                    continue
                }
                while let byte = peek, !",]} \t\r\n".utf8.contains(byte) { index += 1 }
                guard index > start else { throw failure("expected a value") }
            }
            skipSpace()
            return
        }
        throw failure("unterminated value", at: start)
    }

    package func failure(_ message: String, at offset: Int? = nil) -> Failure {
        Failure(message: message, offset: offset ?? index)
    }

    private mutating func skipString() throws(Failure) {
        let opening = index
        index += 1
        while index < bytes.count {
            let byte = bytes[index]
            index += byte == UInt8(ascii: "\\") ? 2 : 1
            if byte == UInt8(ascii: "\"") { return }
        }
        throw failure("unterminated string", at: opening)
    }

    private mutating func escape(_ opening: Int) throws(Failure) {
        guard index < bytes.count else { throw failure("unterminated string", at: opening) }
        let kind = bytes[index]
        index += 1
        switch kind {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(kind)
        case UInt8(ascii: "n"): text.append(0x0A)
        case UInt8(ascii: "t"): text.append(0x09)
        case UInt8(ascii: "r"): text.append(0x0D)
        case UInt8(ascii: "b"): text.append(0x08)
        case UInt8(ascii: "f"): text.append(0x0C)
        case UInt8(ascii: "u"):
            var value = try hexadecimal()
            if 0xD800..<0xDC00 ~= value, index + 1 < bytes.count, bytes[index] == UInt8(ascii: "\\"),
                bytes[index + 1] == UInt8(ascii: "u")
            {
                index += 2
                let low = try hexadecimal()
                if 0xDC00..<0xE000 ~= low { value = 0x10000 + (value - 0xD800) << 10 + (low - 0xDC00) }
            }
            guard let scalar = Unicode.Scalar(value), let encoded = UTF8.encode(scalar) else {
                throw failure("unpaired surrogate")
            }
            text.append(contentsOf: encoded)
        default: throw failure("unknown escape in a string", at: index - 2)
        }
    }

    private mutating func hexadecimal() throws(Failure) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            let digit: UInt8
            switch peek {
            case let byte? where 0x30...0x39 ~= byte: digit = byte - 0x30
            case let byte? where 0x41...0x46 ~= byte || 0x61...0x66 ~= byte: digit = (byte | 0x20) - 0x57
            default: throw failure("\\u needs four hexadecimal digits")
            }
            value = value << 4 | UInt32(digit)
            index += 1
        }
        return value
    }

    private mutating func open(_ bracket: Unicode.Scalar) throws(Failure) {
        guard take(bracket) else { throw failure("expected '\(bracket)'") }
    }

    private mutating func take(_ scalar: Unicode.Scalar) -> Bool {
        guard peek == UInt8(ascii: scalar) else { return false }
        index += 1
        skipSpace()
        return true
    }

    private mutating func skipSpace() {
        while index < bytes.count {
            switch bytes[index] {
            case 0x20, 0x09, 0x0A, 0x0D: index += 1
            default: return
            }
        }
    }
}
