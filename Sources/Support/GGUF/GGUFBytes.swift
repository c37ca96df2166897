import Foundation

/// Builds the header of a GGUF file.
struct GGUFBytes {
    private(set) var data = Data()

    mutating func integer<Integer: FixedWidthInteger>(_ value: Integer) {
        withUnsafeBytes(of: value.littleEndian) { data.append(contentsOf: $0) }
    }

    mutating func string(_ text: String) {
        integer(UInt64(text.utf8.count))
        data.append(contentsOf: text.utf8)
    }

    mutating func value(_ value: GGUFValue) {
        switch value {
        case .integer(let number):
            // As llama.cpp's own files have counts and ids.
            if let small = UInt32(exactly: number) {
                integer(GGUFValueType.uint32.rawValue)
                integer(small)
            } else {
                integer(GGUFValueType.int64.rawValue)
                integer(Int64(number))
            }
        case .number(let number):
            integer(GGUFValueType.float32.rawValue)
            integer(number.bitPattern)
        case .double(let number):
            integer(GGUFValueType.float64.rawValue)
            integer(number.bitPattern)
        case .flag(let flag):
            integer(GGUFValueType.bool.rawValue)
            integer(UInt8(flag ? 1 : 0))
        case .string(let text):
            integer(GGUFValueType.string.rawValue)
            string(text)
        case .list(let list):
            integer(GGUFValueType.array.rawValue)
            integer(list.type.rawValue)
            integer(UInt64(list.count))
            data.append(list.bytes)
        }
    }
}
