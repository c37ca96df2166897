import Foundation
import Support
import Torch

/// What a pickle of a state dictionary is made of.
indirect enum PickleValue {
    struct Layout {
        let storage: String
        let dtype: DType
        let offset: Int
        let shape: [Int]
        let strides: [Int]
    }

    final class Dictionary {
        var items: [(key: PickleValue, value: PickleValue)] = []
        subscript(_ name: String) -> PickleValue? {
            items.last { if case .string(name) = $0.key { true } else { false } }?.value
        }
    }

    final class List { var items: [PickleValue] = [] }

    case none, mark
    case bool(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case tuple([PickleValue])
    case list(List)
    case dictionary(Dictionary)
    case function(String)
    case storage(String, DType)
    case tensor(Layout)

    var int: Int? { if case .integer(let value) = self { value } else { nil } }
}

/// A pickle machine that knows how to build data and nothing else.
struct PickleReader {
    private static let storages: [String: DType] = [
        "torch FloatStorage": .float32, "torch DoubleStorage": .float64, "torch HalfStorage": .float16,
        "torch BFloat16Storage": .bfloat16, "torch LongStorage": .int64, "torch IntStorage": .int32,
        "torch ShortStorage": .int16, "torch CharStorage": .int8, "torch ByteStorage": .uint8,
        "torch BoolStorage": .bool,
    ]
    private static let functions: Set = [
        "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "collections OrderedDict",
    ]

    private let data: Data
    private let name: String
    private var place: Int
    private var stack: [PickleValue] = []
    private var memory: [Int: PickleValue] = [:]

    init(_ data: Data, name: String) {
        (self.data, self.name) = (data, name)
        place = data.startIndex
    }

    private func damaged() -> PEFTError {
        PEFTError("\(name) holds a damaged pickle", remedy: "fetch the file again")
    }

    private mutating func byte() throws -> UInt8 {
        guard place < data.endIndex else { throw damaged() }
        defer { place += 1 }
        return data[place]
    }

    private mutating func number(_ bytes: Int) throws -> Int {
        try (0..<bytes).reduce(0) { try $0 | Int(byte()) << (8 * $1) }
    }

    private mutating func bytes(_ count: Int) throws -> Data {
        guard count >= 0, count <= data.endIndex - place else { throw damaged() }
        defer { place += count }
        return data[place..<(place + count)]
    }

    private mutating func line() throws -> String {
        guard let end = data[place...].firstIndex(of: 0x0A) else { throw damaged() }
        defer { place = end + 1 }
        return String(decoding: data[place..<end], as: UTF8.self)
    }

    private mutating func pop() throws -> PickleValue {
        guard let value = stack.popLast() else { throw damaged() }
        return value
    }

    /// What lies above the last mark.
    private mutating func popToMark() throws -> [PickleValue] {
        guard let mark = stack.lastIndex(where: { if case .mark = $0 { true } else { false } }) else {
            throw damaged()
        }
        let items = Array(stack[(mark + 1)...])
        stack.removeSubrange(mark...)
        return items
    }

    private func fill(_ target: PickleValue?, _ items: [PickleValue]) throws {
        guard case .dictionary(let dictionary) = target, items.count.isMultiple(of: 2) else { throw damaged() }
        for index in stride(from: 0, to: items.count, by: 2) {
            dictionary.items.append((items[index], items[index + 1]))
        }
    }

    /// Runs the program to its end.
    mutating func read() throws -> PickleValue {
        while true {
            let code = try byte()
            switch code {
            case 0x80: _ = try byte()  // PROTO
            case 0x95: _ = try bytes(8)  // FRAME
            case UInt8(ascii: "."): return try pop()
            case UInt8(ascii: "("): stack.append(.mark)
            case UInt8(ascii: "N"): stack.append(.none)
            case 0x88: stack.append(.bool(true))
            case 0x89: stack.append(.bool(false))
            case UInt8(ascii: "K"): stack.append(.integer(try number(1)))
            case UInt8(ascii: "M"): stack.append(.integer(try number(2)))
            case UInt8(ascii: "J"): stack.append(.integer(Int(Int32(truncatingIfNeeded: try number(4)))))
            case 0x8A:  // LONG1
                let count = Int(try byte())
                guard count <= 8 else { throw damaged() }
                let value = try number(count)
                let isNegative = count > 0 && count < 8 && value >> (8 * count - 1) & 1 == 1
                stack.append(.integer(isNegative ? value - (1 << (8 * count)) : value))
            case UInt8(ascii: "G"):
                let bits = try bytes(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
                stack.append(.number(Double(bitPattern: bits)))
            case UInt8(ascii: "X"): stack.append(.string(String(decoding: try bytes(try number(4)), as: UTF8.self)))
            case 0x8C: stack.append(.string(String(decoding: try bytes(try number(1)), as: UTF8.self)))
            case UInt8(ascii: "}"): stack.append(.dictionary(.init()))
            case UInt8(ascii: "]"): stack.append(.list(.init()))
            case UInt8(ascii: ")"): stack.append(.tuple([]))
            case UInt8(ascii: "t"): stack.append(.tuple(try popToMark()))
            case 0x85, 0x86, 0x87:
                let count = Int(code) - 0x84
                guard stack.count >= count else { throw damaged() }
                let items = Array(stack.suffix(count))
                stack.removeLast(count)
                stack.append(.tuple(items))
            case UInt8(ascii: "a"):
                let item = try pop()
                guard case .list(let list) = stack.last else { throw damaged() }
                list.items.append(item)
            case UInt8(ascii: "e"):
                let items = try popToMark()
                guard case .list(let list) = stack.last else { throw damaged() }
                list.items += items
            case UInt8(ascii: "s"):
                let (value, key) = (try pop(), try pop())
                try fill(stack.last, [key, value])
            case UInt8(ascii: "u"):
                let items = try popToMark()
                try fill(stack.last, items)
            case UInt8(ascii: "q"): memory[try number(1)] = stack.last
            case UInt8(ascii: "r"): memory[try number(4)] = stack.last
            case 0x94: memory[memory.count] = stack.last
            case UInt8(ascii: "h"), UInt8(ascii: "j"):
                guard let value = memory[try number(code == UInt8(ascii: "h") ? 1 : 4)] else { throw damaged() }
                stack.append(value)
            case UInt8(ascii: "c"): stack.append(.function(try allowed("\(try line()) \(try line())")))
            case 0x93:
                guard case .string(let function) = try pop(), case .string(let module) = try pop() else {
                    throw damaged()
                }
                stack.append(.function(try allowed("\(module) \(function)")))
            case UInt8(ascii: "Q"): stack.append(try storage(try pop()))
            case UInt8(ascii: "R"):
                guard case .tuple(let arguments) = try pop(), case .function(let function) = try pop() else {
                    throw damaged()
                }
                stack.append(try call(function, arguments))
            // The attributes of an ordered dictionary (its metadata) say nothing about tensors.
            case UInt8(ascii: "b"): _ = try pop()
            default:
                throw PEFTError(
                    "\(name) holds a pickle with the instruction \(code), which state dictionaries don't need",
                    remedy: "save the tensors alone, as safetensors if you can")
            }
        }
    }

    private func allowed(_ function: String) throws -> String {
        guard Self.functions.contains(function) || Self.storages[function] != nil else {
            throw PEFTError(
                "\(name) asks for '\(function.replacing(" ", with: "."))', which is refused: a pickle may only build tensors",
                remedy: "don't load it anywhere you wouldn't run an unknown program")
        }
        return function
    }

    /// ('storage', type, key, location, count)
    private func storage(_ value: PickleValue) throws -> PickleValue {
        guard case .tuple(let parts) = value, parts.count >= 3, case .function(let type) = parts[1],
            let dtype = Self.storages[type], case .string(let key) = parts[2]
        else { throw damaged() }
        return .storage(key, dtype)
    }

    private func call(_ function: String, _ arguments: [PickleValue]) throws -> PickleValue {
        switch function {
        case "collections OrderedDict": return .dictionary(.init())
        case "torch._utils _rebuild_parameter":
            guard let tensor = arguments.first else { throw damaged() }
            return tensor
        case "torch._utils _rebuild_tensor_v2":
            guard arguments.count >= 4, case .storage(let key, let dtype) = arguments[0],
                let offset = arguments[1].int,
                case .tuple(let sizes) = arguments[2], case .tuple(let steps) = arguments[3],
                case let shape = sizes.compactMap(\.int), case let strides = steps.compactMap(\.int),
                shape.count == sizes.count, strides.count == shape.count,
                shape.allSatisfy({ (0...(1 << 40)).contains($0) }),
                strides.allSatisfy({ (0...(1 << 40)).contains($0) }),
                (0...(1 << 40)).contains(offset), shape.reduce(1.0, { $0 * Double($1) }) < 1e12
            else { throw damaged() }
            return .tensor(.init(storage: key, dtype: dtype, offset: offset, shape: shape, strides: strides))
        default: throw damaged()
        }
    }
}
