import Foundation
import PEFTSupport

/// A memory-mapped safetensors file: elements are read on use.
///
/// Format: 8 bytes little-endian length n, n bytes of JSON (name → dtype, shape, [begin, end) of its bytes after the
/// header), then the bytes.
package final class SafetensorsFile: TensorFile {
    package let url: URL
    package let entries: [String: TensorEntry]
    /// Tensors of 8-bit floats e4m3, whose codes are read as bytes.
    package let float8: Set<String>
    /// The header's `__metadata__`.
    package let metadata: [String: String]
    private let mapping: MappedFile
    /// Offset of each tensor's bytes in the file.
    private let starts: [String: Int]

    /// Maps the file and validates its header.
    /// - Parameter readsFloat8: whether tensors of 8-bit floats are accepted.
    /// - Throws: ``PEFTError`` if the file is missing, truncated or damaged: every tensor must be within the file and
    ///   match its shape.
    package init(_ url: URL, readsFloat8: Bool = false) throws {
        self.url = url
        let name = url.path
        mapping = try MappedFile(url)
        let bytes = mapping.bytes
        guard bytes.count >= 8 else {
            throw PEFTError("\(name) is truncated: it has \(bytes.count) bytes", remedy: "download the file again")
        }
        let length = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
        guard length >= 2, length <= 100_000_000 else {
            throw PEFTError("\(name) is not a safetensors file", remedy: "pass a .safetensors file")
        }
        guard 8 + Int(length) <= bytes.count else {
            throw PEFTError(
                "\(name) is truncated: its header needs \(8 + length) bytes, the file has \(bytes.count)",
                remedy: "download the file again")
        }
        let base = 8 + Int(length)
        let header = try JSON.parse(Data(bytes[8..<base]), name: "the header of \(name)", allowsRepeatedFields: false)
        guard let fields = header.object else {
            throw PEFTError("the header of \(name) is not an object", remedy: "download the file again")
        }
        var places: [String: Place] = [:]
        var metadata: [String: String] = [:]
        var float8: Set<String> = []
        for (key, value) in fields {
            if key == "__metadata__" {
                metadata = (value.object ?? [:]).compactMapValues(\.string)
                continue
            }
            let isFloat8 = readsFloat8 && value["dtype"] == "F8_E4M3"
            if isFloat8 { float8.insert(key) }
            places[key] = try SafetensorsFile.place(
                key, value, as: isFloat8 ? .uint8 : nil, file: name, available: bytes.count - base)
        }
        self.float8 = float8
        try SafetensorsFile.checkCoverage(places, file: name, available: bytes.count - base)
        entries = places.mapValues { TensorEntry(dtype: $0.dtype, shape: $0.shape, byteCount: $0.range.count) }
        starts = places.mapValues { base + $0.range.lowerBound }
        self.metadata = metadata
    }

    /// A tensor's dtype and shape, and its byte range after the header.
    private typealias Place = (dtype: DType, shape: [Int], range: Range<Int>)

    /// The format allows neither gaps nor overlaps, nor bytes after the last tensor.
    private static func checkCoverage(_ entries: [String: Place], file: String, available: Int) throws {
        var end = 0
        let ordered = entries.sorted {
            let (a, b) = ($0.value.range, $1.value.range)
            return (a.lowerBound, a.upperBound) < (b.lowerBound, b.upperBound)
        }
        for (key, entry) in ordered {
            guard entry.range.lowerBound == end else {
                throw PEFTError(
                    "tensor '\(key)' in \(file) starts at byte \(entry.range.lowerBound) of the data, but the previous one ends at \(end)",
                    remedy: "the file is damaged; download it again")
            }
            end = entry.range.upperBound
        }
        guard end == available else {
            throw PEFTError(
                "\(file) has \(available - end) bytes that belong to no tensor",
                remedy: "the file is damaged; download it again")
        }
    }

    private static func place(_ key: String, _ value: JSON, as type: DType?, file: String, available: Int) throws
        -> Place
    {
        func damaged(_ what: String) -> PEFTError {
            PEFTError("tensor '\(key)' in \(file) \(what)", remedy: "the file is damaged; download it again")
        }
        guard let name = value["dtype"]?.string, let shape = value["shape"]?.array?.map(\.int),
            let offsets = value["data_offsets"]?.array?.compactMap(\.int), offsets.count == 2
        else { throw damaged("has no dtype, shape or offsets") }
        guard let dtype = type ?? DType(safetensors: name) else {
            throw PEFTError(
                "tensor '\(key)' in \(file) has dtype \(name), which is not supported",
                remedy: "store it as F32, F16 or BF16")
        }
        var count = 1
        for size in shape {
            guard let size, size >= 0, case let (product, overflow) = count.multipliedReportingOverflow(by: size),
                !overflow
            else { throw damaged("has an invalid shape") }
            count = product
        }
        let (needed, overflow) = count.multipliedReportingOverflow(by: dtype.size)
        guard offsets[0] >= 0, offsets[1] >= offsets[0], !overflow, offsets[1] - offsets[0] == needed else {
            throw damaged("has offsets that don't match its shape")
        }
        guard offsets[1] <= available else {
            throw PEFTError(
                "\(file) is truncated: tensor '\(key)' ends at byte \(offsets[1]) of the data, but the file has \(available)",
                remedy: "download the file again")
        }
        return (dtype, shape.compactMap { $0 }, offsets[0]..<offsets[1])
    }

    /// The tensor as a view of the mapped bytes, without a copy. Writing to it changes only this process's view,
    /// never the file.
    package func tensor(_ name: String) throws -> Tensor {
        guard let entry = entries[name], let start = starts[name] else {
            let hint = nearestName(to: name, in: entries.keys).map { "did you mean '\($0)'?" }
            throw PEFTError("\(url.path) has no tensor '\(name)'", remedy: hint)
        }
        guard entry.byteCount > 0 else { return Tensor.empty(entry.shape, dtype: entry.dtype) }
        return mapping.tensor(at: start, shape: entry.shape, dtype: entry.dtype)
    }

    package func forget(_ name: String) {
        guard let entry = entries[name], let start = starts[name] else { return }
        mapping.forget(start..<start + entry.byteCount)
    }

    /// Writes tensors to a file atomically.
    /// - Throws: ``PEFTError`` if the disk is full or the folder isn't writable; nothing is left behind.
    package static func write(_ tensors: [String: Tensor], metadata: [String: String] = [:], to url: URL) throws {
        // Larger dtypes first, then by name, as in the reference writer, so that all data stay aligned.
        let names = tensors.keys.sorted { a, b in
            let sizes = (tensors[a]?.dtype.size ?? 0, tensors[b]?.dtype.size ?? 0)
            return sizes.0 == sizes.1 ? a < b : sizes.0 > sizes.1
        }
        var header: [String: JSON] = [:]
        if !metadata.isEmpty { header["__metadata__"] = .object(metadata.mapValues(JSON.string)) }
        var offset = 0
        for name in names {
            guard let tensor = tensors[name] else { continue }
            header[name] = [
                "dtype": .string(tensor.dtype.safetensorsName), "shape": .array(tensor.shape.map(JSON.integer)),
                "data_offsets": [.integer(offset), .integer(offset + tensor.byteCount)],
            ]
            offset += tensor.byteCount
        }
        var text = Data(JSON.object(header).text(indent: nil).utf8)
        text.append(Data(repeating: 0x20, count: (8 - text.count % 8) % 8))
        try AtomicFile.write(to: url) { descriptor in
            var prefix = withUnsafeBytes(of: UInt64(text.count).littleEndian) { Data($0) }
            prefix.append(text)
            try prefix.withUnsafeBytes { try AtomicFile.writeAll($0, to: descriptor, name: url.path) }
            for name in names {
                // Thrown here rather than by the caller, so that a failed copy to the CPU leaves no file behind.
                try withTorchErrors {
                    try tensors[name]?.withBytes { try AtomicFile.writeAll($0, to: descriptor, name: url.path) }
                }
                // Paged tensors are written to a file again, so their memory can be released.
                if let tensor = tensors[name] { PagedTensor.release(tensor) }
            }
        }
    }
}

extension DType {
    private static let names: [(String, DType)] = [
        ("F64", .float64), ("F32", .float32), ("F16", .float16), ("BF16", .bfloat16), ("I64", .int64),
        ("I32", .int32), ("I16", .int16), ("I8", .int8), ("U8", .uint8), ("BOOL", .bool),
    ]
    package init?(safetensors name: String) {
        guard let match = DType.names.first(where: { $0.0 == name }) else { return nil }
        self = match.1
    }
    package var safetensorsName: String { DType.names.first { $0.1 == self }?.0 ?? "U8" }
}
