/// `Replace`, as a normalizer and as a decoder: every match of a pattern becomes `content`.
struct Replacement: Sendable {
    private let pattern: TextPattern
    private let content: [UInt8]

    init(_ fields: StageFields) throws {
        content = Array(try fields.string("content").utf8)
        pattern = try TextPattern(fields.object("pattern"))
    }

    /// Every run of `scalar` becomes `content`.
    init(runsOf scalar: Unicode.Scalar, with content: String) {
        pattern = .run(of: Array(String(scalar).utf8), minimum: 1)
        self.content = Array(content.utf8)
    }

    /// Every occurrence of `literal` becomes `content`.
    init(of literal: Unicode.Scalar, with content: String) {
        pattern = .literal(Array(String(literal).utf8))
        self.content = Array(content.utf8)
    }

    /// The matches in `bytes`; none if the result would be longer than `limit`.
    func matches(in bytes: [UInt8], limit: Int) -> [Range<Int>] {
        let matches = pattern.matches(in: bytes)
        guard content.count > 1 else { return matches }
        let removed = matches.reduce(0) { $0 + $1.count }
        return isWithin(limit, bytes.count - removed, matches.count) ? matches : []
    }

    /// Whether `count` times the content plus `rest` bytes is at most `limit`.
    private func isWithin(_ limit: Int, _ rest: Int, _ count: Int) -> Bool {
        let (added, overflows) = content.count.multipliedReportingOverflow(by: count)
        if !overflows, added <= max(0, limit - rest) || added <= count { return true }
        TextFailures.recordGrowth(overflows ? .max : rest + added)
        return false
    }
    var scalars: [Unicode.Scalar] { Array(String(decoding: content, as: UTF8.self).unicodeScalars) }

    /// - Parameter limit: the maximum length of the result in bytes.
    /// - Returns: the new bytes, and whether the beginning of `bytes` was replaced.
    func apply(to bytes: [UInt8], limit: Int) -> (bytes: [UInt8], lostStart: Bool) {
        if case .literal(let literal) = pattern, literal.count == 1 { return replace(literal[0], in: bytes, limit) }
        let matches = matches(in: bytes, limit: limit)
        guard let first = matches.first else { return (bytes, false) }
        var result: [UInt8] = []
        result.reserveCapacity(bytes.count)
        var index = 0
        for match in matches {
            result.append(contentsOf: bytes[index..<match.lowerBound])
            result.append(contentsOf: content)
            index = match.upperBound
        }
        result.append(contentsOf: bytes[index...])
        // The reference aligns new characters to the last one that they replace.
        let lostStart =
            first.lowerBound == 0 && !first.isEmpty && (content.isEmpty || first.count > bytes.scalarLength(at: 0))
        return (result, lostStart)
    }

    /// The same for a byte, such as a space: the most frequent replacement.
    private func replace(_ byte: UInt8, in bytes: [UInt8], _ limit: Int) -> (bytes: [UInt8], lostStart: Bool) {
        let count = bytes.count { $0 == byte }
        guard count > 0, isWithin(limit, bytes.count - count, count) else { return (bytes, false) }
        let size = bytes.count + count * (content.count - 1)
        let result = [UInt8](unsafeUninitializedCapacity: size) { buffer, initialized in
            content.withUnsafeBufferPointer { content in
                bytes.withUnsafeBufferPointer { bytes in
                    var next = 0
                    for other in bytes {
                        if other != byte {
                            buffer[next] = other
                            next += 1
                            continue
                        }
                        for new in content {
                            buffer[next] = new
                            next += 1
                        }
                    }
                    initialized = next
                }
            }
        }
        return (result, content.isEmpty && bytes[0] == byte)
    }
}

/// Replaces in text.
struct ReplaceNormalizer: Normalizer {
    let replacement: Replacement

    init(_ replacement: Replacement) { self.replacement = replacement }

    func normalize(_ text: inout NormalizedText) {
        guard !text.bytes.isEmpty else { return }
        let (bytes, lostStart) = replacement.apply(to: text.bytes, limit: text.limit)
        text.bytes = bytes
        if lostStart { text.lostStart = true }
    }
}
