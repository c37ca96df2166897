/// Reads scalars from UTF-8 bytes that are known to be valid: they come from a `String`.

extension Array where Element == UInt8 {
    /// The length in bytes of the scalar that begins at `index`.
    @inline(__always)
    func scalarLength(at index: Int) -> Int {
        let lead = self[index]
        let length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4
        return Swift.min(length, count - index)
    }

    /// The scalar that begins at `index`, and its length in bytes.
    func scalar(at index: Int) -> (scalar: Unicode.Scalar, length: Int) {
        let length = scalarLength(at: index)
        var value = UInt32(self[index])
        if length > 1 {
            value &= 0x7F >> UInt32(length)
            for offset in 1..<length { value = value << 6 | UInt32(self[index + offset] & 0x3F) }
        }
        return (Unicode.Scalar(value) ?? "\u{FFFD}", length)
    }

    /// The scalar that ends just before `index`, and its length in bytes; `index` is above 0.
    func scalar(before index: Int) -> (scalar: Unicode.Scalar, length: Int) {
        var start = index - 1
        while start > 0, self[start] & 0xC0 == 0x80 { start -= 1 }
        return (scalar(at: start).scalar, index - start)
    }

    mutating func append(_ scalar: Unicode.Scalar) {
        if scalar.value < 0x80 {
            append(UInt8(truncatingIfNeeded: scalar.value))
        } else {
            append(contentsOf: UTF8.encode(scalar) ?? Unicode.UTF8.encodedReplacementCharacter)
        }
    }
}

extension Unicode.Scalar {
    /// Unicode's White_Space, hard-coded because the property lookup is much slower.
    @inline(__always)
    var isWhitespace: Bool {
        switch value {
        case 0x20, 0x09...0x0D: true
        case 0..<0x85: false
        case 0x85, 0xA0, 0x1680, 0x2000...0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000: true
        default: false
        }
    }

    /// What `\w` matches in a Unicode regular expression (UTS 18, annex C).
    var isWord: Bool {
        if value < 0x80 {
            switch value {
            case 0x30...0x39, 0x41...0x5A, 0x5F, 0x61...0x7A: return true
            default: return false
            }
        }
        switch properties.generalCategory {
        case .nonspacingMark, .spacingMark, .enclosingMark, .decimalNumber, .connectorPunctuation: return true
        default: return properties.isAlphabetic || properties.isJoinControl
        }
    }

    /// Whether the general category is one of the marks.
    var isMark: Bool {
        switch properties.generalCategory {
        case .nonspacingMark, .spacingMark, .enclosingMark: true
        default: false
        }
    }
}

extension Unicode.Scalar {
    /// `\p{L}` of Unicode 16, the version of the reference's regular expressions.
    var isLetter: Bool {
        switch properties.generalCategory {
        case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: isOf(unicode: 16)
        default: false
        }
    }

    /// `\p{N}` as of a version of Unicode: 16 in the reference's regular expressions, 17 elsewhere.
    func isNumber(unicode version: Int = 16) -> Bool {
        switch properties.generalCategory {
        case .decimalNumber, .letterNumber, .otherNumber: isOf(unicode: version)
        default: false
        }
    }

    /// Punctuation in BERT's sense: all ASCII symbols, and Unicode's punctuation as of version 8.
    var isPunctuation: Bool {
        switch value {
        case 0x21...0x2F, 0x3A...0x40, 0x5B...0x60, 0x7B...0x7E: return true
        case 0..<0x80: return false
        // Their category has changed since.
        case 0x166D, 0x111C9: return true
        default: break
        }
        switch properties.generalCategory {
        case .connectorPunctuation, .dashPunctuation, .openPunctuation, .closePunctuation, .initialPunctuation,
            .finalPunctuation, .otherPunctuation:
            return isOf(unicode: 8)
        default: return false
        }
    }

    /// Whether the character existed in this version of Unicode. The reference's tables end at one, and ids must not
    /// depend on the machine's.
    func isOf(unicode version: Int) -> Bool {
        // The lookup of the age is slow, and these are all old.
        switch value {
        case 0..<0x500, 0x3041...0x3096, 0x30A1...0x30FA, 0x4E00...0x9FCC, 0xAC00...0xD7A3: return true
        default: return properties.age.map { $0.major <= version } ?? false
        }
    }
}

/// `bytes` as a string, or `nil` if they are not valid UTF-8.
func validated(_ bytes: some Collection<UInt8>) -> String? {
    // `String(decoding:)` repairs invalid bytes, which the comparison detects. Foundation's initializer would drop a
    // byte order mark.
    let text = String(decoding: bytes, as: UTF8.self)
    return text.utf8.elementsEqual(bytes) ? text : nil
}
