import Foundation

/// A setting in the header of a GGUF file.
package enum GGUFValue: Sendable, Equatable {
    case integer(Int)
    /// float32, kept as such to be written again bit for bit.
    case number(Float)
    case double(Double)
    case flag(Bool)
    case string(String)
    case list(GGUFList)

    package var integer: Int? { if case .integer(let value) = self { value } else { nil } }
    package var flag: Bool? { if case .flag(let value) = self { value } else { nil } }
    package var string: String? { if case .string(let value) = self { value } else { nil } }
    package var list: GGUFList? { if case .list(let value) = self { value } else { nil } }
    package var number: Double? {
        switch self {
        case .number(let value): Double(value)
        case .double(let value): value
        case .integer(let value): Double(value)
        default: nil
        }
    }
}

/// The types of settings, by their codes in the file.
enum GGUFValueType: UInt32 {
    case uint8 = 0
    case int8, uint16, int16, uint32, int32, float32, bool, string, array, uint64, int64, float64

    /// Bytes of one value; `nil` if variable.
    var size: Int? {
        switch self {
        case .uint8, .int8, .bool: 1
        case .uint16, .int16: 2
        case .uint32, .int32, .float32: 4
        case .uint64, .int64, .float64: 8
        case .string, .array: nil
        }
    }
}

/// A list in the header, decoded on demand: vocabularies are lists of 100,000 strings and more.
package struct GGUFList: Sendable, Equatable {
    let type: GGUFValueType
    package let count: Int
    /// The values one after another, walked through once and found whole.
    let bytes: Data

    /// The strings of a list of strings, with invalid UTF-8 repaired; `nil` for another list.
    package var strings: [String]? {
        guard type == .string else { return nil }
        var reader = GGUFReader(bytes, name: "")
        return try? (0..<count).map { _ in try reader.string() }
    }

    /// The values of a list of numbers or flags; `nil` for another list.
    package var numbers: [Double]? {
        guard type != .string, type != .array else { return nil }
        var reader = GGUFReader(bytes, name: "")
        return try? (0..<count).map { _ in
            let value = try reader.value(type)
            return value.number ?? (value.flag == true ? 1 : 0)
        }
    }

    /// A list of strings.
    package init(_ strings: [String]) {
        var writer = GGUFBytes()
        for text in strings { writer.string(text) }
        (type, count, bytes) = (.string, strings.count, writer.data)
    }

    /// A list of float32.
    package init(_ numbers: [Float]) {
        var writer = GGUFBytes()
        for number in numbers { writer.integer(number.bitPattern) }
        (type, count, bytes) = (.float32, numbers.count, writer.data)
    }

    /// A list of int32.
    package init(_ numbers: [Int32]) {
        var writer = GGUFBytes()
        for number in numbers { writer.integer(UInt32(bitPattern: number)) }
        (type, count, bytes) = (.int32, numbers.count, writer.data)
    }

    /// A list of flags.
    package init(_ flags: [Bool]) {
        (type, count, bytes) = (.bool, flags.count, Data(flags.map { $0 ? 1 : 0 }))
    }

    init(type: GGUFValueType, count: Int, bytes: Data) { (self.type, self.count, self.bytes) = (type, count, bytes) }
}
