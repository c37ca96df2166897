import Foundation
import PEFTSupport

/// A pickle interpreter that can only build data.
///
/// A pickle is a program. Only opcodes that build dictionaries, lists and tensors are supported, and only the
/// functions that rebuild a tensor; everything else is rejected by name. Values are stored in one array and refer to
/// each other by index, so nesting depth is unlimited and cycles leak no memory.
struct PickleReader {
    /// A tensor's storage: its name in the file and its dtype.
    struct Storage {
        let key: String
        let dtype: DType
        /// Offset of a view in its storage, in elements.
        let offset: Int
    }

    /// The layout of a tensor in its storage.
    struct Layout {
        let storage: String
        let dtype: DType
        /// In elements, like strides.
        let offset: Int
        let shape: [Int]
        let strides: [Int]
    }

    enum Value {
        case none
        case bool(Bool)
        case integer(Int)
        case number(Double)
        case string(String)
        case tuple([Int])
        /// Indices in `lists` and `dictionaries`.
        case list(Int)
        case dictionary(Int)
        case function(String)
        case storage(Storage)
        case tensor(Layout)
    }

    private static let storages: [String: DType] = [
        "torch FloatStorage": .float32, "torch DoubleStorage": .float64, "torch HalfStorage": .float16,
        "torch BFloat16Storage": .bfloat16, "torch LongStorage": .int64, "torch IntStorage": .int32,
        "torch ShortStorage": .int16, "torch CharStorage": .int8, "torch ByteStorage": .uint8,
        "torch BoolStorage": .bool,
    ]
    private static let functions: Set = [
        "torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_parameter_with_state", "collections OrderedDict", "torch Size",
    ]
    /// Maximum number of values in a pickle; a model has about ten per tensor.
    private static let limit = 4_000_000
    /// Maximum size, stride or offset.
    private static let largest = 1 << 40

    private let data: UnsafeRawBufferPointer
    private let name: String
    /// Position of the next opcode.
    private(set) var place: Int
    private(set) var values: [Value] = []
    private(set) var lists: [[Int]] = []
    private(set) var dictionaries: [[(key: Int, value: Int)]] = []
    /// Storages in the order in which they were first named, with their dtypes.
    private(set) var usedStorages: [String: DType] = [:]
    private var stack: [Int] = []
    /// Stack heights of the marks.
    private var marks: [Int] = []
    private var memory: [Int: Int] = [:]
    /// Pairs in all dictionaries.
    private var pairs = 0

    /// - Parameters:
    ///   - data: a pickle, possibly followed by other bytes; must outlive the reader.
    ///   - name: name of the file in errors.
    init(_ data: UnsafeRawBufferPointer, from place: Int = 0, name: String) {
        (self.data, self.place, self.name) = (data, place, name)
    }

    private func damaged() -> PEFTError {
        PEFTError("\(name) contains a damaged pickle", remedy: "download the file again")
    }

    // MARK: Reading

    private mutating func byte() throws -> UInt8 {
        guard place < data.count else { throw damaged() }
        defer { place += 1 }
        return data[place]
    }

    private mutating func number(_ count: Int) throws -> Int {
        try (0..<count).reduce(0) { try $0 | Int(byte()) << (8 * $1) }
    }

    private mutating func bytes(_ count: Int) throws -> UnsafeRawBufferPointer {
        guard count >= 0, count <= data.count - place else { throw damaged() }
        defer { place += count }
        return UnsafeRawBufferPointer(rebasing: data[place..<(place + count)])
    }

    private mutating func text(_ count: Int) throws -> String {
        guard let text = String(validating: try bytes(count), as: UTF8.self) else { throw damaged() }
        return text
    }

    private mutating func line() throws -> String {
        guard let end = data[place...].prefix(1000).firstIndex(of: 0x0A) else { throw damaged() }
        defer { place = end + 1 }
        return try text(end - place)
    }

    // MARK: The stack

    private mutating func push(_ value: Value) throws {
        guard values.count < Self.limit else {
            throw PEFTError(
                "\(name) contains a pickle of more than \(Self.limit) values",
                remedy: "save the tensors as safetensors")
        }
        values.append(value)
        stack.append(values.count - 1)
    }

    private mutating func pop() throws -> Int {
        // Values below a mark belong to an unfinished object.
        guard stack.count > marks.last ?? 0, let value = stack.popLast() else { throw damaged() }
        return value
    }

    /// Pops the values above the last mark.
    private mutating func popToMark() throws -> [Int] {
        guard let mark = marks.popLast() else { throw damaged() }
        let items = Array(stack[mark...])
        stack.removeSubrange(mark...)
        return items
    }

    private func top() throws -> Int {
        guard stack.count > marks.last ?? 0, let top = stack.last else { throw damaged() }
        return top
    }

    private mutating func remember(_ key: Int) throws {
        guard memory.count < Self.limit else { throw damaged() }
        memory[key] = try top()
    }

    private mutating func append(_ items: [Int]) throws {
        guard case .list(let list) = values[try top()] else { throw damaged() }
        lists[list] += items
    }

    private mutating func fill(_ items: [Int]) throws {
        guard case .dictionary(let index) = values[try top()], items.count.isMultiple(of: 2) else { throw damaged() }
        // Each pair takes some bytes, unless a list of pairs is copied again and again.
        pairs += items.count / 2
        guard pairs <= data.count else { throw damaged() }
        for item in stride(from: 0, to: items.count, by: 2) {
            dictionaries[index].append((items[item], items[item + 1]))
        }
    }

    private mutating func pushDictionary() throws {
        dictionaries.append([])
        try push(.dictionary(dictionaries.count - 1))
    }

    // MARK: Interpreter

    /// Runs the pickle to its end.
    /// - Returns: index of its result in `values`.
    /// - Throws: ``PEFTError`` that names a rejected opcode or function.
    mutating func read() throws -> Int {
        while true {
            let code = try byte()
            switch code {
            case 0x80: _ = try byte()  // PROTO
            case 0x95: _ = try bytes(8)  // FRAME
            case UInt8(ascii: "."): return try pop()
            case UInt8(ascii: "("): marks.append(stack.count)
            case UInt8(ascii: "N"): try push(.none)
            case 0x88: try push(.bool(true))
            case 0x89: try push(.bool(false))
            case UInt8(ascii: "K"): try push(.integer(try number(1)))
            case UInt8(ascii: "M"): try push(.integer(try number(2)))
            case UInt8(ascii: "J"): try push(.integer(Int(Int32(truncatingIfNeeded: try number(4)))))
            case 0x8A: try push(.integer(try long()))
            case UInt8(ascii: "G"):
                let bits = try bytes(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
                try push(.number(Double(bitPattern: bits)))
            case UInt8(ascii: "X"): try push(.string(try text(try number(4))))
            case 0x8C: try push(.string(try text(try number(1))))
            case UInt8(ascii: "}"): try pushDictionary()
            case UInt8(ascii: "]"):
                lists.append([])
                try push(.list(lists.count - 1))
            case UInt8(ascii: ")"): try push(.tuple([]))
            case UInt8(ascii: "t"): try push(.tuple(try popToMark()))
            case 0x85, 0x86, 0x87:
                var items: [Int] = []
                for _ in 0..<(Int(code) - 0x84) { items.append(try pop()) }
                try push(.tuple(items.reversed()))
            case UInt8(ascii: "a"):
                let item = try pop()
                try append([item])
            case UInt8(ascii: "e"):
                let items = try popToMark()
                try append(items)
            case UInt8(ascii: "s"):
                let (value, key) = (try pop(), try pop())
                try fill([key, value])
            case UInt8(ascii: "u"):
                let items = try popToMark()
                try fill(items)
            case UInt8(ascii: "q"): try remember(try number(1))
            case UInt8(ascii: "r"): try remember(try number(4))
            case 0x94: try remember(memory.count)
            case UInt8(ascii: "h"), UInt8(ascii: "j"):
                guard let value = memory[try number(code == UInt8(ascii: "h") ? 1 : 4)] else { throw damaged() }
                stack.append(value)
            case UInt8(ascii: "c"):
                let (module, function) = (try line(), try line())
                try push(.function(try allowed("\(module) \(function)")))
            case 0x93:
                guard case .string(let function) = values[try pop()], case .string(let module) = values[try pop()]
                else {
                    throw damaged()
                }
                try push(.function(try allowed("\(module) \(function)")))
            case UInt8(ascii: "Q"):
                let identifier = try pop()
                try push(.storage(try storage(identifier)))
            case UInt8(ascii: "R"):
                guard case .tuple(let arguments) = values[try pop()], case .function(let function) = values[try pop()]
                else { throw damaged() }
                try call(function, arguments)
            // The attributes of an ordered dictionary (its metadata) don't affect tensors.
            case UInt8(ascii: "b"): _ = try pop()
            default:
                throw PEFTError(
                    "\(name) contains a pickle with the opcode \(code), which state dicts don't use",
                    remedy: "save only the tensors, preferably as safetensors")
            }
        }
    }

    /// LONG1: a byte count and a two's-complement integer.
    private mutating func long() throws -> Int {
        let count = Int(try byte())
        guard count <= 8 else { throw damaged() }
        let value = try bytes(count).enumerated().reduce(UInt64(0)) {
            $0 | UInt64($1.element) << UInt64(8 * $1.offset)
        }
        guard count > 0 else { return 0 }
        let unused = 64 - 8 * count
        return Int(Int64(bitPattern: value << UInt64(unused)) >> Int64(unused))
    }

    private func allowed(_ function: String) throws -> String {
        guard Self.functions.contains(function) || Self.storages[function] != nil else {
            let called = function.replacing(" ", with: ".")
            if function.hasPrefix("torch "), function.hasSuffix("Storage") {
                throw PEFTError(
                    "\(name) contains tensors of type '\(called)', which is not supported",
                    remedy: "store them as float32, float16 or bfloat16")
            }
            throw PEFTError(
                "\(name) imports '\(called)', which is rejected: a pickle may only build tensors",
                remedy: "treat the file as untrusted code")
        }
        return function
    }

    /// ('storage', type, key, location, count), and in old files a view: (key, offset, count).
    private mutating func storage(_ place: Int) throws -> Storage {
        guard case .tuple(let parts) = values[place], parts.count >= 3, case .function(let type) = values[parts[1]],
            let dtype = Self.storages[type], case .string(let key) = values[parts[2]]
        else { throw damaged() }
        guard usedStorages[key] ?? dtype == dtype else { throw damaged() }
        usedStorages[key] = dtype
        guard parts.count > 5, case .tuple(let view) = values[parts[5]] else {
            return Storage(key: key, dtype: dtype, offset: 0)
        }
        guard view.count == 3, case .integer(let offset) = values[view[1]], (0...Self.largest).contains(offset) else {
            throw damaged()
        }
        return Storage(key: key, dtype: dtype, offset: offset)
    }

    private mutating func call(_ function: String, _ arguments: [Int]) throws {
        switch function {
        case "collections OrderedDict":
            try pushDictionary()
            // Older writers pass the pairs as a list.
            guard let first = arguments.first else { return }
            guard case .list(let list) = values[first] else { throw damaged() }
            for pair in lists[list] {
                switch values[pair] {
                case .tuple(let items) where items.count == 2: try fill(items)
                case .list(let inner) where lists[inner].count == 2: try fill(lists[inner])
                default: throw damaged()
                }
            }
        case "torch Size":
            guard let first = arguments.first, case .tuple(let sizes) = values[first] else { throw damaged() }
            try push(.tuple(sizes))
        case "torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state":
            guard let tensor = arguments.first, case .tensor = values[tensor] else { throw damaged() }
            stack.append(tensor)
        case "torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2":
            guard arguments.count >= 4, case .storage(let storage) = values[arguments[0]],
                case .integer(let offset) = values[arguments[1]], let shape = numbers(arguments[2]),
                let strides = numbers(arguments[3]), strides.count == shape.count, shape.count <= 64,
                (0...Self.largest).contains(offset)
            else { throw damaged() }
            try push(
                .tensor(
                    Layout(
                        storage: storage.key, dtype: storage.dtype, offset: storage.offset + offset, shape: shape,
                        strides: strides)))
        default: throw damaged()
        }
    }

    /// A tuple of sizes or strides.
    private func numbers(_ place: Int) -> [Int]? {
        guard case .tuple(let items) = values[place] else { return nil }
        var numbers: [Int] = []
        for item in items {
            guard case .integer(let number) = values[item], (0...Self.largest).contains(number) else { return nil }
            numbers.append(number)
        }
        return numbers
    }
}
