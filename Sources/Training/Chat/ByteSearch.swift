extension [UInt8] {
    /// Where a part occurs if it occurs exactly once.
    func onlyPlace(of part: [UInt8]) -> Range<Int>? {
        guard let place = firstPlace(of: part), firstPlace(of: part, from: place.upperBound) == nil else {
            return nil
        }
        return place
    }

    func firstPlace(of part: [UInt8], from start: Int = 0) -> Range<Int>? {
        guard let first = part.first, start + part.count <= count else { return nil }
        for place in start...(count - part.count) where self[place] == first {
            if self[place..<(place + part.count)].elementsEqual(part) { return place..<(place + part.count) }
        }
        return nil
    }

    func ends(with part: some Collection<UInt8>) -> Bool {
        count >= part.count && suffix(part.count).elementsEqual(part)
    }

    /// How many bytes from a place on are those that another text begins with.
    func agreement(from start: Int, with other: [UInt8]) -> Int {
        let most = Swift.min(count - start, other.count)
        var length = 0
        while length < most, self[start + length] == other[length] { length += 1 }
        return length
    }
}
