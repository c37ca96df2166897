import Foundation

/// The header of a GGUF file: settings and tensor descriptions.
///
/// Format (versions 2 and 3, little-endian): "GGUF", version (u32), numbers of tensors and of settings (u64), settings
/// (name, type, value), tensors (name, axes, type, offset), then from a multiple of `general.alignment` on the data. A
/// string is its length (u64) and UTF-8; axes are listed from the one that lies densest.
package struct GGUFHeader: Sendable {
    /// A tensor's description; its type and offset are not validated yet.
    package struct Entry: Sendable {
        package var name: String
        /// Row-major shape.
        package var shape: [Int]
        package var type: UInt32
        /// Offset from the beginning of the data.
        package var offset: Int

        package init(name: String, shape: [Int], type: UInt32, offset: Int) {
            (self.name, self.shape, self.type, self.offset) = (name, shape, type, offset)
        }
    }

    package let settings: [String: GGUFValue]
    package let tensors: [Entry]
    package let alignment: Int
    /// Offset of the data in the file.
    package let dataStart: Int

    /// Whether a file name is that of a GGUF file.
    package static func isName(_ url: URL) -> Bool { url.pathExtension.lowercased() == "gguf" }

    /// - Throws: ``PEFTError`` if the file can't be read, or its header is truncated or damaged.
    package init(_ url: URL) throws {
        let data: Data
        do { data = try Data(contentsOf: url, options: .alwaysMapped) } catch {
            throw PEFTError("can't read \(url.path)", remedy: "check that the file exists and is readable")
        }
        try self.init(data, name: url.path)
    }

    init(_ data: Data, name: String) throws {
        guard data.count >= 24, data.prefix(4).elementsEqual("GGUF".utf8) else {
            throw PEFTError("\(name) is not a GGUF file", remedy: "name a .gguf file")
        }
        var reader = GGUFReader(data, name: name)
        _ = try reader.unsigned()
        let version = try reader.unsigned()
        guard version == 2 || version == 3 else {
            throw PEFTError(
                "\(name) has the unsupported GGUF version \(version)", remedy: "use version 2 or 3, little-endian")
        }
        let tensorCount = try reader.count(atLeast: 24)
        let settingCount = try reader.count(atLeast: 13)
        var settings: [String: GGUFValue] = [:]
        for _ in 0..<settingCount { settings[try reader.string()] = try reader.value() }
        var names: Set<String> = []
        tensors = try (0..<tensorCount).map { _ in
            let name = try reader.string()
            guard names.insert(name).inserted else { throw reader.damaged("it has two tensors '\(name)'") }
            let rank = try reader.unsigned()
            guard rank <= 4 else { throw reader.damaged("tensor '\(name)' has \(rank) axes") }
            let shape = try (0..<rank).map { _ in try reader.integer() }
            return Entry(
                name: name, shape: shape.reversed(), type: try reader.unsigned(), offset: try reader.integer())
        }
        alignment = settings["general.alignment"]?.integer ?? 32
        guard alignment > 0, alignment <= 1 << 20, alignment.isMultiple(of: 8) else {
            throw reader.damaged("its alignment is \(alignment)")
        }
        dataStart = (reader.offset + alignment - 1) / alignment * alignment
        self.settings = settings
    }
}

extension GGUFHeader {
    /// The bytes of a header of version 3, padded to where the data begin. Offsets count from there, in multiples of 32.
    package static func bytes(_ settings: [(String, GGUFValue)], _ tensors: [Entry]) -> Data {
        var out = GGUFBytes()
        out.integer(UInt32(0x4655_4747))
        out.integer(UInt32(3))
        out.integer(UInt64(tensors.count))
        out.integer(UInt64(settings.count))
        for (key, value) in settings {
            out.string(key)
            out.value(value)
        }
        for tensor in tensors {
            out.string(tensor.name)
            out.integer(UInt32(tensor.shape.count))
            for size in tensor.shape.reversed() { out.integer(UInt64(size)) }
            out.integer(tensor.type)
            out.integer(UInt64(tensor.offset))
        }
        return out.data + Data(repeating: 0, count: (32 - out.data.count % 32) % 32)
    }
}
