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
        let matches = replacement.matches(in: text.bytes, limit: text.limit).compactMap { match -> Range<Int>? in
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
