/// Text during normalization.
struct NormalizedText {
    /// Valid UTF-8.
    var bytes: [UInt8]
    /// Whether a normalizer removed the first character. The rest then no longer begins the text, which matters to a
    /// ``Metaspace`` that adds its prefix only at the beginning.
    var lostStart = false
    /// The maximum length in bytes that replacements may produce.
    let limit: Int

    init(_ bytes: [UInt8]) { (self.bytes, limit) = (bytes, TextFailures.limit(for: bytes.count)) }
}

/// Rewrites text before pre-tokenization. One file or a few lines each, registered in ``normalizers``.
protocol Normalizer: Sendable {
    func normalize(_ text: inout NormalizedText)
    /// The same with alignment to the original text.
    func align(_ text: inout AlignedText)
}

/// The normalizers a tokenizer file may name, by the `type` it gives them.
let normalizers: [String: @Sendable (StageFields) throws -> any Normalizer] = [
    "Sequence": { NormalizerSequence(try $0.objects("normalizers").map(readNormalizer)) },
    "Precompiled": { try Precompiled($0) },
    "NFC": { _ in UnicodeForm.nfc },
    "NFD": { _ in UnicodeForm.nfd },
    "NFKC": { _ in UnicodeForm.nfkc },
    "NFKD": { _ in UnicodeForm.nfkd },
    "Replace": { ReplaceNormalizer(try Replacement($0)) },
    "Lowercase": { _ in Lowercase() },
    "Prepend": { Prepend(try $0.string("prepend")) },
    "Strip": { try Strip(left: $0.bool("strip_left", default: true), right: $0.bool("strip_right", default: true)) },
    "StripAccents": { _ in StripAccents() },
    "BertNormalizer": { try BertNormalizer($0) },
    "ByteLevel": { _ in ByteLevelNormalizer() },
    "Nmt": { _ in Nmt() },
]

@Sendable func readNormalizer(_ fields: StageFields) throws -> any Normalizer {
    try fields.make("normalizer", normalizers)
}

/// Applies normalizers one after the other.
struct NormalizerSequence: Normalizer {
    let members: [any Normalizer]

    init(_ members: [any Normalizer]) { self.members = members }

    func normalize(_ text: inout NormalizedText) {
        for member in members { member.normalize(&text) }
    }
}

/// Lowercases each scalar on its own: a final sigma becomes an ordinary one.
struct Lowercase: Normalizer {
    func normalize(_ text: inout NormalizedText) {
        var result: [UInt8] = []
        result.reserveCapacity(text.bytes.count)
        var index = 0
        while index < text.bytes.count {
            let byte = text.bytes[index]
            if byte < 0x80 {
                result.append(byte >= 0x41 && byte <= 0x5A ? byte | 0x20 : byte)
                index += 1
            } else {
                let (scalar, length) = text.bytes.scalar(at: index)
                result.append(contentsOf: scalar.properties.lowercaseMapping.utf8)
                index += length
            }
        }
        text.bytes = result
    }
}

/// Prepends a string to every text that is not empty.
struct Prepend: Normalizer {
    let prefix: [UInt8]

    init(_ prefix: String) { self.prefix = Array(prefix.utf8) }

    func normalize(_ text: inout NormalizedText) {
        guard !text.bytes.isEmpty else { return }
        guard prefix.count <= 256 || text.bytes.count + prefix.count <= text.limit else {
            return TextFailures.recordGrowth(text.bytes.count + prefix.count)
        }
        text.bytes = prefix + text.bytes
    }
}

/// Strips whitespace from the ends.
struct Strip: Normalizer {
    let left: Bool
    let right: Bool

    func normalize(_ text: inout NormalizedText) {
        var start = 0
        var end = text.bytes.count
        while left, start < end {
            let (scalar, length) = text.bytes.scalar(at: start)
            guard scalar.isWhitespace else { break }
            start += length
        }
        while right, end > start {
            let (scalar, length) = text.bytes.scalar(before: end)
            guard scalar.isWhitespace else { break }
            end -= length
        }
        guard end - start < text.bytes.count else { return }
        if start > 0 { text.lostStart = true }
        text.bytes = Array(text.bytes[start..<end])
    }
}

/// Removes combining marks; NFD before it separates the accents of composed letters.
struct StripAccents: Normalizer {
    func normalize(_ text: inout NormalizedText) { text.keepScalars { !$0.isMark } }
}

extension NormalizedText {
    /// Removes the characters beyond ASCII for which `isKept` is false.
    mutating func keepScalars(_ isKept: (Unicode.Scalar) -> Bool) {
        guard bytes.contains(where: { $0 >= 0x80 }) else { return }
        keep { $0.value < 0x80 || isKept($0) }
    }

    /// Removes the characters for which `isKept` is false.
    mutating func keep(_ isKept: (Unicode.Scalar) -> Bool) {
        var result: [UInt8] = []
        result.reserveCapacity(bytes.count)
        var index = 0
        while index < bytes.count {
            let (scalar, length) = bytes.scalar(at: index)
            if isKept(scalar) {
                result.append(contentsOf: bytes[index..<index + length])
            } else if index == 0 {
                lostStart = true
            }
            index += length
        }
        bytes = result
    }
}

/// Writes text as ``ByteCharacters``.
struct ByteLevelNormalizer: Normalizer {
    func normalize(_ text: inout NormalizedText) {
        text.bytes = text.bytes.flatMap { ByteCharacters.encoded[Int($0)] }
    }
}

/// NMT's normalization before SentencePiece: removes control characters, and unifies spaces.
struct Nmt: Normalizer {
    func normalize(_ text: inout NormalizedText) {
        text.keep { !Nmt.isControl($0) }
        guard text.bytes.contains(where: { $0 < 0x20 || $0 >= 0x80 }) else { return }
        var result: [UInt8] = []
        result.reserveCapacity(text.bytes.count)
        var index = 0
        while index < text.bytes.count {
            let (scalar, length) = text.bytes.scalar(at: index)
            result.append(Nmt.isSpace(scalar) ? " " : scalar)
            index += length
        }
        text.bytes = result
    }

    private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0x01...0x08, 0x0B, 0x0E...0x1F, 0x7F, 0x8F, 0x9F: true
        default: false
        }
    }

    private static func isSpace(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0x09, 0x0A, 0x0C, 0x0D, 0x1680, 0x200B...0x200F, 0x2028, 0x2029, 0x2581, 0xFEFF, 0xFFFD: true
        default: false
        }
    }
}
