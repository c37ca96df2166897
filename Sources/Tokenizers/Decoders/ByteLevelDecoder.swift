/// Makes bytes of ``ByteCharacters`` and text of the bytes of all tokens; what is no UTF-8 becomes "\u{FFFD}".
struct ByteLevelDecoder: Decoder {
    func decode(_ tokens: [String]) -> [String] {
        var bytes: [UInt8] = []
        for token in tokens {
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
        return [String(decoding: bytes, as: UTF8.self)]
    }
}
