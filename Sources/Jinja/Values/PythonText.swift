/// Python's text operations. They work on code points: to Swift "\r\n" is one character and "é" equals "e" + U+0301, to
/// Python neither.
extension String {
    func hasSameBytes(as other: String) -> Bool {
        utf8.count == other.utf8.count && utf8.elementsEqual(other.utf8)
    }

    /// Order by code points, which is that of the bytes.
    func precedes(_ other: String) -> Bool { utf8.lexicographicallyPrecedes(other.utf8) }

    /// Where `part` begins first at or after `start`, in bytes.
    func firstPlace(of part: String, from start: Int = 0) -> Int? {
        Array(utf8).firstPlace(of: Array(part.utf8), from: start)
    }

    func hasBytes(atStart part: String) -> Bool { utf8.starts(with: part.utf8) }
    func hasBytes(atEnd part: String) -> Bool {
        utf8.count >= part.utf8.count && utf8.suffix(part.utf8.count).elementsEqual(part.utf8)
    }

    init(bytes: some Collection<UInt8>) { self.init(decoding: bytes, as: UTF8.self) }

    /// Python's `strip`, `lstrip` and `rstrip`: without whitespace, or without the characters of `set`.
    func stripped(_ set: String? = nil, left: Bool = true, right: Bool = true) -> String {
        let members = set.map { Set($0.unicodeScalars) }
        func isStripped(_ scalar: Unicode.Scalar) -> Bool { members?.contains(scalar) ?? scalar.isPythonSpace }
        var rest = Substring(self).unicodeScalars
        if left { while let first = rest.first, isStripped(first) { rest.removeFirst() } }
        if right { while let last = rest.last, isStripped(last) { rest.removeLast() } }
        return String(rest)
    }

    /// Python's `split` and `rsplit`; without a separator at runs of whitespace.
    func pieces(at separator: String?, most: Int = -1, fromRight: Bool = false) -> [String] {
        guard let separator else { return words(most: most, fromRight: fromRight) }
        let (bytes, pattern) = (Array(utf8), Array(separator.utf8))
        var places: [Int] = []
        if fromRight {
            var end = bytes.count
            while places.count != most, let place = bytes.lastPlace(of: pattern, before: end) {
                places.insert(place, at: 0)
                end = place
            }
        } else {
            var start = 0
            while places.count != most, let place = bytes.firstPlace(of: pattern, from: start) {
                places.append(place)
                start = place + pattern.count
            }
        }
        var start = 0
        var result: [String] = []
        for place in places {
            result.append(String(bytes: bytes[start..<place]))
            start = place + pattern.count
        }
        return result + [String(bytes: bytes[start...])]
    }

    private func words(most: Int, fromRight: Bool) -> [String] {
        var result: [String] = []
        var rest = Substring(self).unicodeScalars
        if fromRight {
            while let last = rest.last {
                if last.isPythonSpace { rest.removeLast(); continue }
                if result.count == most { return [String(rest)] + result }
                let start = rest.lastIndex(where: \.isPythonSpace).map { rest.index(after: $0) } ?? rest.startIndex
                result.insert(String(rest[start...]), at: 0)
                rest = rest[..<start]
            }
        } else {
            while let first = rest.first {
                if first.isPythonSpace { rest.removeFirst(); continue }
                if result.count == most { return result + [String(rest)] }
                let end = rest.firstIndex(where: \.isPythonSpace) ?? rest.endIndex
                result.append(String(rest[..<end]))
                rest = rest[end...]
            }
        }
        return result
    }

    /// Python's `splitlines`.
    func lines(keepingEnds: Bool = false) -> [String] {
        var result: [String] = []
        var line = String.UnicodeScalarView()
        var scalars = unicodeScalars.makeIterator()
        var pending = scalars.next()
        while let scalar = pending {
            pending = scalars.next()
            guard scalar.endsLine else { line.append(scalar); continue }
            if keepingEnds { line.append(scalar) }
            if scalar == "\r", pending == "\n" {
                if keepingEnds { line.append("\n") }
                pending = scalars.next()
            }
            result.append(String(line))
            line = .init()
        }
        return line.isEmpty ? result : result + [String(line)]
    }

    /// Python's `replace`.
    func replacing(_ old: String, by new: String, most: Int = -1) -> String {
        if old.isEmpty {
            var out = ""
            var left = most
            for scalar in unicodeScalars {
                if left != 0 { out += new; left -= 1 }
                out.unicodeScalars.append(scalar)
            }
            return left != 0 ? out + new : out
        }
        return pieces(at: old, most: most).joined(separator: new)
    }

    var pythonCapitalized: String {
        guard let first = unicodeScalars.first else { return self }
        return first.properties.titlecaseMapping + String(unicodeScalars.dropFirst()).lowercased()
    }

    /// Python's `title`: every run of letters begins with a capital.
    var pythonTitle: String {
        var out = ""
        var isInside = false
        for scalar in unicodeScalars {
            out += isInside ? scalar.properties.lowercaseMapping : scalar.properties.titlecaseMapping
            isInside = scalar.properties.isCased
        }
        return out
    }
}

extension Unicode.Scalar {
    /// Python's `str.isspace`.
    var isPythonSpace: Bool {
        switch value {
        case 0x09...0x0D, 0x1C...0x20, 0x85, 0xA0, 0x1680, 0x2000...0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000:
            true
        default: false
        }
    }

    fileprivate var endsLine: Bool {
        switch value {
        case 0x0A...0x0D, 0x1C...0x1E, 0x85, 0x2028, 0x2029: true
        default: false
        }
    }
}

extension [UInt8] {
    func firstPlace(of part: [UInt8], from start: Int = 0) -> Int? {
        guard !part.isEmpty else { return start <= count ? start : nil }
        guard start + part.count <= count else { return nil }
        return (start...(count - part.count)).first {
            self[$0] == part[0] && self[$0..<($0 + part.count)].elementsEqual(part)
        }
    }

    func lastPlace(of part: [UInt8], before end: Int) -> Int? {
        guard part.count <= end else { return nil }
        return (0...(end - part.count)).last { self[$0..<($0 + part.count)].elementsEqual(part) }
    }
}
