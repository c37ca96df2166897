import CTorch
import Foundation
import PEFTSupport

/// A memory-mapped GGUF file, llama.cpp's format.
package final class GGUFFile: TensorFile {
    package let url: URL
    /// The file's metadata by key.
    package let settings: [String: GGUFValue]
    /// Quantized tensors are listed with the float32 dtype to which they are dequantized.
    package let entries: [String: TensorEntry]
    private let places: [String: Place]
    private let mapping: MappedFile

    /// The location of a tensor's bytes, validated.
    private struct Place {
        let type: GGUFType
        let shape: [Int]
        let start: Int
        let byteCount: Int
    }

    /// - Throws: ``PEFTError`` if the file is truncated or damaged, or contains unsupported types.
    package init(_ url: URL) throws {
        self.url = url
        let header = try GGUFHeader(url)
        settings = header.settings
        let mapping = try MappedFile(url)
        self.mapping = mapping
        if let parts = settings["split.count"]?.integer, parts > 1 {
            throw PEFTError(
                "\(url.path) is one of \(parts) shards of a model", remedy: "join them with llama-gguf-split --merge")
        }
        let list = try header.tensors.map { ($0.name, try Self.place($0, header, url.path, mapping.count)) }
        places = Dictionary(list, uniquingKeysWith: { first, _ in first })
        entries = places.mapValues {
            let type = $0.type.plain ?? .float32
            return TensorEntry(dtype: type, shape: $0.shape, byteCount: $0.shape.reduce(1, *) * type.size)
        }
    }

    private static func place(_ entry: GGUFHeader.Entry, _ header: GGUFHeader, _ file: String, _ size: Int) throws
        -> Place
    {
        func damaged(_ what: String) -> PEFTError {
            PEFTError("tensor '\(entry.name)' in \(file) \(what)", remedy: "the file is damaged; download it again")
        }
        guard let type = GGUFType(rawValue: entry.type) else {
            throw PEFTError(
                "tensor '\(entry.name)' in \(file) has type \(GGUFType.name(of: entry.type)), which is not supported",
                remedy: "supported types are \(GGUFType.allCases.map(\.name).joined(separator: ", "))")
        }
        var count = 1
        for size in entry.shape {
            let (product, overflow) = count.multipliedReportingOverflow(by: size)
            guard size >= 0, !overflow else { throw damaged("has an invalid shape") }
            count = product
        }
        guard (entry.shape.last ?? 1).isMultiple(of: type.block) else {
            throw damaged(
                "has rows of \(entry.shape.last ?? 1) values, which aren't a multiple of its block size \(type.block)"
            )
        }
        // The dequantized size must not overflow either.
        guard !count.multipliedReportingOverflow(by: 4).overflow else { throw damaged("has an invalid shape") }
        let (bytes, tooMany) = (count / type.block).multipliedReportingOverflow(by: type.bytes)
        let (start, tooFar) = header.dataStart.addingReportingOverflow(entry.offset)
        guard !tooMany, !tooFar, entry.offset >= 0, start <= size, bytes <= size - start else {
            throw damaged("extends beyond the end of the file")
        }
        guard entry.offset.isMultiple(of: header.alignment) else {
            throw damaged("starts at byte \(entry.offset), which isn't aligned")
        }
        return Place(type: type, shape: entry.shape, start: start, byteCount: bytes)
    }

    /// Storage type of a tensor; `nil` for an unknown name.
    package func type(of name: String) -> GGUFType? { places[name]?.type }

    private func place(_ name: String) throws -> Place {
        guard let place = places[name] else {
            let hint = nearestName(to: name, in: places.keys).map { "did you mean '\($0)'?" }
            throw PEFTError("\(url.path) has no tensor '\(name)'", remedy: hint)
        }
        return place
    }

    /// The dequantized tensor; unquantized ones are views of the mapped file.
    package func tensor(_ name: String) throws -> Tensor {
        let place = try place(name)
        let count = place.shape.reduce(1, *)
        guard count > 0 else { return .empty(place.shape, dtype: place.type.plain ?? .float32) }
        if let type = place.type.plain { return mapping.tensor(at: place.start, shape: place.shape, dtype: type) }
        let length = place.shape.last ?? 1
        return .filled(place.shape, dtype: .float32, as: Float.self) { out in
            forEachRow(place, length: length) { index, row in row.numbers(place.type, to: out + index * length) }
        }
    }

    package func forget(_ name: String) {
        guard let place = places[name] else { return }
        mapping.forget(place.start..<place.start + place.byteCount)
    }

    /// A quantized matrix `[outputs, inputs]` in the layout of ``GroupQuantizedMatrix``.
    package struct Packed {
        /// int32 `[inputs · bits / 32, outputs]`
        package let integers: Tensor
        /// In ``GGUFType/scaleType``, `[groups, outputs]`.
        package let scales: Tensor
        /// float32 `[groups, outputs]`; `nil` if all are ``GGUFType/zero``.
        package let zeros: Tensor?
    }

    /// Repacks a quantized matrix losslessly, except that fractional zero points are minimum / scale in float32.
    ///
    /// - Parameter rowOrder: the stored row of each resulting row, `[outputs]`; `nil` keeps the order.
    /// - Throws: ``PEFTError`` unless it is a quantized matrix whose sides fill whole words.
    package func packed(_ name: String, rowOrder: [Int]? = nil) throws -> Packed {
        let place = try place(name)
        let type = place.type
        let perWord = 32 / type.packedBits
        guard type.plain == nil, place.shape.count == 2, place.shape[0].isMultiple(of: perWord),
            rowOrder.map({ $0.count == place.shape[0] }) ?? true
        else { throw PEFTError("tensor '\(name)' in \(url.path) can't be packed", remedy: "dequantize it instead") }
        let (outputs, inputs) = (place.shape[0], place.shape[1])
        let (words, groups) = (inputs / perWord, inputs / type.group)
        // The resulting index of each stored row.
        var places = Array(0..<outputs)
        if let rowOrder { for (to, from) in rowOrder.enumerated() { places[from] = to } }
        let scales = Tensor.empty([groups, outputs])
        let zeros = type.hasMinimum ? Tensor.empty([groups, outputs]) : nil
        let grid = (scales.floats, zeros?.floats)
        let integers = Tensor.filled([words, outputs], dtype: .int32, as: UInt32.self) { out in
            forEachRow(place, length: inputs) { [places] index, row in
                let column = places[index]
                for group in 0..<groups {
                    let (scale, zero) = row.grid(group, of: type)
                    grid.0?[group * outputs + column] = scale
                    grid.1?[group * outputs + column] = zero
                }
                row.pack(bits: type.packedBits, words, to: out + column, stride: outputs)
            }
        }
        return Packed(integers: integers, scales: scales.to(type.scaleType), zeros: zeros)
    }

    /// Calls `body` with each row of a quantized tensor, on several threads.
    private func forEachRow(_ place: Place, length: Int, _ body: (Int, inout GGUFRow) -> Void) {
        let rows = length > 0 ? place.shape.dropLast().reduce(1, *) : 0
        let bytes = length / place.type.block * place.type.bytes
        // Chunks of rows, so that one thread writes neighboring addresses.
        let chunk = 64
        withoutActuallyEscaping(body) { body in
            nonisolated(unsafe) let body = body
            DispatchQueue.concurrentPerform(iterations: (rows + chunk - 1) / chunk) { [mapping] index in
                var row = GGUFRow(place.type, count: length)
                for i in (index * chunk)..<min(rows, (index + 1) * chunk) {
                    let at = place.start + i * bytes
                    row.read(place.type, UnsafeRawBufferPointer(rebasing: mapping.bytes[at..<(at + bytes)]))
                    body(i, &row)
                }
            }
        }
    }
}

extension GGUFRow {
    /// Packs the integers into words, lowest bits first.
    mutating func pack(bits: Int, _ words: Int, to out: UnsafeMutablePointer<UInt32>, stride: Int) {
        let perWord = 32 / bits
        for word in 0..<words {
            var value: UInt32 = 0
            for k in 0..<perWord { value |= UInt32(integers[word * perWord + k]) << UInt32(k * bits) }
            out[word * stride] = value
        }
    }

    /// The grid w = scale · (q − zero) of a group. A group with scale 0, whose values all equal its minimum, gets a
    /// nonzero scale and integers of 0.
    mutating func grid(_ group: Int, of type: GGUFType) -> (scale: Float, zero: Float) {
        let (scale, minimum) = (scales[group], minima[group])
        guard scale == 0 else { return (scale, minimum / scale) }
        for i in (group * type.group)..<((group + 1) * type.group) { integers[i] = 0 }
        return (minimum, 1)
    }
}

extension Tensor {
    /// The elements of a float32 tensor on the CPU, valid while it exists.
    fileprivate var floats: UnsafeMutablePointer<Float>? {
        ct_data(pointer)?.assumingMemoryBound(to: Float.self)
    }
}
