import Foundation
import PEFTSupport

/// SentencePiece's character map: a double-array trie over UTF-8 and the replacements it points to.
///
/// Applied as in the `tokenizers` library, which differs from SentencePiece: the text is split into grapheme
/// clusters; a cluster shorter than 6 bytes of which *some prefix* is in the map is replaced entirely by the mapping
/// of the *shortest* such prefix; every other cluster is mapped scalar by scalar. So "\r\n" becomes one space, as
/// "\r" does.
struct Precompiled: Normalizer {
    /// Darts-clone's units: label in bits 0–7, "has a value" in bit 8, offset in bits 9–31.
    private let trie: [UInt32]
    /// Replacements, each terminated by NUL or the end.
    private let replacements: [UInt8]
    /// ASCII characters that are unchanged.
    private let isPlain: [Bool]

    init(_ fields: StageFields) throws {
        let text = try fields.string("precompiled_charsmap")
        guard let data = Data(base64Encoded: text) else {
            throw fields.malformed("precompiled_charsmap is not base64")
        }
        do { try self.init(Array(data)) } catch { throw fields.malformed(error.what) }
    }

    /// An error in a character map; the caller adds the file.
    struct Damage: Error { let what: String }

    /// Layout of `bytes`: the trie's size in bytes (32 bits, little endian), the trie, the replacements.
    init(_ bytes: [UInt8]) throws(Damage) {
        func word(_ index: Int) -> UInt32 {
            UInt32(bytes[index]) | UInt32(bytes[index + 1]) << 8 | UInt32(bytes[index + 2]) << 16
                | UInt32(bytes[index + 3]) << 24
        }
        guard bytes.count >= 4 else { throw Damage(what: "the character map is too short") }
        let size = Int(word(0))
        guard size >= 4, size % 4 == 0, size <= bytes.count - 4 else {
            throw Damage(what: "the character map's trie has \(size) bytes, but \(bytes.count - 4) follow")
        }
        let units = (0..<size / 4).map { word(4 + 4 * $0) }
        let blob = Array(bytes[(4 + size)...])
        guard validated(blob) != nil else { throw Damage(what: "the character map's replacements are not UTF-8") }
        trie = units
        replacements = blob
        // A unit with bit 31 set holds a value and has no target.
        for (index, unit) in units.enumerated() where unit >> 31 == 0 {
            let target = index ^ Precompiled.offset(of: unit)
            guard target < units.count else { throw Damage(what: "the character map's trie points outside itself") }
            guard unit >> 8 & 1 == 1 else { continue }
            let value = Int(units[target] & 0x7FFF_FFFF)
            guard value <= blob.count, value == blob.count || blob[value] & 0xC0 != 0x80 else {
                throw Damage(what: "the character map's trie points outside its replacements")
            }
        }
        var plain = [Bool](repeating: true, count: 128)
        for byte in UInt8(0)..<128 {
            plain[Int(byte)] = Precompiled.shortestMatch([byte], 0..<1, units, blob) == nil
        }
        isPlain = plain
    }

    func normalize(_ text: inout NormalizedText) {
        let bytes = text.bytes
        guard let first = bytes.firstIndex(where: { $0 >= 0x80 || !isPlain[Int($0)] }) else { return }
        var result: [UInt8] = []
        result.reserveCapacity(bytes.count + bytes.count / 8)
        // A plain letter before it may be the base of a mark.
        var index = max(0, first - 1)
        result.append(contentsOf: bytes[..<index])
        while index < bytes.count {
            let start = index
            while index < bytes.count, bytes[index] < 0x80, isPlain[Int(bytes[index])],
                index + 1 == bytes.count || bytes[index + 1] < 0x80
            {
                index += 1
            }
            result.append(contentsOf: bytes[start..<index])
            guard index < bytes.count else { break }
            if let length = Precompiled.loneScalar(bytes, index) {
                append(bytes, cluster: index..<index + length, to: &result)
                index += length
                continue
            }
            let end = Precompiled.portionEnd(bytes, from: index)
            for cluster in String(decoding: bytes[index..<end], as: UTF8.self) {
                let length = cluster.utf8.count
                append(bytes, cluster: index..<index + length, to: &result)
                index += length
            }
            index = end
        }
        text.bytes = result
    }

    func align(_ text: inout AlignedText) {
        var changes: [(scalar: Unicode.Scalar, change: Int)] = []
        /// The additional scalars of a longer replacement are inserted at its end; those that a shorter one drops
        /// belong to its last.
        func replace(_ count: Int, with new: [Unicode.Scalar]) {
            let first = changes.count
            changes += new.map { ($0, 0) }
            if new.count > count {
                for index in changes.indices.suffix(new.count - count) { changes[index].change = 1 }
            } else if new.count < count, !changes.isEmpty {
                changes[changes.count - 1].change += new.count - count
            }
            assert(changes.count == first + new.count)
        }
        func replacement(_ bytes: [UInt8]) -> [Unicode.Scalar]? {
            shortestMatch(bytes, 0..<bytes.count).map {
                Array(String(decoding: replacements[$0], as: UTF8.self).unicodeScalars)
            }
        }
        var whole = ""
        whole.unicodeScalars.append(contentsOf: text.scalars)
        for cluster in whole {
            let bytes = Array(cluster.utf8)
            if bytes.count < 6, let new = replacement(bytes) {
                replace(cluster.unicodeScalars.count, with: new)
                continue
            }
            for scalar in cluster.unicodeScalars {
                if let new = replacement(Array(String(scalar).utf8)) {
                    replace(1, with: new)
                } else {
                    changes.append((scalar, 0))
                }
            }
        }
        text.transform(changes)
    }

    private func append(_ bytes: [UInt8], cluster: Range<Int>, to result: inout [UInt8]) {
        if cluster.count < 6, let match = shortestMatch(bytes, cluster) {
            result.append(contentsOf: replacements[match])
            return
        }
        var index = cluster.lowerBound
        while index < cluster.upperBound {
            let scalar = index..<index + bytes.scalarLength(at: index)
            if let match = shortestMatch(bytes, scalar) {
                result.append(contentsOf: replacements[match])
            } else {
                result.append(contentsOf: bytes[scalar])
            }
            index = scalar.upperBound
        }
    }

    /// The length of the scalar at `index`, if it is obviously a cluster of its own.
    private static func loneScalar(_ bytes: [UInt8], _ index: Int) -> Int? {
        let (scalar, length) = bytes.scalar(at: index)
        guard isSeparate(scalar) else { return nil }
        guard index + length < bytes.count else { return length }
        if scalar == "\r", bytes[index + length] == 0x0A { return nil }
        return isSeparate(bytes.scalar(at: index + length).scalar) ? length : nil
    }

    /// Whether a scalar never joins another of this set, except "\r\n": some frequent ones, all with Unicode's
    /// property Grapheme_Cluster_Break=Other or line breaks.
    @inline(__always)
    private static func isSeparate(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0..<0x7F, 0xA0...0xA8, 0xAA...0xAC, 0xAF...0x2FF, 0x391...0x3C9, 0x400...0x481, 0x2010...0x2027,
            0x2030...0x203B, 0x20A0...0x20BF, 0x3041...0x3096, 0x30A1...0x30FA, 0x3400...0x4DB5, 0x4E00...0x9FCC:
            true
        default: false
        }
    }

    /// The end of the clusters that begin at `start`: no cluster contains two ASCII characters except "\r\n".
    private static func portionEnd(_ bytes: [UInt8], from start: Int) -> Int {
        var end = start + 1
        while end < bytes.count {
            let isBoundary = bytes[end - 1] < 0x80 && bytes[end] < 0x80
            if isBoundary, !(bytes[end - 1] == 0x0D && bytes[end] == 0x0A) { break }
            end += 1
        }
        return end
    }

    private func shortestMatch(_ bytes: [UInt8], _ range: Range<Int>) -> Range<Int>? {
        Precompiled.shortestMatch(bytes, range, trie, replacements)
    }

    /// The position of the replacement of the shortest prefix of `bytes[range]` in the map.
    private static func shortestMatch(
        _ bytes: [UInt8], _ range: Range<Int>, _ trie: [UInt32], _ replacements: [UInt8]
    ) -> Range<Int>? {
        var position = offset(of: trie[0])
        for index in range {
            let byte = bytes[index]
            // NUL is the trie's terminator, so no key continues past it.
            guard byte != 0 else { return nil }
            position ^= Int(byte)
            guard position < trie.count else { return nil }
            let unit = trie[position]
            guard unit & 0x8000_00FF == UInt32(byte) else { return nil }
            position ^= offset(of: unit)
            guard unit >> 8 & 1 == 1 else { continue }
            guard position < trie.count else { return nil }
            let start = Int(trie[position] & 0x7FFF_FFFF)
            guard start <= replacements.count else { return nil }
            var end = start
            while end < replacements.count, replacements[end] != 0 { end += 1 }
            return start..<end
        }
        return nil
    }

    /// Offsets of more than 21 bits are stored in units of 256, which bit 9 indicates.
    @inline(__always)
    private static func offset(of unit: UInt32) -> Int {
        Int(unit >> 10) << Int((unit & 0x200) >> 6)
    }
}
