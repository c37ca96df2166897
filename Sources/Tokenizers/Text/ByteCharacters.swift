/// GPT-2's encoding of bytes as visible characters: printable ASCII and Latin-1 encode themselves, the other bytes,
/// in order, are encoded as the characters from U+0100 on. A space becomes "Ġ".
enum ByteCharacters {
    private static let scalars: [Unicode.Scalar] = {
        var next: UInt32 = 0x100
        return (UInt8(0)...255).map { byte in
            switch byte {
            case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF: return Unicode.Scalar(byte)
            default:
                defer { next += 1 }
                return Unicode.Scalar(next) ?? "\u{FFFD}"
            }
        }
    }()

    /// The UTF-8 of each byte's character.
    static let encoded: [[UInt8]] = scalars.map { Array(String($0).utf8) }

    private static let bytes: [UInt8?] = {
        var bytes = [UInt8?](repeating: nil, count: 0x180)
        for (byte, scalar) in scalars.enumerated() { bytes[Int(scalar.value)] = UInt8(byte) }
        return bytes
    }()

    /// The byte that a character encodes.
    static func byte(_ scalar: Unicode.Scalar) -> UInt8? {
        scalar.value < 0x180 ? bytes[Int(scalar.value)] : nil
    }
}
