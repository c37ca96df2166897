import Foundation
import Support
import Torch

/// The tensors of a file that `torch.save` wrote (a zip archive around a pickle), read without running anything.
///
/// A pickle is a program. Of its instructions those are understood that build dictionaries, lists and tensors; of the
/// functions it may name, those that rebuild a tensor. Everything else is refused.
struct TorchArchive {
    /// What the file holds, by name; nested dictionaries are joined with dots.
    let tensors: [String: Tensor]

    /// - Throws: ``PEFTError`` if the file is no such archive, is damaged, or names anything that could run code.
    init(_ file: URL) throws {
        guard let data = try? Data(contentsOf: file, options: .mappedIfSafe) else {
            throw PEFTError("can't read \(file.path)", remedy: "check that the file exists and is readable")
        }
        let entries = try ZipEntries.read(data, name: file.path)
        guard let pickle = entries.first(where: { $0.key.hasSuffix("data.pkl") })?.value else {
            throw PEFTError(
                "\(file.path) is no file of torch.save's present format",
                remedy: "load it in PyTorch and save it again")
        }
        var reader = PickleReader(pickle, name: file.path)
        var found: [String: Tensor] = [:]
        func collect(_ value: PickleValue, _ path: String) throws {
            switch value {
            case .dictionary(let box):
                for (key, value) in box.items {
                    guard case .string(let text) = key else { continue }
                    try collect(value, path.isEmpty ? text : "\(path).\(text)")
                }
            case .tensor(let layout): found[path] = try Self.tensor(layout, entries, name: file.path)
            default: break
            }
        }
        let root = try reader.read()
        guard case .dictionary = root else {
            throw PEFTError("\(file.path) holds no dictionary of tensors", remedy: "save a state dictionary")
        }
        // A checkpoint may hold the tensors beside other things.
        if case .dictionary(let box) = root, let state = box["state_dict"] ?? box["model_state_dict"] {
            try collect(state, "")
        } else {
            try collect(root, "")
        }
        tensors = found
    }

    private static func tensor(_ layout: PickleValue.Layout, _ entries: [String: Data], name: String) throws -> Tensor
    {
        guard let bytes = entries.first(where: { $0.key.hasSuffix("data/\(layout.storage)") })?.value else {
            throw PEFTError("\(name) lacks the storage '\(layout.storage)'", remedy: "fetch the file again")
        }
        let size = layout.dtype.size
        let last = zip(layout.shape, layout.strides).reduce(layout.offset) { $0 + max(0, $1.0 - 1) * $1.1 }
        let count = layout.shape.reduce(1, *)
        guard count == 0 || (layout.offset >= 0 && last >= 0 && (last + 1) * size <= bytes.count) else {
            throw PEFTError("\(name) has a tensor that reaches beyond its storage", remedy: "fetch the file again")
        }
        // Row-major, whatever the strides.
        var plain = Data(capacity: count * size)
        var index = [Int](repeating: 0, count: layout.shape.count)
        for _ in 0..<count {
            let place = zip(index, layout.strides).reduce(layout.offset) { $0 + $1.0 * $1.1 } * size
            plain.append(bytes[(bytes.startIndex + place)..<(bytes.startIndex + place + size)])
            for axis in index.indices.reversed() {
                index[axis] += 1
                if index[axis] < layout.shape[axis] { break }
                index[axis] = 0
            }
        }
        return try withTorchErrors { Tensor(bytes: plain, shape: layout.shape, dtype: layout.dtype) }
    }
}

/// The stored (not compressed) files of a zip archive.
enum ZipEntries {
    static func read(_ data: Data, name: String) throws -> [String: Data] {
        func damaged(_ what: String) -> PEFTError {
            PEFTError("\(name) is not a readable archive: \(what)", remedy: "fetch the file again")
        }
        func number(_ place: Int, _ bytes: Int) throws -> Int {
            guard place >= 0, place + bytes <= data.count else { throw damaged("it is cut off") }
            return (0..<bytes).reduce(0) { $0 | Int(data[data.startIndex + place + $1]) << (8 * $1) }
        }
        guard data.count >= 22 else { throw damaged("it is too short") }
        // The end record lies in the last 64 KiB.
        var end = data.count - 22
        while end >= max(0, data.count - 65_557), try number(end, 4) != 0x0605_4B50 { end -= 1 }
        guard end >= 0, try number(end, 4) == 0x0605_4B50 else { throw damaged("it has no directory") }
        let count = try number(end + 10, 2)
        var place = try number(end + 16, 4)
        var entries: [String: Data] = [:]
        for _ in 0..<count {
            guard try number(place, 4) == 0x0201_4B50 else { throw damaged("its directory is damaged") }
            let (method, size) = (try number(place + 10, 2), try number(place + 20, 4))
            let (nameLength, extra, comment) = (
                try number(place + 28, 2), try number(place + 30, 2), try number(place + 32, 2)
            )
            let local = try number(place + 42, 4)
            guard place + 46 + nameLength <= data.count else { throw damaged("it is cut off") }
            let start = data.startIndex + place + 46
            let entry = String(decoding: data[start..<(start + nameLength)], as: UTF8.self)
            guard method == 0, size != 0xFFFF_FFFF else { throw damaged("'\(entry)' is compressed or too large") }
            let content = local + 30 + (try number(local + 26, 2)) + (try number(local + 28, 2))
            guard content + size <= data.count else { throw damaged("'\(entry)' is cut off") }
            entries[entry] = data[(data.startIndex + content)..<(data.startIndex + content + size)]
            place += 46 + nameLength + extra + comment
        }
        return entries
    }
}
