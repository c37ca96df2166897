import Foundation
import PEFTSupport

/// A memory-mapped `torch.save` file, read without running code.
///
/// The current format is a zip archive of a pickle and one file per storage; before PyTorch 1.6 it was a sequence of
/// pickles followed by the storages. Tensors are views of the mapped file, tensors that share a storage share its
/// bytes, and only tensors that aren't row-major are copied.
package final class TorchFile: TensorFile {
    package let url: URL
    package let entries: [String: TensorEntry]
    private let mapping: MappedFile
    private let layouts: [String: PickleReader.Layout]
    /// The byte range of each storage, by key.
    private let storages: [String: Range<Int>]

    /// - Throws: ``PEFTError`` if the file isn't a state dict, is damaged, or names anything that could run code.
    package init(_ url: URL) throws {
        self.url = url
        mapping = try MappedFile(url)
        let name = url.path
        let (root, reader): (Int, PickleReader)
        if ZipDirectory.isArchive(mapping.bytes) {
            (root, reader, storages) = try Self.archive(mapping.bytes, name: name)
        } else if mapping.bytes.starts(with: Self.legacyMagic) {
            (root, reader, storages) = try Self.legacy(mapping.bytes, name: name)
        } else {
            throw PEFTError(
                "\(name) is not a torch.save file",
                remedy: "use a .bin or .pt file from PyTorch, or safetensors")
        }
        layouts = try StateDictionary(reader, name: name).tensors(root)
        var entries: [String: TensorEntry] = [:]
        for (key, layout) in layouts { entries[key] = try Self.entry(key, layout, storages, name: name) }
        self.entries = entries
    }

    // MARK: Formats

    private static func archive(_ bytes: UnsafeRawBufferPointer, name: String) throws -> (
        Int, PickleReader, [String: Range<Int>]
    ) {
        let files = try ZipDirectory(bytes, name: name).files
        let pickles = files.filter { $0.key == "data.pkl" || $0.key.hasSuffix("/data.pkl") }
        guard let (path, range) = pickles.first, pickles.count == 1 else {
            throw PEFTError("\(name) is not a torch.save archive", remedy: "load it in PyTorch and save it again")
        }
        let folder = String(path.dropLast("data.pkl".count))
        if let order = files[folder + "byteorder"], String(decoding: bytes[order], as: UTF8.self) != "little" {
            throw PEFTError("\(name) was written on a big-endian machine", remedy: "save it again on this one")
        }
        var reader = PickleReader(UnsafeRawBufferPointer(rebasing: bytes[range]), name: name)
        let root = try reader.read()
        var storages: [String: Range<Int>] = [:]
        for key in reader.usedStorages.keys { storages[key] = files["\(folder)data/\(key)"] }
        return (root, reader, storages)
    }

    /// The pickle of 0x1950a86a20f9469cfc6c.
    private static let legacyMagic: [UInt8] = [
        0x80, 0x02, 0x8A, 0x0A, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19, 0x2E,
    ]

    /// The legacy format: magic number, version, machine, the object and the storage keys; then for each storage its
    /// number of elements (8 bytes) and the elements.
    private static func legacy(_ bytes: UnsafeRawBufferPointer, name: String) throws -> (
        Int, PickleReader, [String: Range<Int>]
    ) {
        func damaged() -> PEFTError { PEFTError("\(name) is damaged", remedy: "download the file again") }
        var version = PickleReader(bytes, from: legacyMagic.count, name: name)
        let number = try version.read()
        guard case .integer(1001) = version.values[number] else { throw damaged() }
        var machine = PickleReader(bytes, from: version.place, name: name)
        let description = try machine.read()
        guard case .dictionary(let fields) = machine.values[description] else { throw damaged() }
        for (key, value) in machine.dictionaries[fields] {
            if case .string("little_endian") = machine.values[key], case .bool(false) = machine.values[value] {
                throw PEFTError("\(name) was written on a big-endian machine", remedy: "save it again on this one")
            }
        }
        var reader = PickleReader(bytes, from: machine.place, name: name)
        let root = try reader.read()
        var order = PickleReader(bytes, from: reader.place, name: name)
        let keys = try order.read()
        guard case .list(let list) = order.values[keys] else { throw damaged() }
        var place = order.place
        var storages: [String: Range<Int>] = [:]
        for item in order.lists[list] {
            guard case .string(let key) = order.values[item], let dtype = reader.usedStorages[key],
                bytes.count - place >= 8,
                let count = Int(exactly: bytes.loadUnaligned(fromByteOffset: place, as: Int64.self).littleEndian),
                count >= 0, count <= (bytes.count - place - 8) / dtype.size
            else { throw damaged() }
            storages[key] = (place + 8)..<(place + 8 + count * dtype.size)
            place += 8 + count * dtype.size
        }
        return (root, reader, storages)
    }

    // MARK: Tensors

    /// Maximum size of a tensor that repeats the elements of a smaller storage.
    private static let repetitionLimit = 64 << 20

    /// - Throws: ``PEFTError`` unless all elements of the tensor are in its storage.
    private static func entry(
        _ key: String, _ layout: PickleReader.Layout, _ storages: [String: Range<Int>], name: String
    ) throws -> TensorEntry {
        guard let storage = storages[layout.storage] else {
            throw PEFTError("\(name) lacks the storage '\(layout.storage)'", remedy: "download the file again")
        }
        func damaged(_ what: String) -> PEFTError {
            PEFTError("tensor '\(key)' in \(name) \(what)", remedy: "download the file again")
        }
        var (count, last) = (1, layout.offset)
        for (size, stride) in zip(layout.shape, layout.strides) {
            let (product, tooMany) = count.multipliedReportingOverflow(by: size)
            let (reach, tooFar) = max(0, size - 1).multipliedReportingOverflow(by: stride)
            let (sum, beyond) = last.addingReportingOverflow(reach)
            guard !tooMany, !tooFar, !beyond else { throw damaged("has an invalid shape") }
            (count, last) = (product, sum)
        }
        let (byteCount, overflow) = count.multipliedReportingOverflow(by: layout.dtype.size)
        guard !overflow else { throw damaged("has an invalid shape") }
        guard count == 0 || last < storage.count / layout.dtype.size else {
            throw damaged("extends beyond its storage")
        }
        guard byteCount <= max(storage.count, repetitionLimit) else {
            throw damaged("expands a small storage to an implausible size")
        }
        return TensorEntry(dtype: layout.dtype, shape: layout.shape, byteCount: byteCount)
    }

    package func tensor(_ name: String) throws -> Tensor {
        guard let entry = entries[name], let layout = layouts[name], let storage = storages[layout.storage] else {
            let hint = nearestName(to: name, in: entries.keys).map { "did you mean '\($0)'?" }
            throw PEFTError("\(url.path) has no tensor '\(name)'", remedy: hint)
        }
        guard entry.byteCount > 0 else { return Tensor.empty(entry.shape, dtype: entry.dtype) }
        let start = storage.lowerBound + layout.offset * entry.dtype.size
        let isAligned = Int(bitPattern: mapping.start + start).isMultiple(of: entry.dtype.size)
        if layout.isRowMajor, isAligned { return mapping.tensor(at: start, shape: entry.shape, dtype: entry.dtype) }
        let bytes = layout.gathered(from: mapping.bytes.baseAddress.map { $0 + start }, count: entry.byteCount)
        return try withTorchErrors { Tensor(bytes: bytes, shape: entry.shape, dtype: entry.dtype) }
    }
}

extension PickleReader.Layout {
    /// Whether the elements are row-major and contiguous.
    var isRowMajor: Bool {
        var expected = 1
        for (size, stride) in zip(shape, strides).reversed() where size != 1 {
            guard stride == expected else { return false }
            expected *= size
        }
        return true
    }

    /// Copies the elements in row-major order, whatever the strides, from `start`, the address of the first.
    fileprivate func gathered(from start: UnsafeRawPointer?, count: Int) -> Data {
        guard let start else { return Data() }
        if isRowMajor { return Data(bytes: start, count: count) }
        let size = dtype.size
        // An inner loop for the last axis, a counter for the others.
        let (inner, step) = (shape.last ?? 1, (strides.last ?? 1) * size)
        var plain = Data(count: count)
        plain.withUnsafeMutableBytes { target in
            guard let target = target.baseAddress else { return }
            var index = [Int](repeating: 0, count: max(0, shape.count - 1))
            for row in 0..<(count / size / inner) {
                let source = start + zip(index, strides).reduce(0) { $0 + $1.0 * $1.1 } * size
                let place = target + row * inner * size
                if step == size {
                    memcpy(place, source, inner * size)
                } else {
                    for column in 0..<inner { memcpy(place + column * size, source + column * step, size) }
                }
                for axis in index.indices.reversed() {
                    index[axis] += 1
                    if index[axis] < shape[axis] { break }
                    index[axis] = 0
                }
            }
        }
        return plain
    }
}

/// The tensors in an unpickled object, by name; nested dictionaries are joined with dots.
private struct StateDictionary {
    private let reader: PickleReader
    private let name: String
    /// A model is a dictionary of tensors; a checkpoint may nest it in others.
    private static let deepest = 8
    private static let longestName = 2000

    init(_ reader: PickleReader, name: String) { (self.reader, self.name) = (reader, name) }

    func tensors(_ root: Int) throws -> [String: PickleReader.Layout] {
        guard case .dictionary(let index) = reader.values[root] else {
            throw PEFTError("\(name) contains no dictionary of tensors", remedy: "save a state dict")
        }
        var found: [String: PickleReader.Layout] = [:]
        // A dictionary that many others contain is visited once for each, so the number of visits is limited.
        var budget = 1_000_000
        // A checkpoint may contain the tensors next to other values.
        let state = item("state_dict", in: index) ?? item("model_state_dict", in: index)
        try collect(state ?? index, "", depth: 0, &budget, into: &found)
        return found
    }

    private func item(_ name: String, in index: Int) -> Int? {
        for (key, value) in reader.dictionaries[index].reversed() {
            if case .string(name) = reader.values[key], case .dictionary(let inner) = reader.values[value] {
                return inner
            }
        }
        return nil
    }

    private func collect(
        _ index: Int, _ path: String, depth: Int, _ budget: inout Int, into found: inout [String: PickleReader.Layout]
    ) throws {
        budget -= reader.dictionaries[index].count + 1
        guard depth <= Self.deepest, budget > 0 else {
            throw PEFTError("\(name) nests dictionaries too deeply", remedy: "save a state dict")
        }
        for (key, value) in reader.dictionaries[index] {
            guard case .string(let text) = reader.values[key] else { continue }
            switch reader.values[value] {
            case .tensor(let layout): found[try joined(path, text)] = layout
            case .dictionary(let inner):
                try collect(inner, joined(path, text), depth: depth + 1, &budget, into: &found)
            default: continue
            }
        }
    }

    private func joined(_ path: String, _ key: String) throws -> String {
        guard path.utf8.count + key.utf8.count < Self.longestName else {
            throw PEFTError(
                "\(name) contains a name of over \(Self.longestName) bytes", remedy: "download the file again")
        }
        return path.isEmpty ? key : "\(path).\(key)"
    }
}
