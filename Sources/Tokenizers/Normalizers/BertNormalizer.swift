/// BERT's normalization: removes control characters, spaces out Chinese characters, strips accents, lowercases.
struct BertNormalizer: Normalizer {
    let cleansText: Bool
    let separatesChinese: Bool
    let stripsAccents: Bool
    let lowercases: Bool

    init(cleansText: Bool = true, separatesChinese: Bool = true, stripsAccents: Bool? = nil, lowercases: Bool = true)
    {
        self.cleansText = cleansText
        self.separatesChinese = separatesChinese
        // As in BERT, the default for stripping accents is that for lowercasing.
        self.stripsAccents = stripsAccents ?? lowercases
        self.lowercases = lowercases
    }

    init(_ fields: StageFields) throws {
        let lowercases = try fields.bool("lowercase", default: true)
        self.init(
            cleansText: try fields.bool("clean_text", default: true),
            separatesChinese: try fields.bool("handle_chinese_chars", default: true),
            stripsAccents: try fields.bool("strip_accents", default: lowercases), lowercases: lowercases)
    }

    func normalize(_ text: inout NormalizedText) {
        if !text.bytes.contains(where: { $0 >= 0x80 }) { return normalizeASCII(&text) }
        if cleansText || separatesChinese { clean(&text) }
        if stripsAccents {
            UnicodeForm.nfd.normalize(&text)
            text.keepScalars { !BertNormalizer.isAccent($0) }
        }
        if lowercases { Lowercase().normalize(&text) }
    }

    /// All steps at once: ASCII has no Chinese characters and no accents.
    private func normalizeASCII(_ text: inout NormalizedText) {
        let bytes = text.bytes
        guard let first = bytes.first else { return }
        text.bytes = [UInt8](unsafeUninitializedCapacity: bytes.count) { buffer, initialized in
            var next = 0
            for byte in bytes {
                switch byte {
                case 0x41...0x5A: buffer[next] = lowercases ? byte | 0x20 : byte
                case 0x20...0x7E: buffer[next] = byte
                case _ where !cleansText: buffer[next] = byte
                case 0x09, 0x0A, 0x0D: buffer[next] = 0x20
                // Other control characters are removed.
                default: continue
                }
                next += 1
            }
            initialized = next
        }
        if cleansText, BertNormalizer.isControl(Unicode.Scalar(first)) { text.lostStart = true }
    }

    /// The first two steps; the first one changes no Chinese character.
    private func clean(_ text: inout NormalizedText) {
        var result: [UInt8] = []
        result.reserveCapacity(text.bytes.count)
        var index = 0
        while index < text.bytes.count {
            let (scalar, length) = text.bytes.scalar(at: index)
            defer { index += length }
            if cleansText, BertNormalizer.isControl(scalar) {
                if index == 0 { text.lostStart = true }
            } else if cleansText, scalar.isWhitespace {
                result.append(0x20)
            } else if separatesChinese, BertNormalizer.isChinese(scalar) {
                result.append(0x20)
                result.append(contentsOf: text.bytes[index..<index + length])
                result.append(0x20)
            } else {
                result.append(contentsOf: text.bytes[index..<index + length])
            }
        }
        text.bytes = result
    }

    /// Control, format and private-use characters as of Unicode 8, except whitespace.
    private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0x09, 0x0A, 0x0D, 0x20...0x7E: return false
        case 0xFFFD: return true
        default: break
        }
        switch scalar.properties.generalCategory {
        case .control, .privateUse: return true
        case .format: return scalar.isOf(unicode: 8)
        default: return false
        }
    }

    /// Ideographs, as BERT lists them; no Japanese or Korean letters.
    private static func isChinese(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case ..<0x3400: false
        case 0x3400...0x4DBF, 0x4E00...0x9FFF, 0xF900...0xFAFF, 0x20000...0x2A6DF, 0x2A700...0x2B81F,
            0x2B920...0x2CEAF, 0x2F800...0x2FA1F:
            true
        default: false
        }
    }

    /// Nonspacing marks as of Unicode 8; a few have another category today.
    static func isAccent(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case ..<0x300, 0x1885, 0x1886, 0xA9BD, 0x111C9: false
        case 0x1734, 0x1171E: true
        default: scalar.properties.generalCategory == .nonspacingMark && scalar.isOf(unicode: 8)
        }
    }
}
