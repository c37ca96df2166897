import Foundation

/// A JSON value whose objects keep the order of their members, for texts in which the order has a meaning, such as the
/// properties of a JSON Schema.
package indirect enum OrderedJSON: Sendable, Equatable {
    /// Null, a boolean, a number or a string.
    case scalar(JSON)
    case array([OrderedJSON])
    case object([Member])

    package struct Member: Sendable, Equatable {
        package var name: String
        package var value: OrderedJSON

        package init(_ name: String, _ value: OrderedJSON) { (self.name, self.value) = (name, value) }
    }

    /// Parses JSON text; names that occur twice in an object are an error.
    /// - Parameter name: says in an error where the text came from.
    package static func parse(_ text: some Sequence<UInt8>, name: String) throws -> OrderedJSON {
        var bytes = Array(text)
        if bytes.starts(with: byteOrderMark) { bytes.removeFirst(byteOrderMark.count) }
        // The strict parser comes first: it bounds the depth, and the scanner doesn't check what it skips.
        _ = try JSON.parse(Data(bytes), name: name, allowsRepeatedFields: false)
        var scanner = JSONScanner(bytes)
        do { return try value(&scanner, bytes) } catch let failure as JSONScanner.Failure {
            throw PEFTError("\(name) is not valid JSON: \(failure.message) at byte \(failure.offset)")
        }
    }

    private static func value(_ scanner: inout JSONScanner, _ bytes: [UInt8]) throws -> OrderedJSON {
        switch scanner.peek {
        case UInt8(ascii: "{"):
            var members: [Member] = []
            try scanner.members { scanner in
                let name = String(decoding: scanner.text, as: UTF8.self)
                members.append(Member(name, try value(&scanner, bytes)))
            }
            return .object(members)
        case UInt8(ascii: "["):
            var elements: [OrderedJSON] = []
            try scanner.elements { elements.append(try value(&$0, bytes)) }
            return .array(elements)
        default:
            let start = scanner.index
            try scanner.skipValue()
            return .scalar(try JSON.parse(Data(bytes[start..<scanner.index]), name: "a value"))
        }
    }

    /// A value without an order of its members; those of objects are sorted by name.
    package init(_ json: JSON) {
        switch json {
        case .array(let values): self = .array(values.map { OrderedJSON($0) })
        case .object(let values):
            self = .object(
                values.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
                    .map { Member($0.key, OrderedJSON($0.value)) })
        default: self = .scalar(json)
        }
    }

    /// The value without its order.
    package var json: JSON {
        switch self {
        case .scalar(let value): value
        case .array(let values): .array(values.map(\.json))
        case .object(let members):
            .object(Dictionary(members.map { ($0.name, $0.value.json) }, uniquingKeysWith: { $1 }))
        }
    }

    package var members: [Member]? { if case .object(let members) = self { members } else { nil } }
    package var elements: [OrderedJSON]? { if case .array(let values) = self { values } else { nil } }
    /// Null, a boolean, a number or a string; `nil` for arrays and objects.
    package var scalar: JSON? { if case .scalar(let value) = self { value } else { nil } }

    package subscript(name: String) -> OrderedJSON? { members?.first { $0.name == name }?.value }
}
