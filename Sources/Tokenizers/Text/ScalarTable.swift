/// One byte of properties per scalar, computed lazily in blocks of 256: lookups of Unicode's properties are slow.
///
/// Not thread-safe; see ``Pool``.
final class ScalarTable {
    private let blocks: UnsafeMutablePointer<UnsafeMutablePointer<UInt8>?>
    private let property: @Sendable (Unicode.Scalar) -> UInt8
    /// The block of ASCII, always present.
    let ascii: UnsafePointer<UInt8>
    private static let blockCount = 0x1100

    init(_ property: @escaping @Sendable (Unicode.Scalar) -> UInt8) {
        self.property = property
        blocks = .allocate(capacity: ScalarTable.blockCount)
        blocks.initialize(repeating: nil, count: ScalarTable.blockCount)
        let first = ScalarTable.block(0, property)
        blocks[0] = first
        ascii = UnsafePointer(first)
    }

    deinit {
        for index in 0..<ScalarTable.blockCount { blocks[index]?.deallocate() }
        blocks.deallocate()
    }

    private static func block(_ index: Int, _ property: (Unicode.Scalar) -> UInt8) -> UnsafeMutablePointer<UInt8> {
        let block = UnsafeMutablePointer<UInt8>.allocate(capacity: 256)
        for offset in 0..<256 {
            let scalar = Unicode.Scalar(UInt32(index << 8 | offset)) ?? "\u{FFFD}"
            (block + offset).initialize(to: property(scalar))
        }
        return block
    }

    /// - Parameter value: the value of a scalar.
    @inline(__always)
    func property(of value: UInt32) -> UInt8 {
        let index = Int(value >> 8)
        if let block = blocks[index] { return block[Int(value & 0xFF)] }
        return fill(index)[Int(value & 0xFF)]
    }

    @inline(never)
    private func fill(_ index: Int) -> UnsafeMutablePointer<UInt8> {
        let block = ScalarTable.block(index, property)
        blocks[index] = block
        return block
    }
}

/// Reads the scalar at `index` of valid UTF-8.
@inline(__always)
func readScalar(_ bytes: UnsafePointer<UInt8>, _ index: Int) -> (value: UInt32, length: Int) {
    let lead = UInt32(bytes[index])
    if lead < 0x80 { return (lead, 1) }
    let second = UInt32(bytes[index + 1] & 0x3F)
    if lead < 0xE0 { return ((lead & 0x1F) << 6 | second, 2) }
    let third = UInt32(bytes[index + 2] & 0x3F)
    if lead < 0xF0 { return ((lead & 0x0F) << 12 | second << 6 | third, 3) }
    return ((lead & 0x07) << 18 | second << 12 | third << 6 | UInt32(bytes[index + 3] & 0x3F), 4)
}

/// The length of a scalar from its first byte.
@inline(__always)
func readScalarLength(_ lead: UInt8) -> Int { lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4 }
