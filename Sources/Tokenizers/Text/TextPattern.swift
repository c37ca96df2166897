import Foundation
import PEFTSupport

/// The `pattern` of normalizers, pre-tokenizers and decoders.
enum TextPattern: Sendable {
    case literal([UInt8])
    /// At least `minimum` repetitions of a scalar, as in ` {2,}`: by far the most frequent regular expression.
    case run(of: [UInt8], minimum: Int)
    /// One of the regular expressions that split text into words.
    case words(WordScanner)
    case expression(LimitedExpression)

    init(_ fields: StageFields) throws {
        if let literal = fields.values["String"]?.string {
            guard !literal.isEmpty else { throw fields.malformed("an empty String matches everywhere") }
            self = .literal(Array(literal.utf8))
        } else if let expression = fields.values["Regex"]?.string {
            if let run = TextPattern.run(expression) {
                self = run
            } else if let scanner = WordScanner(expression: expression) {
                self = .words(scanner)
            } else if let translated = OnigurumaSyntax.translated(expression),
                let compiled = try? LimitedExpression(translated)
            {
                self = .expression(compiled)
            } else {
                throw PEFTError(
                    "\(fields.file): \(fields.place): the regular expression \(expression.prefix(200)) is not supported",
                    remedy: "it must be valid in Oniguruma's and in ICU's syntax, without the options m, s and x")
            }
        } else {
            throw fields.malformed("must hold String or Regex")
        }
    }

    /// Parses `x{n,}` and `x+` where `x` is one scalar that is not a metacharacter.
    private static func run(_ expression: String) -> TextPattern? {
        let scalars = Array(expression.unicodeScalars)
        guard let scalar = scalars.first, !"\\.[](){}*+?^$|".unicodeScalars.contains(scalar) else { return nil }
        let rest = String(String.UnicodeScalarView(scalars.dropFirst()))
        let bytes = Array(String(scalar).utf8)
        if rest == "+" { return .run(of: bytes, minimum: 1) }
        guard rest.hasPrefix("{"), rest.hasSuffix(",}"), let minimum = Int(rest.dropFirst().dropLast(2)), minimum > 0
        else { return nil }
        return .run(of: bytes, minimum: minimum)
    }

    /// The matches of the pattern, in order and without overlap.
    func matches(in bytes: [UInt8]) -> [Range<Int>] {
        switch self {
        case .literal(let literal): runs(of: literal, minimum: 1, maximum: 1, in: bytes)
        case .run(let scalar, let minimum) where scalar.count == 1: runs(of: scalar[0], minimum: minimum, in: bytes)
        case .run(let scalar, let minimum): runs(of: scalar, minimum: minimum, maximum: .max, in: bytes)
        case .words(let scanner): scanner.words(in: bytes, 0..<bytes.count)
        case .expression(let expression): TextPattern.matches(of: expression, in: bytes)
        }
    }

    /// The runs of a byte, such as spaces. If the byte at the last position of a possible run differs, no run begins
    /// before it.
    private func runs(of unit: UInt8, minimum: Int, in bytes: [UInt8]) -> [Range<Int>] {
        var found: [Range<Int>] = []
        bytes.withUnsafeBufferPointer { bytes in
            var index = 0
            while index + minimum <= bytes.count {
                var start = index + minimum - 1
                guard bytes[start] == unit else {
                    index += minimum
                    continue
                }
                var end = start + 1
                while start > index, bytes[start - 1] == unit { start -= 1 }
                while end < bytes.count, bytes[end] == unit { end += 1 }
                if end - start >= minimum { found.append(start..<end) }
                index = end
            }
        }
        return found
    }

    private func runs(of unit: [UInt8], minimum: Int, maximum: Int, in bytes: [UInt8]) -> [Range<Int>] {
        var found: [Range<Int>] = []
        let last = bytes.count - unit.count
        bytes.withUnsafeBufferPointer { bytes in
            unit.withUnsafeBufferPointer { unit in
                func isUnit(_ place: Int) -> Bool {
                    for offset in 0..<unit.count where bytes[place + offset] != unit[offset] { return false }
                    return true
                }
                var index = 0
                while index <= last {
                    guard bytes[index] == unit[0] else {
                        index += 1
                        continue
                    }
                    var end = index
                    var repetitions = 0
                    while repetitions < maximum, end <= last, isUnit(end) {
                        end += unit.count
                        repetitions += 1
                    }
                    if repetitions >= minimum { found.append(index..<end) }
                    index = max(end, index + 1)
                }
            }
        }
        return found
    }

    private static func matches(of expression: LimitedExpression, in bytes: [UInt8]) -> [Range<Int>] {
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
        let ranges: [NSRange]
        do { ranges = try expression.ranges(in: text) } catch {
            TextFailures.record(error)
            return []
        }
        for range in ranges {
            let start = advance(to: range.location)
            let end = advance(to: range.location + range.length)
            // No empty match directly after a match, as in the reference's engine.
            if start == end, found.last?.upperBound == start { continue }
            found.append(start..<end)
        }
        return found
    }
}
