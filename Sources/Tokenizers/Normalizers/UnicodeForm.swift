import Foundation

/// Unicode's normalization forms.
///
/// Foundation normalizes; this type selects the text that is passed to it:
/// - ASCII never changes and never combines with the character before it, so only the text between ASCII is passed;
/// - characters newer than Unicode 9 are unchanged. The reference implementation's tables end there, and ids must
///   not depend on the machine's version of Unicode;
/// - chunks are not short, since a call costs as much as many characters, and not long, since Foundation takes
///   quadratic time for some of them.
enum UnicodeForm: Normalizer {
    case nfc, nfd, nfkc, nfkd

    func normalize(_ text: inout NormalizedText) {
        let bytes = text.bytes
        guard let first = bytes.firstIndex(where: { $0 >= 0x80 }) else { return }
        var result: [UInt8] = []
        result.reserveCapacity(bytes.count + 16)
        var portion = Portion(form: self)
        // A letter before the first mark may combine with it.
        var index = max(0, first - 1)
        result.append(contentsOf: bytes[..<index])
        while index < bytes.count {
            if bytes[index] < 0x80 {
                let start = index
                while index < bytes.count, bytes[index] < 0x80 { index += 1 }
                if portion.takesShortRuns, index - start <= 8 {
                    for byte in bytes[start..<index] { portion.append(Unicode.Scalar(byte)) }
                    continue
                }
                portion.flush(into: &result)
                // ASCII before ASCII is inert; the last character may be the base of a mark.
                let end = index < bytes.count ? index - 1 : index
                result.append(contentsOf: bytes[start..<end])
                if end < index { portion.append(Unicode.Scalar(bytes[end])) }
                continue
            }
            let (scalar, length) = bytes.scalar(at: index)
            index += length
            if !UnicodeForm.isKnown(scalar) {
                portion.flush(into: &result)
                result.append(scalar)
                continue
            }
            if portion.isLong, !UnicodeForm.mayJoin(scalar) { portion.flush(into: &result) }
            portion.append(scalar)
        }
        portion.flush(into: &result)
        text.bytes = result
    }

    private var composes: Bool { self == .nfc || self == .nfkc }

    /// Foundation on Linux reorders only marks that an earlier call decomposed, and doesn't compose a composed
    /// syllable with a jamo; so it is called one step at a time.
    private func apply(_ text: String) -> String {
        let mapped =
            self == .nfc || self == .nfd
            ? text.decomposedStringWithCanonicalMapping : text.decomposedStringWithCompatibilityMapping
        let ordered = mapped.decomposedStringWithCanonicalMapping
        return composes ? UnicodeForm.compose(ordered) : ordered
    }

    /// Composes, but passes Foundation on Linux no character beyond 16 bits that never composes: it compares the
    /// lower 16 bits only and composes U+10057 and an acute accent to "ẃ".
    private static func compose(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: isSolitary) else {
            return text.precomposedStringWithCanonicalMapping
        }
        var result = ""
        var pending = ""
        var isSolitaryBase = false
        for scalar in text.unicodeScalars {
            if isSolitary(scalar) {
                result += pending.precomposedStringWithCanonicalMapping
                pending = ""
                isSolitaryBase = true
            } else if isSolitaryBase, scalar.properties.canonicalCombiningClass == .notReordered {
                isSolitaryBase = false
            }
            if isSolitaryBase { result.unicodeScalars.append(scalar) } else { pending.unicodeScalars.append(scalar) }
        }
        return result + pending.precomposedStringWithCanonicalMapping
    }

    /// Whether this is a starter beyond 16 bits that takes part in no composition up to Unicode 9.
    private static func isSolitary(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case ..<0x10000: false
        // First and second parts of Kaithi, Chakma, Grantha, Tirhuta and Siddham letters.
        case 0x11099, 0x1109B, 0x110A5, 0x110BA, 0x11127, 0x11131, 0x11132, 0x1133E, 0x11347, 0x11357, 0x114B0,
            0x114B9, 0x114BA, 0x114BD, 0x115AF, 0x115B8, 0x115B9:
            false
        default: scalar.properties.canonicalCombiningClass == .notReordered
        }
    }

    /// The combining class as of Unicode 9.
    static func order(of scalar: Unicode.Scalar) -> UInt8 {
        scalar.value >= 0x300 && isKnown(scalar) ? scalar.properties.canonicalCombiningClass.rawValue : 0
    }

    private static func isKnown(_ scalar: Unicode.Scalar) -> Bool {
        // Latin, Greek and Cyrillic are all older; the lookup of the age is slow.
        if scalar.value < 0x0500 { return true }
        guard let age = scalar.properties.age else { return false }
        return age.major <= 9
    }

    /// Whether `scalar`, or its mapping, may combine with the character before it or be reordered with it.
    private static func mayJoin(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case ..<0x300: false
        // Jamo, also in their compatibility and half-width forms, and half-width sound marks.
        case 0x1160...0x11FF, 0x3130...0x318F, 0xFF9E...0xFFDF: true
        // Vowel signs that are the second part of a composition though they are starters.
        case 0x09BE, 0x09D7, 0x0B3E, 0x0B56, 0x0B57, 0x0BBE, 0x0BD7, 0x0CC2, 0x0CD5, 0x0CD6, 0x0D3E, 0x0D57, 0x0DCF,
            0x0DDF, 0x102E, 0x1B35, 0x11127, 0x1133E, 0x11357, 0x114B0, 0x114BA, 0x114BD, 0x115AF:
            true
        // Starters that decompose into marks.
        case 0x0F73, 0x0F75, 0x0F81: true
        default: scalar.properties.canonicalCombiningClass != .notReordered
        }
    }

    /// Scalars to be normalized together.
    private struct Portion {
        let form: UnicodeForm
        private var scalars: [Unicode.Scalar] = []
        private var marks = 0
        /// Whether the form leaves all of it unchanged.
        private var isInert: Bool

        init(form: UnicodeForm) {
            self.form = form
            isInert = form.composes
        }

        var isLong: Bool { scalars.count >= 64 }
        /// Whether it is cheaper to include a few ASCII characters than to call Foundation again.
        var takesShortRuns: Bool { !scalars.isEmpty && !isLong }

        mutating func append(_ scalar: Unicode.Scalar) {
            if scalar.value >= 0x300, scalar.properties.canonicalCombiningClass != .notReordered {
                marks += 1
            } else {
                orderMarks()
            }
            scalars.append(scalar)
            // Text that NFKC with case folding leaves unchanged is unchanged by NFC and NFKC too.
            if isInert, scalar.value >= 0x80 {
                isInert = !scalar.properties.changesWhenNFKCCaseFolded && !UnicodeForm.mayJoin(scalar)
            }
        }

        /// Puts a long run of marks into canonical order, as every form does, but not by insertion sort.
        private mutating func orderMarks() {
            if marks > 32 {
                let classes = scalars.suffix(marks).map { ($0.properties.canonicalCombiningClass.rawValue, $0) }
                scalars.removeLast(marks)
                // `sort` is stable.
                scalars.append(contentsOf: classes.sorted { $0.0 < $1.0 }.map(\.1))
            }
            marks = 0
        }

        mutating func flush(into result: inout [UInt8]) {
            guard !scalars.isEmpty else { return }
            if isInert {
                for scalar in scalars { result.append(scalar) }
            } else {
                orderMarks()
                var text = ""
                text.unicodeScalars.append(contentsOf: scalars)
                result.append(contentsOf: form.apply(text).utf8)
            }
            scalars.removeAll(keepingCapacity: true)
            isInert = form.composes
        }
    }
}
