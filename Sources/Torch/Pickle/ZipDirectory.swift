import Foundation
import PEFTSupport

/// The stored (uncompressed) files in a zip archive, as far as `torch.save` uses the format.
///
/// Every number is validated before use. Anything that zip readers interpret differently (a repeated name, a local
/// header with another name) is rejected.
struct ZipDirectory {
    /// The byte range of each file, by name.
    private(set) var files: [String: Range<Int>] = [:]
    private let bytes: UnsafeRawBufferPointer
    private let name: String

    static func isArchive(_ bytes: UnsafeRawBufferPointer) -> Bool {
        bytes.count >= 4 && bytes.loadUnaligned(as: UInt32.self).littleEndian == 0x0403_4B50
    }

    /// - Parameter name: name of the archive in errors.
    /// - Throws: ``PEFTError`` if the archive is damaged, or uses features that `torch.save` doesn't.
    init(_ bytes: UnsafeRawBufferPointer, name: String) throws {
        (self.bytes, self.name) = (bytes, name)
        var (count, place, size) = try end()
        let directory = place
        guard count <= size / 46 else { throw damaged("its directory is damaged") }
        while count > 0 {
            count -= 1
            guard try number(place, 4) == 0x0201_4B50 else { throw damaged("its directory is damaged") }
            let (flags, method) = (try number(place + 8, 2), try number(place + 10, 2))
            var (packed, plain) = (try number(place + 20, 4), try number(place + 24, 4))
            let lengths = (try number(place + 28, 2), try number(place + 30, 2), try number(place + 32, 2))
            var local = try number(place + 42, 4)
            let file = try text(place + 46, lengths.0)
            try widen(&plain, &packed, &local, extra: place + 46 + lengths.0, count: lengths.1)
            guard method == 0, flags & 1 == 0 else { throw damaged("'\(file)' is compressed or encrypted") }
            guard packed == plain else { throw damaged("'\(file)' has two sizes") }
            guard try number(local, 4) == 0x0403_4B50, try text(local + 30, number(local + 26, 2)) == file else {
                throw damaged("'\(file)' is not at the offset in its directory")
            }
            let start = local + 30 + (try number(local + 26, 2)) + (try number(local + 28, 2))
            guard start <= directory, plain <= directory - start else { throw damaged("'\(file)' is truncated") }
            guard files.updateValue(start..<(start + plain), forKey: file) == nil else {
                throw damaged("'\(file)' is listed twice")
            }
            place += 46 + lengths.0 + lengths.1 + lengths.2
        }
    }

    private func damaged(_ what: String) -> PEFTError {
        PEFTError("\(name) is not a readable archive: \(what)", remedy: "download the file again")
    }

    private func number(_ place: Int, _ count: Int) throws -> Int {
        guard place >= 0, count <= bytes.count, place <= bytes.count - count else { throw damaged("it is truncated") }
        let value = (0..<count).reduce(UInt64(0)) { $0 | UInt64(bytes[place + $1]) << UInt64(8 * $1) }
        guard let value = Int(exactly: value), value <= 1 << 60 else { throw damaged("it contains invalid numbers") }
        return value
    }

    private func text(_ place: Int, _ count: Int) throws -> String {
        guard place >= 0, place <= bytes.count, count <= bytes.count - place else { throw damaged("it is truncated") }
        return String(decoding: bytes[place..<(place + count)], as: UTF8.self)
    }

    /// The end record, within the last 64 KiB: number of entries, offset of the directory and its size.
    private func end() throws -> (count: Int, place: Int, size: Int) {
        guard bytes.count >= 22 else { throw damaged("it is too short") }
        var end = bytes.count - 22
        // Its comment must end at the end of the file; otherwise these bytes only resemble an end record.
        while try number(end, 4) != 0x0605_4B50 || end + 22 + number(end + 20, 2) != bytes.count {
            end -= 1
            guard end >= max(0, bytes.count - 65_557) else { throw damaged("it has no directory") }
        }
        var (count, size, place) = (try number(end + 10, 2), try number(end + 12, 4), try number(end + 16, 4))
        if count == 0xFFFF || size == 0xFFFF_FFFF || place == 0xFFFF_FFFF {
            guard end >= 20, try number(end - 20, 4) == 0x0706_4B50, case let wide = try number(end - 12, 8),
                try number(wide, 4) == 0x0606_4B50
            else { throw damaged("its directory is damaged") }
            (count, size, place) = (try number(wide + 32, 8), try number(wide + 40, 8), try number(wide + 48, 8))
        }
        guard place <= end, size <= end - place else { throw damaged("its directory is damaged") }
        return (count, place, size)
    }

    /// Reads 64-bit sizes and offsets from the entry's extra fields.
    private func widen(_ plain: inout Int, _ packed: inout Int, _ local: inout Int, extra: Int, count: Int) throws {
        let isWide = [plain, packed, local].map { $0 == 0xFFFF_FFFF }
        guard isWide.contains(true) else { return }
        var place = extra
        while place + 4 <= extra + count {
            let (kind, length) = (try number(place, 2), try number(place + 2, 2))
            guard kind == 1 else {
                place += 4 + length
                continue
            }
            guard length >= 8 * isWide.filter({ $0 }).count, place + 4 + length <= extra + count else { break }
            place += 4
            var values: [Int] = []
            for _ in 0..<isWide.filter({ $0 }).count {
                values.append(try number(place, 8))
                place += 8
            }
            if isWide[0] { plain = values.removeFirst() }
            if isWide[1] { packed = values.removeFirst() }
            if isWide[2] { local = values.removeFirst() }
            return
        }
        throw damaged("its directory is damaged")
    }
}
