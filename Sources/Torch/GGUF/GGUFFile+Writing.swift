import CTorch
import Foundation
import PEFTSupport

extension GGUFType {
    /// The types that can be written.
    package static let written: [GGUFType] = [
        .f32, .f16, .bf16, .q8_0, .q4_0, .q4_1, .q5_0, .q5_1, .q4_K, .q5_K, .q6_K,
    ]

    /// Encodes a tensor in this type: bit for bit as llama.cpp does for blocks of 32 values, with a search for scales of
    /// this package's own for blocks of 256.
    ///
    /// - Throws: ``PEFTError`` for a type that can't be written, and for rows that aren't whole blocks.
    func encoded(_ tensor: Tensor) throws -> Data {
        if let plain { return try withTorchErrors { tensor.to(plain).withBytes { Data($0) } } }
        guard GGUFType.written.contains(self), tensor.dim(-1).isMultiple(of: block) else {
            throw PEFTError("a tensor of shape \(tensor.shape) can't be written as \(name)")
        }
        let blocks = try withTorchErrors { wrap(ct_encode_gguf(tensor.pointer, rawValue)) }
        return try withTorchErrors { blocks.withBytes { Data($0) } }
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
