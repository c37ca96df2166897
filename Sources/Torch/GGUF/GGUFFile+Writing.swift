import Foundation
import PEFTSupport

extension GGUFType {
    /// The types that can be written.
    package static let written: [GGUFType] = [.f32, .f16, .bf16, .q8_0, .q4_0]

    /// llama.cpp's number for a file mostly of this type (`general.file_type`).
    package var fileType: Int {
        switch self {
        case .f32: 0
        case .f16: 1
        case .q4_0: 2
        case .q8_0: 7
        case .bf16: 32
        // "Guessed", for types that aren't written.
        default: 1024
        }
    }

    /// Encodes a tensor in this type, rounded as in llama.cpp.
    ///
    /// - Throws: ``PEFTError`` for a type that can't be written, and for rows that aren't whole blocks.
    func encoded(_ tensor: Tensor) throws -> Data {
        if let plain { return try withTorchErrors { tensor.to(plain).withBytes { Data($0) } } }
        guard GGUFType.written.contains(self), tensor.dim(-1).isMultiple(of: block) else {
            throw PEFTError("a tensor of shape \(tensor.shape) can't be written as \(name)")
        }
        let numbers = try withTorchErrors { tensor.array(Float.self) }
        var out = Data(count: numbers.count / block * bytes)
        out.withUnsafeMutableBytes { out in
            numbers.withUnsafeBufferPointer { numbers in
                for index in 0..<(numbers.count / block) {
                    let from = UnsafeBufferPointer(rebasing: numbers[(index * block)..<((index + 1) * block)])
                    let to = UnsafeMutableRawBufferPointer(rebasing: out[(index * bytes)..<((index + 1) * bytes)])
                    self == .q8_0 ? Self.q8(from, to) : Self.q4(from, to)
                }
            }
        }
        return out
    }

    private static func write(_ scale: Float, _ to: UnsafeMutableRawBufferPointer) {
        let bits = Half(scale).bits
        (to[0], to[1]) = (UInt8(truncatingIfNeeded: bits), UInt8(bits >> 8))
    }

    /// Scale: absmax / 127.
    private static func q8(_ from: UnsafeBufferPointer<Float>, _ to: UnsafeMutableRawBufferPointer) {
        let scale = from.reduce(0) { max($0, abs($1)) } / 127
        let factor = scale == 0 ? 0 : 1 / scale
        write(scale, to)
        for i in 0..<32 { to[2 + i] = UInt8(bitPattern: Int8(clamping: whole((from[i] * factor).rounded()))) }
    }

    /// Scale: the value of largest magnitude / −8, which makes that value exact.
    private static func q4(_ from: UnsafeBufferPointer<Float>, _ to: UnsafeMutableRawBufferPointer) {
        var largest: Float = 0
        for number in from where abs(number) > abs(largest) { largest = number }
        let scale = largest / -8
        let factor = scale == 0 ? 0 : 1 / scale
        write(scale, to)
        func code(_ i: Int) -> UInt8 { UInt8(min(15, max(0, whole(from[i] * factor + 8.5)))) }
        for i in 0..<16 { to[2 + i] = code(i) | code(i + 16) << 4 }
    }

    /// Truncated to an integer; 0 for NaN.
    private static func whole(_ number: Float) -> Int {
        number.isFinite ? Int(max(-1000, min(1000, number))) : 0
    }
}

extension GGUFFile {
    /// A tensor to write, computed when it is its turn.
    package struct Content {
        package let name: String
        package let shape: [Int]
        package let type: GGUFType
        package let make: () throws -> Tensor

        package init(_ name: String, _ shape: [Int], _ type: GGUFType, make: @escaping () throws -> Tensor) {
            (self.name, self.shape, self.type, self.make) = (name, shape, type, make)
        }

        var byteCount: Int { shape.reduce(1, *) / type.block * type.bytes }
    }

    /// Writes a file of version 3 atomically.
    /// - Throws: ``PEFTError`` if the disk is full, the folder isn't writable, or a tensor can't be computed.
    package static func write(
        _ settings: [(String, GGUFValue)], _ tensors: [Content], to url: URL, replacing: Bool = true
    ) throws {
        var offset = 0
        let entries = tensors.map { tensor in
            defer { offset += (tensor.byteCount + 31) / 32 * 32 }
            return GGUFHeader.Entry(
                name: tensor.name, shape: tensor.shape, type: tensor.type.rawValue, offset: offset)
        }
        try AtomicFile.write(to: url, replacing: replacing) { descriptor in
            func write(_ data: Data) throws {
                try data.withUnsafeBytes { try AtomicFile.writeAll($0, to: descriptor, name: url.path) }
            }
            try write(GGUFHeader.bytes(settings, entries))
            for tensor in tensors {
                let made = try withTorchErrors { try tensor.make() }
                guard made.shape == tensor.shape else {
                    throw PEFTError("'\(tensor.name)' has shape \(made.shape), expected \(tensor.shape)")
                }
                let data = try tensor.type.encoded(made)
                try write(data)
                try write(Data(repeating: 0, count: (32 - data.count % 32) % 32))
            }
        }
    }
}
