/// Reads the fields of one Protocol Buffers message: https://protobuf.dev/programming-guides/encoding/
struct ProtobufReader {
    /// What is wrong with the bytes; the caller knows the file.
    struct Damage: Error {
        let what: String
    }

    enum Value {
        case integer(UInt64)
        case fixed32(UInt32)
        case fixed64(UInt64)
        /// A string, bytes, or another message.
        case bytes(ArraySlice<UInt8>)
    }

    private var rest: ArraySlice<UInt8>

    init(_ bytes: ArraySlice<UInt8>) { rest = bytes }

    /// The next field and its number, or `nil` at the end.
    mutating func next() throws(Damage) -> (field: Int, value: Value)? {
        guard !rest.isEmpty else { return nil }
        let key = try variableInteger()
        guard let field = Int(exactly: key >> 3), field > 0 else { throw Damage(what: "field number 0") }
        switch key & 7 {
        case 0: return (field, .integer(try variableInteger()))
        case 1: return (field, .fixed64(try fixed(8)))
        case 2:
            guard let count = Int(exactly: try variableInteger()), count <= rest.count else {
                throw Damage(what: "field \(field) is longer than what is left of the file")
            }
            defer { rest = rest.dropFirst(count) }
            return (field, .bytes(rest.prefix(count)))
        case 5: return (field, .fixed32(UInt32(truncatingIfNeeded: try fixed(4))))
        default: throw Damage(what: "field \(field) has the unknown wire type \(key & 7)")
        }
    }

    /// Seven bits a byte, lowest first; the eighth says that more follow.
    private mutating func variableInteger() throws(Damage) -> UInt64 {
        var result: UInt64 = 0
        for shift in stride(from: UInt64(0), to: 70, by: 7) {
            guard let byte = rest.popFirst() else { throw Damage(what: "it ends within a number") }
            result |= UInt64(byte & 0x7F) << shift
            if byte < 0x80 { return result }
        }
        throw Damage(what: "a number has more than 64 bits")
    }

    private mutating func fixed(_ count: Int) throws(Damage) -> UInt64 {
        guard rest.count >= count else { throw Damage(what: "it ends within a number") }
        var result: UInt64 = 0
        for (position, byte) in rest.prefix(count).enumerated() { result |= UInt64(byte) << UInt64(8 * position) }
        rest = rest.dropFirst(count)
        return result
    }
}
