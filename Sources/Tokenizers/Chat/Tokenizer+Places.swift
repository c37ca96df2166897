extension Tokenizer {
    /// A mask of the tokens that overlap the given parts of a text, as transformers' assistant-tokens mask.
    ///
    /// - Parameters:
    ///   - parts: ranges of the text's bytes, in order.
    ///   - ids: the text's tokens, without added special ones.
    /// - Returns: `nil` if the tokens can't be located exactly.
    package func overlaps(with parts: [Range<Int>], in text: String, ids: [Int]) -> [Bool]? {
        guard let places = places(of: ids, in: text) ?? exactPlaces(of: ids, in: text) else { return nil }
        var part = 0
        return places.map { place in
            while part < parts.count, place.lowerBound >= parts[part].upperBound { part += 1 }
            return part < parts.count && place.upperBound > parts[part].lowerBound
        }
    }

    /// The same of every tokenizer, at the price of encoding once more.
    private func exactPlaces(of ids: [Int], in text: String) -> [Range<Int>]? {
        let part = placed(text)
        return part.ids == ids ? part.places?.map(\.bytes) : nil
    }

    /// Where each token lies in the text, in bytes: found by reading the pieces off the text. `nil` where the tokenizer
    /// changes the text before it cuts it (lowercase, composed characters) or doesn't know a part of it.
    func places(of ids: [Int], in text: String) -> [Range<Int>]? {
        let bytes = Array(text.utf8)
        var place = 0
        var result: [Range<Int>] = []
        result.reserveCapacity(ids.count)
        var index = 0
        while index < ids.count {
            if let token = added.reading(of: ids[index]) {
                guard let end = Self.end(ofAdded: token, in: bytes, from: place) else { return nil }
                result.append(place..<end)
                (place, index) = (end, index + 1)
                continue
            }
            let next = ids[index...].firstIndex { added.reading(of: $0) != nil } ?? ids.count
            let behind = next < ids.count ? added.reading(of: ids[next]) : nil
            // A space that isn't in the text may have been put in front of the first piece.
            let ends = [true, false].lazy.compactMap {
                self.ends(of: ids[index..<next], in: bytes, from: place, dropsSpace: $0, before: behind)
            }.first
            guard let ends else { return nil }
            for end in ends {
                result.append(place..<end)
                place = end
            }
            index = next
        }
        return place == bytes.count ? result : nil
    }

    /// Where each piece of a part without added tokens ends.
    /// - Parameters:
    ///   - dropsSpace: whether the first piece has a space that isn't in the text.
    ///   - next: the added token that follows, or `nil` for the end of the text.
    private func ends(
        of ids: ArraySlice<Int>, in bytes: [UInt8], from start: Int, dropsSpace: Bool, before next: String?
    ) -> [Int]? {
        var place = start
        var result: [Int] = []
        for (index, id) in ids.enumerated() {
            guard let piece = model.piece(for: id),
                let end = Self.end(of: piece, in: bytes, from: place, dropsSpace: dropsSpace && index == 0)
            else { return nil }
            result.append(end)
            place = end
        }
        guard let next else { return place == bytes.count ? result : nil }
        return Self.end(ofAdded: next, in: bytes, from: place) == nil ? nil : result
    }

    /// An added token may take whitespace beside it, and one that is looked for in normalized text has its space.
    private static func end(ofAdded token: String, in bytes: [UInt8], from start: Int) -> Int? {
        for dropsSpace in token.unicodeScalars.first == space ? [false, true] : [false] {
            var place = start
            while true {
                if let end = end(ofText: token, in: bytes, from: place, dropsSpace: dropsSpace) { return end }
                guard place < bytes.count, bytes[place].isSpace else { break }
                place += 1
            }
        }
        return nil
    }

    /// What SentencePiece writes for a space.
    private static let space: Unicode.Scalar = "\u{2581}"

    private static func end(of piece: String, in bytes: [UInt8], from start: Int, dropsSpace: Bool) -> Int? {
        guard !dropsSpace else { return end(ofText: piece, in: bytes, from: start, dropsSpace: true) }
        // Byte-level pieces first: their characters for bytes are no text that a model meets otherwise.
        let mapped = piece.unicodeScalars.compactMap { ByteCharacters.byte($0) }
        if mapped.count == piece.unicodeScalars.count, bytes[start...].starts(with: mapped) {
            return start + mapped.count
        }
        if let byte = ByteFallback.byte(piece), start < bytes.count, bytes[start] == byte { return start + 1 }
        return end(ofText: piece, in: bytes, from: start, dropsSpace: false)
    }

    /// Reads a piece as text; its "▁" is a space of the text, or one that the text writes so itself.
    private static func end(ofText piece: String, in bytes: [UInt8], from start: Int, dropsSpace: Bool) -> Int? {
        var place = start
        for (index, scalar) in piece.unicodeScalars.enumerated() {
            if dropsSpace, index == 0 {
                guard scalar == space else { return nil }
                continue
            }
            if scalar == space, place < bytes.count, bytes[place] == 0x20 {
                place += 1
                continue
            }
            let own = Array(String(scalar).utf8)
            guard bytes[place...].starts(with: own) else { return nil }
            place += own.count
        }
        return place
    }
}

extension UInt8 {
    fileprivate var isSpace: Bool { self == 0x20 || 0x09...0x0D ~= self }
}
