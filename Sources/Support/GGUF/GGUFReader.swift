import Foundation

/// Reads the header of a GGUF file, with every length checked against the remaining bytes.
struct GGUFReader {
    private let bytes: Data
    private let name: String
    private(set) var position: Int

    init(_ bytes: Data, name: String) { (self.bytes, self.name, position) = (bytes, name, bytes.startIndex) }

    /// Bytes read.
    var offset: Int { position - bytes.startIndex }
    private var left: Int { bytes.endIndex - position }

    func damaged(_ what: String) -> PEFTError {
        PEFTError("\(name): \(what)", remedy: "the file is damaged; download it again")
    }

    private mutating func take(_ count: Int) throws -> Data {
        guard count >= 0, count <= left else { throw damaged("it is truncated") }
        defer { position += count }
        return bytes[position..<(position + count)]
    }

    /// Little-endian bits.
    mutating func bits(_ size: Int) throws -> UInt64 {
        try take(size).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    mutating func unsigned() throws -> UInt32 { UInt32(truncatingIfNeeded: try bits(4)) }

    mutating func integer() throws -> Int {
        guard let value = Int(exactly: try bits(8)) else { throw damaged("a number is too large") }
        return value
    }

    /// A count of items of at least the given number of bytes each.
    mutating func count(atLeast each: Int) throws -> Int {
        let value = try integer()
        guard value <= left / each else { throw damaged("it is truncated") }
        return value
    }

    mutating func string() throws -> String { String(decoding: try take(count(atLeast: 1)), as: UTF8.self) }

    private mutating func skipString() throws { _ = try take(count(atLeast: 1)) }

    mutating func value() throws -> GGUFValue { try value(type()) }

    private mutating func type() throws -> GGUFValueType {
        let number = try unsigned()
        guard let type = GGUFValueType(rawValue: number) else { throw damaged("a setting is of the type \(number)") }
        return type
    }

    mutating func value(_ type: GGUFValueType) throws -> GGUFValue {
        switch type {
        case .uint8: .integer(Int(try bits(1)))
        case .int8: .integer(Int(Int8(truncatingIfNeeded: try bits(1))))
        case .uint16: .integer(Int(try bits(2)))
        case .int16: .integer(Int(Int16(truncatingIfNeeded: try bits(2))))
        case .uint32: .integer(Int(try bits(4)))
        case .int32: .integer(Int(Int32(truncatingIfNeeded: try bits(4))))
        case .float32: .number(Float(bitPattern: try unsigned()))
        case .bool: .flag(try bits(1) != 0)
        case .string: .string(try string())
        case .array: .list(try list())
        // Values beyond Int are invalid here.
        case .uint64: .integer(try Int(clamping: bits(8)))
        case .int64: .integer(Int(truncatingIfNeeded: try bits(8)))
        case .float64: .double(Double(bitPattern: try bits(8)))
        }
    }

    private mutating func list(depth: Int = 0) throws -> GGUFList {
        let type = try type()
        let count = try count(atLeast: type.size ?? 8)
        let start = position
        switch type {
        case .string: for _ in 0..<count { try skipString() }
        case .array:
            guard depth < 4 else { throw damaged("lists lie in lists") }
            for _ in 0..<count { _ = try list(depth: depth + 1) }
        default: _ = try take(count * (type.size ?? 1))
        }
        return GGUFList(type: type, count: count, bytes: bytes[start..<position])
    }
}
