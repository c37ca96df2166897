/// Text on its way through the normalizers, each scalar with the part of the original text that it stands for.
///
/// The slower twin of ``NormalizedText``: encoding without offsets doesn't need it.
struct AlignedText {
    private(set) var scalars: [Unicode.Scalar]
    /// Bytes of the original text, one range for each scalar.
    private(set) var origins: [Range<Int>]
    /// Where this part of the original text begins.
    private let base: Int
    /// The most bytes that replacements may make of it.
    let limit: Int

    /// - Parameter base: where `bytes` begin in the original text.
    init(_ bytes: ArraySlice<UInt8>, base: Int) {
        self.base = base
        limit = TextFailures.limit(for: bytes.count)
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
