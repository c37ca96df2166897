/// Text on its way through the normalizers, each scalar with the part of the original text that it stands for.
///
/// The slower twin of ``NormalizedText``: encoding without offsets doesn't need it.
struct AlignedText {
    private(set) var scalars: [Unicode.Scalar]
    /// Bytes of the original text, one range for each scalar.
    private(set) var origins: [Range<Int>]
    /// Where this part of the original text begins.
    private let base: Int

    /// - Parameter base: where `bytes` begin in the original text.
    init(_ bytes: ArraySlice<UInt8>, base: Int) {
        self.base = base
        scalars = Array(String(decoding: bytes, as: UTF8.self).unicodeScalars)
        origins = []
        origins.reserveCapacity(scalars.count)
        var place = base
        for scalar in scalars {
            let length = UTF8.width(scalar)
            origins.append(place..<place + length)
            place += length
        }
    }

    var bytes: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(scalars.count)
        for scalar in scalars { bytes.append(scalar) }
        return bytes
    }

    /// The origin of each byte.
    var byteOrigins: [Range<Int>] {
        zip(scalars, origins).flatMap { repeatElement($1, count: UTF8.width($0)) }
    }

    // MARK: Changes

    /// Rewrites each scalar on its own; what it becomes has its origin.
    mutating func mapScalars(_ rewritten: (Unicode.Scalar) -> [Unicode.Scalar]) {
        var text: [Unicode.Scalar] = []
        var places: [Range<Int>] = []
        for (scalar, origin) in zip(scalars, origins) {
            for new in rewritten(scalar) {
                text.append(new)
                places.append(origin)
            }
        }
        (scalars, origins) = (text, places)
    }

    /// Takes over new text as the reference counts changes: 0 takes the place of the next scalar, 1 is new and has the origin
    /// of the scalar before, and −n takes the place of the next one and of n behind it.
    mutating func transform(_ changes: [(scalar: Unicode.Scalar, change: Int)]) {
        var next = 0
        let places = changes.map { _, change -> Range<Int> in
            if change > 0 { return next < 1 ? base..<base : origins[min(next, origins.count) - 1] }
            defer { next += 1 - change }
            return origins[min(next, origins.count - 1)]
        }
        (scalars, origins) = (changes.map(\.scalar), places)
    }

    /// Puts scalars in place of others; they have the origin of the last one they replace.
    /// - Parameter matches: ranges of scalars, in order.
    mutating func replace(_ matches: [Range<Int>], with content: [Unicode.Scalar]) {
        var text: [Unicode.Scalar] = []
        var places: [Range<Int>] = []
        var rest = 0
        for match in matches {
            text += scalars[rest..<match.lowerBound]
            places += origins[rest..<match.lowerBound]
            let origin = match.upperBound > 0 ? origins[match.upperBound - 1] : base..<base
            text += content
            places += content.map { _ in origin }
            rest = match.upperBound
        }
        (scalars, origins) = (text + scalars[rest...], places + origins[rest...])
    }

    /// Puts scalars in front, with the origin of the first one.
    mutating func prepend(_ prefix: [Unicode.Scalar]) {
        guard let first = origins.first else { return }
        (scalars, origins) = (prefix + scalars, prefix.map { _ in first } + origins)
    }

    mutating func keep(_ range: Range<Int>) {
        (scalars, origins) = (Array(scalars[range]), Array(origins[range]))
    }
}

extension Normalizer {
    /// For normalizers that look at each scalar alone.
    func align(_ text: inout AlignedText) {
        text.mapScalars { scalar in
            var own = NormalizedText(Array(String(scalar).utf8))
            normalize(&own)
            return Array(String(decoding: own.bytes, as: UTF8.self).unicodeScalars)
        }
    }
}

extension NormalizerSequence {
    func align(_ text: inout AlignedText) { for member in members { member.align(&text) } }
}

extension Prepend {
    func align(_ text: inout AlignedText) {
        text.prepend(Array(String(decoding: prefix, as: UTF8.self).unicodeScalars))
    }
}

extension Strip {
    func align(_ text: inout AlignedText) {
        var (start, end) = (0, text.scalars.count)
        while left, start < end, text.scalars[start].isWhitespace { start += 1 }
        while right, end > start, text.scalars[end - 1].isWhitespace { end -= 1 }
        text.keep(start..<end)
    }
}

extension ReplaceNormalizer {
    func align(_ text: inout AlignedText) {
        guard !text.scalars.isEmpty else { return }
        // From bytes to scalars.
        var numbers: [Int: Int] = [:]
        var place = 0
        for (index, scalar) in text.scalars.enumerated() {
            numbers[place] = index
            place += UTF8.width(scalar)
        }
        numbers[place] = text.scalars.count
        let matches = replacement.matches(in: text.bytes).compactMap { match -> Range<Int>? in
            guard let start = numbers[match.lowerBound], let end = numbers[match.upperBound] else { return nil }
            return start..<end
        }
        text.replace(matches, with: replacement.scalars)
    }
}

extension BertNormalizer {
    func align(_ text: inout AlignedText) {
        func apply(_ step: BertNormalizer) {
            text.mapScalars { scalar in
                var own = NormalizedText(Array(String(scalar).utf8))
                step.normalize(&own)
                return Array(String(decoding: own.bytes, as: UTF8.self).unicodeScalars)
            }
        }
        apply(
            BertNormalizer(
                cleansText: cleansText, separatesChinese: separatesChinese, stripsAccents: false, lowercases: false))
        if stripsAccents {
            UnicodeForm.nfd.align(&text)
            text.mapScalars { BertNormalizer.isAccent($0) ? [] : [$0] }
        }
        if lowercases { Lowercase().align(&text) }
    }
}

extension UnicodeForm {
    /// Decomposes scalar by scalar, orders marks and composes again, each with the change that the reference counts.
    func align(_ text: inout AlignedText) {
        typealias Change = (scalar: Unicode.Scalar, change: Int)
        guard text.scalars.contains(where: { $0.value >= 0x80 }) else { return }
        let decomposition: UnicodeForm = self == .nfkc || self == .nfkd ? .nfkd : .nfd
        var changes: [Change] = []
        var marks: [(order: UInt8, change: Change)] = []
        func orderMarks() {
            changes += marks.enumerated().sorted { ($0.element.order, $0.offset) < ($1.element.order, $1.offset) }
                .map(\.element.change)
            marks.removeAll(keepingCapacity: true)
        }
        for scalar in text.scalars {
            for (index, part) in decomposition.normalized([scalar]).enumerated() {
                let order = UnicodeForm.order(of: part)
                if order == 0 { orderMarks() }
                let change: Change = (part, index == 0 ? 0 : 1)
                if order == 0 { changes.append(change) } else { marks.append((order, change)) }
            }
        }
        orderMarks()
        text.transform(self == .nfc || self == .nfkc ? UnicodeForm.composed(changes) : changes)
    }

    /// Canonical composition (Unicode Standard, section 3.11, D117); the changes of what joins add up, less one.
    private static func composed(_ parts: [(scalar: Unicode.Scalar, change: Int)]) -> [(Unicode.Scalar, Int)] {
        var result: [(Unicode.Scalar, Int)] = []
        var starter: Int?
        /// The class of the last mark behind the starter that didn't join it.
        var blocking: UInt8?
        for (scalar, change) in parts {
            let order = order(of: scalar)
            let isBlocked = blocking.map { $0 >= order } ?? false
            if let base = starter, !isBlocked, let joined = pair(result[base].0, scalar) {
                result[base] = (joined, result[base].1 + change - 1)
                continue
            }
            result.append((scalar, change))
            if order == 0 {
                (starter, blocking) = (result.count - 1, nil)
            } else if starter != nil {
                blocking = order
            }
        }
        return result
    }

    private static func pair(_ first: Unicode.Scalar, _ second: Unicode.Scalar) -> Unicode.Scalar? {
        guard second.value >= 0x300 else { return nil }
        let joined = UnicodeForm.nfc.normalized([first, second])
        return joined.count == 1 ? joined[0] : nil
    }

    private func normalized(_ scalars: [Unicode.Scalar]) -> [Unicode.Scalar] {
        var bytes: [UInt8] = []
        for scalar in scalars { bytes.append(scalar) }
        var text = NormalizedText(bytes)
        normalize(&text)
        return Array(String(decoding: text.bytes, as: UTF8.self).unicodeScalars)
    }
}
