/// A token of a template's source.
struct Token: Equatable {
    enum Kind: Equatable {
        case data(String)
        case blockBegin, blockEnd, variableBegin, variableEnd
        case name(String)
        case integer(Int)
        case number(Double)
        case string(String)
        case sign(String)
        case end
    }
    var kind: Kind
    var line: Int

    /// The token as errors show it.
    var description: String {
        switch kind {
        case .data: "text"
        case .blockBegin: "'{%'"
        case .blockEnd: "'%}'"
        case .variableBegin: "'{{'"
        case .variableEnd: "'}}'"
        case .name(let name): "'\(name)'"
        case .integer(let value): "\(value)"
        case .number(let value): "\(value)"
        case .string: "a string"
        case .sign(let sign): "'\(sign)'"
        case .end: "the end of the template"
        }
    }
}

/// Splits a template into tokens as Jinja does with `trim_blocks` (the line break after a block is dropped) and
/// `lstrip_blocks` (so is the whitespace before a block at the beginning of a line).
struct Lexer {
    private let source: [UInt8]
    private var index = 0
    private var line = 1
    /// Whether the last token ended at the end of a line.
    private var startsLine = true
    private var tokens: [Token] = []

    static func tokens(of text: String) throws -> [Token] {
        var lexer = Lexer(text)
        try lexer.run()
        return lexer.tokens
    }

    private init(_ text: String) {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.utf8.count)
        var previous: UInt8 = 0
        for byte in text.utf8 {
            if byte == 0x0A, previous == 0x0D { previous = byte; continue }
            bytes.append(byte == 0x0D ? 0x0A : byte)
            previous = byte
        }
        if bytes.last == 0x0A { bytes.removeLast() }
        source = bytes
    }

    // MARK: Text between tags

    private mutating func run() throws {
        while index < source.count {
            guard let tag = nextTag() else {
                add(.data(String(bytes: source[index...])))
                index = source.count
                break
            }
            let isVariable = source[tag + 1] == UInt8(ascii: "{")
            let sign = tag + 2 < source.count ? source[tag + 2] : 0
            addData(index..<tag, sign: sign, mayStrip: !isVariable)
            advance(to: tag + 2 + (sign == UInt8(ascii: "-") || sign == UInt8(ascii: "+") ? 1 : 0))
            startsLine = false
            if source[tag + 1] == UInt8(ascii: "#") {
                try skipComment()
            } else if !isVariable, let end = word("raw", from: index) {
                try raw(from: end)
            } else {
                add(isVariable ? .variableBegin : .blockBegin)
                try code(isVariable: isVariable)
            }
        }
        add(.end)
    }

    private func nextTag() -> Int? {
        guard source.count > index + 1 else { return nil }
        return (index..<(source.count - 1)).first { place in
            source[place] == UInt8(ascii: "{") && [0x7B, 0x25, 0x23].contains(source[place + 1])
        }
    }

    /// Adds the text before a tag, without the whitespace that the tag strips.
    private mutating func addData(_ range: Range<Int>, sign: UInt8, mayStrip: Bool) {
        var end = range.upperBound
        if sign == UInt8(ascii: "-") {
            end = range.lowerBound + String(bytes: source[range]).stripped(left: false).utf8.count
        } else if sign != UInt8(ascii: "+"), mayStrip {
            let start = source[range].lastIndex(of: 0x0A).map { $0 + 1 } ?? range.lowerBound
            let isLineStart = start > range.lowerBound || startsLine
            if isLineStart, String(bytes: source[start..<end]).stripped().isEmpty { end = start }
        }
        if end > range.lowerBound { add(.data(String(bytes: source[range.lowerBound..<end]))) }
        advance(to: range.upperBound)
    }

    private mutating func skipComment() throws {
        guard let end = source.firstPlace(of: Array("#}".utf8), from: index) else {
            throw JinjaFailure("comment without a closing '#}'", line: line)
        }
        let sign = end > index ? source[end - 1] : 0
        advance(to: end + 2)
        closeTag(sign: sign, trims: true)
    }

    /// The text from `{% raw %}` to `{% endraw %}`. `place` is after the word "raw".
    private mutating func raw(from place: Int) throws {
        let (opening, _) = try closing(of: "raw", at: place, trims: false)
        advance(to: opening)
        var search = index
        while let tag = source.firstPlace(of: Array("{%".utf8), from: search) {
            search = tag + 2
            let sign = search < source.count ? source[search] : 0
            let hasSign = sign == UInt8(ascii: "-") || sign == UInt8(ascii: "+")
            guard let end = word("endraw", from: search + (hasSign ? 1 : 0)) else { continue }
            addData(index..<tag, sign: sign, mayStrip: true)
            let (after, trimmed) = try closing(of: "endraw", at: end, trims: true)
            advance(to: after)
            startsLine = trimmed
            return
        }
        throw JinjaFailure("'raw' without 'endraw'", line: line)
    }

    /// The position of the text after the `%}` of a tag without expressions.
    private func closing(of name: String, at place: Int, trims: Bool) throws -> (index: Int, endsLine: Bool) {
        var place = skippingSpace(place)
        let isStripping = place < source.count && source[place] == UInt8(ascii: "-")
        if place < source.count, isStripping || source[place] == UInt8(ascii: "+") { place += 1 }
        guard source[place...].starts(with: "%}".utf8) else {
            throw JinjaFailure("'\(name)' takes no arguments", line: line)
        }
        place += 2
        if isStripping {
            let after = skippingSpace(place)
            return (after, source[after - 1] == 0x0A)
        }
        guard trims, place < source.count, source[place] == 0x0A else { return (place, false) }
        return (place + 1, true)
    }

    /// The position after `name`, if optional whitespace and that word come next.
    private func word(_ name: String, from start: Int) -> Int? {
        let place = skippingSpace(start)
        guard source[place...].starts(with: name.utf8) else { return nil }
        let end = place + name.utf8.count
        return end < source.count && source[end].isWordByte ? nil : end
    }

    // MARK: Expressions

    private mutating func code(isVariable: Bool) throws {
        let opening = line
        var brackets: [UInt8] = []
        let close: [UInt8] = Array((isVariable ? "}}" : "%}").utf8)
        while true {
            advance(to: skippingSpace(index))
            guard index < source.count else {
                throw JinjaFailure("tag without a closing '\(String(bytes: close))'", line: opening)
            }
            if brackets.isEmpty {
                let sign = source[index]
                let hasSign = sign == UInt8(ascii: "-") || (sign == UInt8(ascii: "+") && !isVariable)
                if source[(index + (hasSign ? 1 : 0))...].starts(with: close) {
                    add(isVariable ? .variableEnd : .blockEnd)
                    advance(to: index + (hasSign ? 3 : 2))
                    closeTag(sign: hasSign ? sign : 0, trims: !isVariable)
                    return
                }
            }
            try token(&brackets)
        }
    }

    private mutating func token(_ brackets: inout [UInt8]) throws {
        let byte = source[index]
        switch byte {
        case UInt8(ascii: "'"), UInt8(ascii: "\""): try string(byte)
        case 0x30...0x39: try number()
        case _ where byte.isWordByte: try name()
        default: try sign(&brackets)
        }
    }

    private mutating func name() throws {
        let end = source[index...].firstIndex { !$0.isWordByte } ?? source.count
        let text = String(bytes: source[index..<end])
        guard text.unicodeScalars.allSatisfy({ $0.value < 0x80 || $0.properties.isIDContinue }) else {
            throw JinjaFailure("unexpected character in '\(text)'", line: line)
        }
        add(.name(text))
        advance(to: end)
    }

    private mutating func number() throws {
        var end = index
        func isDigit(_ place: Int) -> Bool { place < source.count && 0x30...0x39 ~= source[place] }
        func digits(_ place: Int) -> Int {
            var place = place
            while isDigit(place) || (place < source.count && source[place] == 0x5F && isDigit(place + 1)) {
                place += 1
            }
            return place
        }
        if source[index] == 0x30, index + 1 < source.count, "xXoObB".utf8.contains(source[index + 1]) {
            throw JinjaFailure("only decimal numbers are supported", line: line)
        }
        end = digits(index)
        var isWhole = true
        if end < source.count, source[end] == UInt8(ascii: "."), isDigit(end + 1) {
            end = digits(end + 1)
            isWhole = false
        }
        if end < source.count, source[end] | 0x20 == UInt8(ascii: "e") {
            var exponent = end + 1
            if exponent < source.count, "+-".utf8.contains(source[exponent]) { exponent += 1 }
            if isDigit(exponent) {
                end = digits(exponent)
                isWhole = false
            }
        }
        let text = String(bytes: source[index..<end].filter { $0 != 0x5F })
        if isWhole {
            guard let value = Int(text) else { throw JinjaFailure("the number \(text) is too large", line: line) }
            add(.integer(value))
        } else {
            add(.number(Double(text) ?? .nan))
        }
        advance(to: end)
    }

    private mutating func string(_ quote: UInt8) throws {
        var out: [UInt8] = []
        let opening = line
        var place = index + 1
        while place < source.count, source[place] != quote {
            guard source[place] == UInt8(ascii: "\\") else {
                out.append(source[place])
                place += 1
                continue
            }
            place = try escape(place + 1, into: &out, line: opening)
        }
        guard place < source.count else { throw JinjaFailure("unterminated string", line: opening) }
        add(.string(String(bytes: out)))
        advance(to: place + 1)
    }

    /// Parses an escape sequence as in Python's strings, after the backslash.
    private func escape(_ place: Int, into out: inout [UInt8], line: Int) throws -> Int {
        guard place < source.count else { throw JinjaFailure("unterminated string", line: line) }
        let simple: [UInt8: UInt8] = [
            UInt8(ascii: "n"): 0x0A, UInt8(ascii: "t"): 0x09, UInt8(ascii: "r"): 0x0D, UInt8(ascii: "b"): 0x08,
            UInt8(ascii: "f"): 0x0C, UInt8(ascii: "a"): 0x07, UInt8(ascii: "v"): 0x0B, UInt8(ascii: "\\"): 0x5C,
            UInt8(ascii: "'"): 0x27, UInt8(ascii: "\""): 0x22,
        ]
        let letter = source[place]
        if let byte = simple[letter] {
            out.append(byte)
            return place + 1
        }
        func scalar(_ digits: ArraySlice<UInt8>, radix: Int) throws {
            guard let value = UInt32(String(bytes: digits), radix: radix), let scalar = Unicode.Scalar(value) else {
                throw JinjaFailure(
                    "a string has the escape \\\(String(bytes: source[place..<digits.endIndex])), which is not a character",
                    line: line)
            }
            out.append(contentsOf: Array(String(Character(scalar)).utf8))
        }
        switch letter {
        case 0x0A: return place + 1
        case 0x30...0x37:
            let end = source[place...].prefix(3).firstIndex { !(0x30...0x37 ~= $0) } ?? min(place + 3, source.count)
            try scalar(source[place..<end], radix: 8)
            return end
        case UInt8(ascii: "x"), UInt8(ascii: "u"), UInt8(ascii: "U"):
            let count = letter == UInt8(ascii: "x") ? 2 : letter == UInt8(ascii: "u") ? 4 : 8
            let digits = source[(place + 1)...].prefix(count)
            guard digits.count == count else {
                throw JinjaFailure("incomplete escape in a string", line: line)
            }
            try scalar(digits, radix: 16)
            return place + 1 + count
        case UInt8(ascii: "N"): throw JinjaFailure("the escape \\N is not supported", line: line)
        default:
            out.append(0x5C)
            return place
        }
    }

    private static let signs = ["//", "**", "==", "!=", ">=", "<="] + "+-/*%~[](){}><=.:|,;".map(String.init)

    private mutating func sign(_ brackets: inout [UInt8]) throws {
        guard let sign = Self.signs.first(where: { source[index...].starts(with: $0.utf8) }) else {
            let rest = String(bytes: source[index...].prefix(8))
            throw JinjaFailure("unexpected character '\(rest.first.map(String.init) ?? "")'", line: line)
        }
        let pairs: [String: UInt8] = ["(": UInt8(ascii: ")"), "[": UInt8(ascii: "]"), "{": UInt8(ascii: "}")]
        if let close = pairs[sign] {
            brackets.append(close)
        } else if ")]}".contains(sign) {
            guard brackets.popLast() == source[index] else { throw JinjaFailure("unexpected '\(sign)'", line: line) }
        }
        add(.sign(sign))
        advance(to: index + sign.utf8.count)
    }

    // MARK: Characters

    private mutating func add(_ kind: Token.Kind) { tokens.append(Token(kind: kind, line: line)) }

    private mutating func advance(to place: Int) {
        if place > index { line += source[index..<place].count { $0 == 0x0A } }
        index = place
    }

    /// Drops the whitespace that the end of a tag strips.
    private mutating func closeTag(sign: UInt8, trims: Bool) {
        startsLine = false
        if sign == UInt8(ascii: "-") {
            let place = skippingSpace(index)
            startsLine = place > index && source[place - 1] == 0x0A
            advance(to: place)
        } else if sign != UInt8(ascii: "+"), trims, index < source.count, source[index] == 0x0A {
            advance(to: index + 1)
            startsLine = true
        }
    }

    private func skippingSpace(_ start: Int) -> Int {
        var place = start
        while place < source.count {
            if source[place] < 0x80 {
                guard Unicode.Scalar(source[place]).isPythonSpace else { break }
                place += 1
                continue
            }
            // Non-ASCII whitespace.
            let rest = String(bytes: source[place...].prefix(4)).unicodeScalars
            guard let first = rest.first, first.isPythonSpace else { break }
            place += UTF8.width(first)
        }
        return place
    }
}

extension UInt8 {
    fileprivate var isWordByte: Bool {
        switch self {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x5F, 0x80...: true
        default: false
        }
    }
}
