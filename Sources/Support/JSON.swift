import Foundation

/// Any JSON value, for files whose shape is not known beforehand.
///
/// JSON has one kind of number: `1` and `1.0` are equal, as in JavaScript and Python, though a number keeps the form
/// that it was written in.
public enum JSON: Sendable {
    case null
    case bool(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case array([JSON])
    case object([String: JSON])
}

// Documented by the protocols.
// swift-format-ignore: AllPublicDeclarationsHaveDocumentation
extension JSON: Hashable {
    public static func == (a: JSON, b: JSON) -> Bool {
        switch (a, b) {
        case (.null, .null): true
        case (.bool(let a), .bool(let b)): a == b
        case (.integer(let a), .integer(let b)): a == b
        case (.number(let a), .number(let b)): a == b
        case (.integer(let a), .number(let b)), (.number(let b), .integer(let a)): Int(exactly: b) == a
        case (.string(let a), .string(let b)): a == b
        case (.array(let a), .array(let b)): a == b
        case (.object(let a), .object(let b)): a == b
        default: false
        }
    }

    public func hash(into hasher: inout Hasher) {
        switch self {
        case .null: hasher.combine(0)
        case .bool(let value): hasher.combine(value)
        case .integer(let value): hasher.combine(value)
        // Equal values have equal hashes.
        case .number(let value):
            if let whole = Int(exactly: value) { hasher.combine(whole) } else { hasher.combine(value) }
        case .string(let value): hasher.combine(value)
        case .array(let value): hasher.combine(value)
        case .object(let value): hasher.combine(value)
        }
    }
}

// Documented by the protocols.
// swift-format-ignore: AllPublicDeclarationsHaveDocumentation
extension JSON: Codable {
    public init(from decoder: any Decoder) throws {
        let value = try decoder.singleValueContainer()
        // Strings first: they are the most frequent, and each failed attempt costs an error value.
        if let string = try? value.decode(String.self) {
            self = .string(string)
        } else if let integer = try? value.decode(Int.self) {
            self = .integer(integer)
        } else if let number = try? value.decode(Double.self) {
            self = .number(number)
        } else if value.decodeNil() {
            self = .null
        } else if let bool = try? value.decode(Bool.self) {
            self = .bool(bool)
        } else if let array = try? value.decode([JSON].self) {
            self = .array(array)
        } else {
            self = .object(try value.decode([String: JSON].self))
        }
    }

    public func encode(to encoder: any Encoder) throws {
        var value = encoder.singleValueContainer()
        switch self {
        case .null: try value.encodeNil()
        case .bool(let bool): try value.encode(bool)
        case .integer(let integer): try value.encode(integer)
        case .number(let number): try value.encode(number)
        case .string(let string): try value.encode(string)
        case .array(let array): try value.encode(array)
        case .object(let object): try value.encode(object)
        }
    }
}

extension JSON {
    /// The value of an object's key; `nil` for a missing key or another kind of value.
    public subscript(key: String) -> JSON? {
        if case .object(let object) = self { object[key] } else { nil }
    }
    /// The text, if it is one.
    public var string: String? { if case .string(let value) = self { value } else { nil } }
    /// The boolean, if it is one.
    public var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
    /// The elements, if it is an array.
    public var array: [JSON]? { if case .array(let value) = self { value } else { nil } }
    /// The fields, if it is an object.
    public var object: [String: JSON]? { if case .object(let value) = self { value } else { nil } }
    /// The value as a floating-point number; integers convert.
    public var double: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .number(let value): value
        default: nil
        }
    }
    /// The value as an integer; a number without a fraction converts.
    public var int: Int? {
        switch self {
        case .integer(let value): value
        case .number(let value): Int(exactly: value)
        default: nil
        }
    }

    /// Reads a JSON file.
    /// - Throws: ``PEFTError`` naming the file if it can't be read or is not JSON.
    public static func read(_ file: URL) throws -> JSON { try read(file, tagsInfinity: false) }

    /// - Parameter tagsInfinity: whether Python's `Infinity` is read as `{"__float__": "Infinity"}`, as transformers writes
    ///   it since version 5; otherwise it is an error.
    package static func read(_ file: URL, tagsInfinity: Bool) throws -> JSON {
        let data: Data
        do { data = try Data(contentsOf: file) } catch {
            throw PEFTError("can't read \(file.path)", remedy: "check that the file exists and is readable")
        }
        // Some editors begin UTF-8 with a byte order mark, which is no part of the text.
        let mark: [UInt8] = [0xEF, 0xBB, 0xBF]
        return try parse(
            data.starts(with: mark) ? data.dropFirst(mark.count) : data, name: file.path,
            tagsInfinity: tagsInfinity)
    }

    /// Parses JSON text; `name` says in the error where the text came from. Of fields with one name the last
    /// counts, as in Python, or they are an error.
    public static func parse(_ data: Data, name: String, allowsRepeatedFields: Bool = true) throws -> JSON {
        try parse(data, name: name, allowsRepeatedFields: allowsRepeatedFields, tagsInfinity: false)
    }

    private static func parse(
        _ data: Data, name: String, allowsRepeatedFields: Bool = true, tagsInfinity: Bool
    ) throws -> JSON {
        var bytes = [UInt8](data)
        if bytes.starts(with: byteOrderMark) { bytes.removeFirst(byteOrderMark.count) }
        guard String(validating: bytes, as: UTF8.self) != nil else {
            throw PEFTError("\(name) is not valid UTF-8", remedy: "the file may be truncated or damaged")
        }
        do {
            return try JSONParser.parse(
                bytes[...], allowsRepeatedFields: allowsRepeatedFields, tagsInfinity: tagsInfinity)
        } catch {
            throw PEFTError(
                "\(name) is not valid JSON: \(error.message) at byte \(error.offset)",
                remedy: "the file may be truncated or damaged")
        }
    }

    /// The text that Python's `json.dumps(value, indent=2, sort_keys=True)` would write, apart from
    /// non-ASCII characters, which stay as they are.
    ///
    /// Foundation's pretty printer puts a space before each colon, which makes every rewritten Hugging
    /// Face file differ in every line; hence this writer.
    public func text(indent: Int? = 2) -> String {
        var out = ""
        write(into: &out, indent: indent, level: 0)
        return out
    }

    private func write(into out: inout String, indent: Int?, level: Int) {
        func newline(_ level: Int) {
            guard let indent else { return }
            out += "\n" + String(repeating: " ", count: indent * level)
        }
        switch self {
        case .null: out += "null"
        case .bool(let value): out += value ? "true" : "false"
        case .integer(let value): out += String(value)
        // JSON knows no infinities; null is what a strict reader accepts.
        case .number(let value): out += value.isFinite ? "\(value)" : "null"
        case .string(let value): JSON.quote(value, into: &out)
        case .array(let values):
            guard !values.isEmpty else { out += "[]"; return }
            out += "["
            for (index, value) in values.enumerated() {
                if index > 0 { out += indent == nil ? ", " : "," }
                newline(level + 1)
                value.write(into: &out, indent: indent, level: level + 1)
            }
            newline(level)
            out += "]"
        case .object(let values):
            guard !values.isEmpty else { out += "{}"; return }
            out += "{"
            for (index, key) in values.keys.sorted().enumerated() {
                if index > 0 { out += indent == nil ? ", " : "," }
                newline(level + 1)
                JSON.quote(key, into: &out)
                out += ": "
                values[key]?.write(into: &out, indent: indent, level: level + 1)
            }
            newline(level)
            out += "}"
        }
    }

    /// Appends a string with its quotes, as `json.dumps` writes it.
    /// - Parameter asciiOnly: whether what is beyond ASCII is escaped, as `ensure_ascii` does.
    package static func quote(_ text: String, asciiOnly: Bool = false, into out: inout String) {
        func escape(_ unit: UInt16) {
            let hex = String(unit, radix: 16)
            out += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
        }
        out += "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case "\r": out += "\\r"
            case "\t": out += "\\t"
            case "\u{8}": out += "\\b"
            case "\u{C}": out += "\\f"
            case _ where scalar.value < 0x20: escape(UInt16(scalar.value))
            case _ where asciiOnly && scalar.value > 0x7E:
                for unit in UTF16.encode(scalar) ?? .init() { escape(unit) }
            default: out.unicodeScalars.append(scalar)
            }
        }
        out += "\""
    }
}

/// What some editors put in front of UTF-8 text.
package let byteOrderMark: [UInt8] = [0xEF, 0xBB, 0xBF]

// Documented by the protocols.
// swift-format-ignore: AllPublicDeclarationsHaveDocumentation
extension JSON: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral,
    ExpressibleByBooleanLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral,
    ExpressibleByNilLiteral
{
    public init(stringLiteral value: String) { self = .string(value) }
    public init(integerLiteral value: Int) { self = .integer(value) }
    public init(floatLiteral value: Double) { self = .number(value) }
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    public init(arrayLiteral elements: JSON...) { self = .array(elements) }
    public init(dictionaryLiteral elements: (String, JSON)...) {
        self = .object(Dictionary(elements, uniquingKeysWith: { _, last in last }))
    }
    public init(nilLiteral: ()) { self = .null }
}
