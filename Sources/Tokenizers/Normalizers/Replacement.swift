import Foundation
import Support

/// What `Replace` does, as a normalizer and as a decoder: every match of a pattern becomes `content`.
struct Replacement: Sendable {
    private enum Pattern: Sendable {
        case literal([UInt8])
        /// At least `minimum` times the same scalar, as in ` {2,}`: by far the most frequent expression.
        case run(of: [UInt8], minimum: Int)
        case expression(NSRegularExpression)
    }

    private let pattern: Pattern
    private let content: [UInt8]

    init(_ fields: StageFields) throws {
        content = Array(try fields.string("content").utf8)
        let source = try fields.object("pattern")
        if let literal = source.values["String"]?.string {
            guard !literal.isEmpty else { throw source.malformed("an empty String matches everywhere") }
            pattern = .literal(Array(literal.utf8))
        } else if let expression = source.values["Regex"]?.string {
            if let run = Replacement.run(expression) {
                pattern = run
            } else if let compiled = try? NSRegularExpression(pattern: expression) {
                pattern = .expression(compiled)
            } else {
                throw PEFTError(
                    "\(source.file): \(source.place): the regular expression \(expression) is not supported",
                    remedy: "it must be valid in ICU's syntax")
            }
        } else {
            throw source.malformed("must hold String or Regex")
        }
    }

    /// Every run of `scalar` becomes `content`.
    init(runsOf scalar: Unicode.Scalar, with content: String) {
        pattern = .run(of: Array(String(scalar).utf8), minimum: 1)
        self.content = Array(content.utf8)
    }

    /// Reads `x{n,}` and `x+` where `x` is one scalar without a meaning of its own.
    private static func run(_ expression: String) -> Pattern? {
        let scalars = Array(expression.unicodeScalars)
        guard let scalar = scalars.first, !"\\.[](){}*+?^$|".unicodeScalars.contains(scalar) else { return nil }
        let rest = String(String.UnicodeScalarView(scalars.dropFirst()))
        let bytes = Array(String(scalar).utf8)
        if rest == "+" { return .run(of: bytes, minimum: 1) }
        guard rest.hasPrefix("{"), rest.hasSuffix(",}"), let minimum = Int(rest.dropFirst().dropLast(2)), minimum > 0
        else { return nil }
        return .run(of: bytes, minimum: minimum)
    }

    /// - Returns: the new bytes, and whether what begins them is no longer what began `bytes`.
    func apply(to bytes: [UInt8]) -> (bytes: [UInt8], lostStart: Bool) {
        let matches = matches(in: bytes)
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
        // The reference places new characters at the last one they replace.
        let lostStart =
            first.lowerBound == 0 && !first.isEmpty && (content.isEmpty || first.count > bytes.scalarLength(at: 0))
        return (result, lostStart)
    }

    private func matches(in bytes: [UInt8]) -> [Range<Int>] {
        switch pattern {
        case .literal(let literal): runs(of: literal, minimum: 1, maximum: 1, in: bytes)
        case .run(let scalar, let minimum): runs(of: scalar, minimum: minimum, maximum: .max, in: bytes)
        case .expression(let expression): Replacement.matches(of: expression, in: bytes)
        }
    }

    private func runs(of unit: [UInt8], minimum: Int, maximum: Int, in bytes: [UInt8]) -> [Range<Int>] {
        var found: [Range<Int>] = []
        let last = bytes.count - unit.count
        var index = 0
        while index <= last {
            guard bytes[index] == unit[0] else {
                index += 1
                continue
            }
            var end = index
            var repetitions = 0
            while repetitions < maximum, end <= last, unit.indices.allSatisfy({ bytes[end + $0] == unit[$0] }) {
                end += unit.count
                repetitions += 1
            }
            if repetitions >= minimum { found.append(index..<end) }
            index = max(end, index + 1)
        }
        return found
    }

    private static func matches(of expression: NSRegularExpression, in bytes: [UInt8]) -> [Range<Int>] {
        let text = String(decoding: bytes, as: UTF8.self)
        var found: [Range<Int>] = []
        var utf16 = text.utf16.startIndex
        var utf16Offset = 0
        var offset = 0
        /// Matches come in order, so both positions only ever move forward.
        func advance(to position: Int) -> Int {
            let next = text.utf16.index(utf16, offsetBy: position - utf16Offset)
            offset += text.utf8.distance(from: utf16, to: next)
            (utf16, utf16Offset) = (next, position)
            return offset
        }
        for match in expression.matches(in: text, range: NSRange(location: 0, length: text.utf16.count)) {
            let start = advance(to: match.range.location)
            let end = advance(to: match.range.location + match.range.length)
            // No empty match directly after a match, as in the reference's engine.
            if start == end, found.last?.upperBound == start { continue }
            found.append(start..<end)
        }
        return found
    }
}

/// Replaces in text.
struct ReplaceNormalizer: Normalizer {
    let replacement: Replacement

    init(_ replacement: Replacement) { self.replacement = replacement }

    func normalize(_ text: inout NormalizedText) {
        guard !text.bytes.isEmpty else { return }
        let (bytes, lostStart) = replacement.apply(to: text.bytes)
        text.bytes = bytes
        if lostStart { text.lostStart = true }
    }
}
