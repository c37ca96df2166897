/// Makes bytes of ``ByteCharacters`` and text of the bytes of all tokens; what is no UTF-8 becomes "\u{FFFD}".
struct ByteLevelDecoder: Decoder {
    func decode(_ tokens: [String]) -> [String] {
        var bytes: [UInt8] = []
        for token in tokens { ByteLevelDecoder.append(token, to: &bytes) }
        return [String(decoding: bytes, as: UTF8.self)]
    }

    func streams() -> [any DecoderStream] { [ByteLevelStream()] }

    /// Appends the bytes that a token stands for.
    static func append(_ token: String, to bytes: inout [UInt8]) {
        let start = bytes.count
        for scalar in token.unicodeScalars {
            guard let byte = ByteCharacters.byte(scalar) else {
                // Such as an added token: then none of it is meant as bytes.
                bytes.removeLast(bytes.count - start)
                bytes.append(contentsOf: token.utf8)
                break
            }
            bytes.append(byte)
        }
    }
}
