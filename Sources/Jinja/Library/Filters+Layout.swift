import Foundation

extension Filters {
    static let layout: [String: Filter] = [
        "format": { _, value, arguments in
            guard arguments.positional.isEmpty || arguments.named.isEmpty else {
                throw JinjaFailure("can't handle positional and keyword arguments at the same time")
            }
            let format = try unmarked(value, "format")
            if arguments.named.isEmpty {
                return .string(try PercentFormat.text(format, .tuple(arguments.positional)))
            }
            var values = JinjaDictionary()
            for (name, value) in arguments.named { values[name] = value }
            return .string(try PercentFormat.text(format, .dictionary(values)))
        },
        "truncate": { _, value, arguments in
            let given = try arguments.bound("truncate", ["length", "killwords", "end", "leeway"])
            let length = try given.integer(0, "the length") ?? 255
            let end = try given.text(2, "the end") ?? "..."
            let leeway = try given.integer(3, "the leeway") ?? 5
            guard length >= end.unicodeScalars.count else {
                throw JinjaFailure("expected length >= \(end.unicodeScalars.count), got \(length)")
            }
            guard leeway >= 0 else { throw JinjaFailure("expected leeway >= 0, got \(leeway)") }
            if try value.length() - leeway <= length { return value }
            let text = try unmarked(.string(try value.text(of: "what is truncated")), "truncate")
            let kept = String(String.UnicodeScalarView(text.unicodeScalars.prefix(length - end.unicodeScalars.count)))
            if given.isTrue(1) { return .string(kept + end) }
            let words = kept.unicodeScalars.lastIndex(of: " ").map { String(kept.unicodeScalars[..<$0]) }
            return .string((words ?? kept) + end)
        },
        "wordwrap": { _, value, arguments in
            let given = try arguments.bound(
                "wordwrap", ["width", "break_long_words", "wrapstring", "break_on_hyphens"])
            let wrapper = WordWrapper(
                width: try given.integer(0, "the width") ?? 79, breaksWords: given.isTrue(1, default: true),
                breaksHyphens: given.isTrue(3, default: true))
            let between = try given.text(2, "the wrapstring") ?? "\n"
            let text = try unmarked(.string(try value.text(of: "what is wrapped")), "wordwrap")
            return .string(
                try text.lines().map { try wrapper.lines($0).joined(separator: between) }.joined(separator: between))
        },
        "filesizeformat": { _, value, arguments in
            let isBinary = try arguments.bound("filesizeformat", ["binary"]).isTrue(0)
            guard
                let bytes = value.numeric
                    ?? value.text.flatMap({ PythonNumber.digits($0) }).flatMap({
                        PythonNumber.float($0)
                    })
            else {
                if case .undefined(let reason) = value { throw JinjaFailure(reason) }
                throw JinjaFailure("could not convert \(value.typeName) to float")
            }
            let base: Double = isBinary ? 1024 : 1000
            if bytes == 1 { return .string("1 Byte") }
            if bytes < base {
                guard let whole = Int(exactly: bytes.rounded(.towardZero)) else {
                    throw JinjaFailure("the number \(bytes) is too large for an integer")
                }
                return .string("\(whole) Bytes")
            }
            let prefixes = ["k", "M", "G", "T", "P", "E", "Z", "Y"]
            var unit = base * base
            var index = 0
            // Python compares with the exact power. 10²⁴ is greater than the nearest float.
            let roundedDown = 1e24
            while index + 1 < prefixes.count, !(bytes < unit || bytes == unit && unit == roundedDown && !isBinary) {
                unit *= base
                index += 1
            }
            let name = isBinary ? prefixes[index].uppercased() + "iB" : prefixes[index] + "B"
            return .string(String(format: "%.1f ", base * bytes / unit) + name)
        },
        "pprint": plain("pprint") { .string(try PrettyPrinter.text(of: $0)) },
    ]
}

/// Python's `textwrap.wrap` of one line.
struct WordWrapper {
    let width: Int
    let breaksWords: Bool
    let breaksHyphens: Bool

    func lines(_ text: String) throws -> [String] {
        guard width > 0 else { throw JinjaFailure("invalid width \(width) (must be > 0)") }
        var rest = Array(chunks(Array(text.unicodeScalars)).reversed())
        var lines: [String] = []
        while !rest.isEmpty {
            var line: [[Unicode.Scalar]] = []
            var length = 0
            if !lines.isEmpty, let next = rest.last, next.allSatisfy(\.isPythonSpace) { rest.removeLast() }
            while let next = rest.last, length + next.count <= width {
                line.append(next)
                length += next.count
                rest.removeLast()
            }
            if let next = rest.last, next.count > width { breakLongWord(next, &rest, &line, length) }
            if let last = line.last, last.allSatisfy(\.isPythonSpace) { line.removeLast() }
            if !line.isEmpty {
                var scalars = String.UnicodeScalarView()
                for chunk in line { scalars.append(contentsOf: chunk) }
                lines.append(String(scalars))
            }
        }
        return lines
    }

    private func breakLongWord(
        _ word: [Unicode.Scalar], _ rest: inout [[Unicode.Scalar]], _ line: inout [[Unicode.Scalar]], _ length: Int
    ) {
        guard breaksWords else {
            if line.isEmpty {
                line.append(word)
                rest.removeLast()
            }
            return
        }
        var end = width - length
        if breaksHyphens, word.count > end, let hyphen = word[..<end].lastIndex(of: "-"), hyphen > 0,
            word[..<hyphen].contains(where: { $0 != "-" })
        {
            end = hyphen + 1
        }
        line.append(Array(word[..<end]))
        rest[rest.count - 1] = Array(word[end...])
    }

    // MARK: Break opportunities

    private static func isSpace(_ scalar: Unicode.Scalar) -> Bool { scalar == " " || 0x09...0x0D ~= scalar.value }
    private static func isWord(_ scalar: Unicode.Scalar) -> Bool {
        scalar == "_" || scalar.properties.isAlphabetic || scalar.properties.numericType != nil
    }
    private static func isLetter(_ scalar: Unicode.Scalar) -> Bool {
        isWord(scalar) && scalar.properties.generalCategory != .decimalNumber
    }
    private static func isWordOrMark(_ scalar: Unicode.Scalar) -> Bool {
        isWord(scalar) || "!\"'&.,?".unicodeScalars.contains(scalar)
    }

    /// Words with their hyphens, dashes, and the whitespace between them.
    private func chunks(_ text: [Unicode.Scalar]) -> [[Unicode.Scalar]] {
        var result: [[Unicode.Scalar]] = []
        var start = 0
        while start < text.count {
            let end = chunkEnd(text, start)
            result.append(Array(text[start..<end]))
            start = end
        }
        return result
    }

    private func chunkEnd(_ text: [Unicode.Scalar], _ start: Int) -> Int {
        func at(_ place: Int) -> Unicode.Scalar? { text.indices.contains(place) ? text[place] : nil }
        func holds(_ place: Int, _ test: (Unicode.Scalar) -> Bool) -> Bool { at(place).map(test) ?? false }
        if Self.isSpace(text[start]) {
            return text[start...].firstIndex { !Self.isSpace($0) } ?? text.count
        }
        func endsWord(_ place: Int) -> Bool { at(place).map(Self.isSpace) ?? true }
        guard breaksHyphens else { return text[start...].firstIndex(where: Self.isSpace) ?? text.count }
        /// The end of a run of two or more hyphens before a word, if one begins here.
        func dashEnd(_ place: Int) -> Int? {
            var end = place
            while at(end) == "-" { end += 1 }
            return end - place >= 2 && holds(end, Self.isWord) ? end : nil
        }
        if holds(start - 1, Self.isWordOrMark), let end = dashEnd(start) { return end }
        var place = start + 1
        while place < text.count {
            // A hyphen between letters.
            if text[place] == "-" {
                let isBehindLetters =
                    holds(place - 2, Self.isLetter) && holds(place - 1, Self.isLetter)
                    || holds(place - 3, Self.isLetter) && at(place - 2) == "-" && holds(place - 1, Self.isWordOrMark)
                let next = holds(place + 1, Self.isLetter)
                let isBeforeLetters =
                    next
                    && (holds(place + 2, Self.isLetter) || at(place + 2) == "-" && holds(place + 3, Self.isLetter))
                if isBehindLetters, isBeforeLetters { return place + 1 }
            }
            if endsWord(place) { return place }
            if holds(place - 1, Self.isWordOrMark), dashEnd(place) != nil { return place }
            place += 1
        }
        return text.count
    }
}

/// Python's `pprint.pformat`: dictionaries sorted by key, and lines of at most 80 characters where possible.
struct PrettyPrinter {
    private var out = ""

    static func text(of value: JinjaValue) throws -> String {
        var printer = PrettyPrinter()
        try printer.write(value, indent: 0, allowance: 0, level: 0)
        return printer.out
    }

    private static let width = 80

    private mutating func write(_ value: JinjaValue, indent: Int, allowance: Int, level: Int) throws {
        let line = try Self.representation(value)
        guard line.unicodeScalars.count > Self.width - indent - allowance else {
            out += line
            return
        }
        switch value {
        case .dictionary(let dictionary):
            out += "{"
            let entries = try Self.sorted(dictionary)
            for (index, entry) in entries.enumerated() {
                let isLast = index == entries.count - 1
                let key = try Self.representation(entry.key)
                out += key + ": "
                try write(
                    entry.value, indent: indent + 1 + key.unicodeScalars.count + 2,
                    allowance: isLast ? allowance + 1 : 1,
                    level: level + 1)
                if !isLast { out += ",\n" + String(repeating: " ", count: indent + 1) }
            }
            out += "}"
        case .list(let values): try write(values, "[", "]", indent, allowance, level)
        case .tuple(let values): try write(values, "(", values.count == 1 ? ",)" : ")", indent, allowance, level)
        case .string(let text): write(text, line, indent: indent, allowance: allowance, isAlone: level == 0)
        default: out += line
        }
    }

    private mutating func write(
        _ values: [JinjaValue], _ open: String, _ close: String, _ indent: Int, _ allowance: Int, _ level: Int
    ) throws {
        out += open
        for (index, value) in values.enumerated() {
            let isLast = index == values.count - 1
            try write(value, indent: indent + 1, allowance: isLast ? allowance + close.count : 1, level: level + 1)
            if !isLast { out += ",\n" + String(repeating: " ", count: indent + 1) }
        }
        out += close
    }

    /// A long string as several literals on consecutive lines.
    private mutating func write(_ text: String, _ whole: String, indent: Int, allowance: Int, isAlone: Bool) {
        let (indent, allowance) = isAlone ? (indent + 1, allowance + 1) : (indent, allowance)
        let width = Self.width - indent
        var chunks: [String] = []
        let lines = text.lines(keepingEnds: true)
        var last = whole
        for (index, line) in lines.enumerated() {
            let isLast = index == lines.count - 1
            last = JinjaValue.quoted(line)
            if last.unicodeScalars.count <= width - (isLast ? allowance : 0) {
                chunks.append(last)
                continue
            }
            let words = Self.words(line)
            var current = ""
            for (place, word) in words.enumerated() {
                let isEnd = isLast && place == words.count - 1
                let candidate = current + word
                if JinjaValue.quoted(candidate).unicodeScalars.count > width - (isEnd ? allowance : 0) {
                    if !current.isEmpty { chunks.append(JinjaValue.quoted(current)) }
                    current = word
                } else {
                    current = candidate
                }
            }
            if !current.isEmpty { chunks.append(JinjaValue.quoted(current)) }
        }
        guard chunks.count > 1 else {
            out += last
            return
        }
        let text = chunks.joined(separator: "\n" + String(repeating: " ", count: indent))
        out += isAlone ? "(\(text))" : text
    }

    /// Words, each with the whitespace after it.
    private static func words(_ line: String) -> [String] {
        var result: [String] = []
        var word = String.UnicodeScalarView()
        for scalar in line.unicodeScalars {
            if let last = word.last, last.isPythonSpace, !scalar.isPythonSpace {
                result.append(String(word))
                word = .init()
            }
            word.append(scalar)
        }
        return word.isEmpty ? result : result + [String(word)]
    }

    private static func representation(_ value: JinjaValue, _ level: Int = 0) throws -> String {
        guard level <= JinjaLimits.depth else {
            throw JinjaFailure("a value is nested more than \(level) levels deep")
        }
        func joined(_ values: [JinjaValue]) throws -> String {
            try values.map { try representation($0, level + 1) }.joined(separator: ", ")
        }
        switch value {
        case .dictionary(let dictionary):
            let pairs = try sorted(dictionary).map {
                "\(try representation($0.key, level + 1)): \(try representation($0.value, level + 1))"
            }
            return "{\(pairs.joined(separator: ", "))}"
        case .list(let values): return "[\(try joined(values))]"
        case .tuple(let values): return "(\(try joined(values))\(values.count == 1 ? "," : ""))"
        case .undefined: return "Undefined"
        default: return try value.representation()
        }
    }

    private static func sorted(_ dictionary: JinjaDictionary) throws -> [(key: JinjaValue, value: JinjaValue)] {
        try dictionary.entries.sorted { try $0.key.isLess(than: $1.key) }
    }
}
