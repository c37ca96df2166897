/// Methods of `str`.
enum TextMethods {
    typealias Body = (Arguments) throws -> JinjaValue

    static func method(_ name: String, _ text: String) throws -> Body? {
        switch name {
        case "strip", "lstrip", "rstrip":
            return { arguments in
                let set = try arguments.bound(name, ["chars"]).text(0, "the characters")
                return .string(text.stripped(set, left: name != "rstrip", right: name != "lstrip"))
            }
        case "split", "rsplit":
            return { arguments in
                let given = try arguments.bound(name, ["sep", "maxsplit"])
                let separator = try given.text(0, "the separator")
                guard separator != "" else { throw JinjaFailure("empty separator") }
                let most = try given.integer(1, "the number of splits") ?? -1
                return .list(text.pieces(at: separator, most: most, fromRight: name == "rsplit").map { .string($0) })
            }
        case "splitlines":
            return { arguments in
                let keeps = try arguments.bound(name, ["keepends"]).isTrue(0)
                return .list(text.lines(keepingEnds: keeps).map { .string($0) })
            }
        case "partition", "rpartition": return { .tuple(try parted(text, $0, name)) }
        case "startswith", "endswith": return { try begins(text, $0, name) }
        case "find", "rfind", "index", "rindex", "count": return { try found(text, $0, name) }
        case "replace":
            return { arguments in
                let given = try arguments.bound(name, ["old", "new", "count"], required: 2)
                let (old, new) = (try given.text(0, "the old text"), try given.text(1, "the new text"))
                guard let old, let new else { throw JinjaFailure("replace() argument must be str, not NoneType") }
                return .string(text.replacing(old, by: new, most: try given.integer(2, "the count") ?? -1))
            }
        case "join":
            return { arguments in
                let values = try (arguments.bound(name, ["iterable"], required: 1)[0] ?? .none).iterated()
                let parts = try values.enumerated().map { index, value in
                    guard let part = value.text else {
                        throw JinjaFailure("sequence item \(index): expected str instance, \(value.typeName) found")
                    }
                    return part
                }
                return .string(parts.joined(separator: text))
            }
        case "removeprefix", "removesuffix":
            return { arguments in
                let part = try arguments.bound(name, ["part"], required: 1).text(0, "the part") ?? ""
                if name == "removeprefix" {
                    return .string(
                        text.hasBytes(atStart: part) ? String(bytes: text.utf8.dropFirst(part.utf8.count)) : text)
                }
                let isCut = !part.isEmpty && text.hasBytes(atEnd: part)
                return .string(isCut ? String(bytes: text.utf8.dropLast(part.utf8.count)) : text)
            }
        case "center", "ljust", "rjust", "zfill": return { try filled(text, $0, name) }
        case "upper": return plain(name) { .string(text.uppercased()) }
        case "lower": return plain(name) { .string(text.lowercased()) }
        case "title": return plain(name) { .string(text.pythonTitle) }
        case "capitalize": return plain(name) { .string(text.pythonCapitalized) }
        case "isspace": return every(name, text, \.isPythonSpace)
        case "isalpha": return every(name, text) { $0.properties.generalCategory.isLetter }
        case "isdigit": return every(name, text) { [.decimal, .digit].contains($0.properties.numericType) }
        case "isdecimal": return every(name, text) { $0.properties.numericType == .decimal }
        case "isnumeric": return every(name, text) { $0.properties.numericType != nil }
        case "isalnum":
            return every(name, text) { $0.properties.generalCategory.isLetter || $0.properties.numericType != nil }
        case "isascii": return plain(name) { .boolean(text.utf8.allSatisfy { $0 < 0x80 }) }
        case "islower", "isupper":
            return { arguments in
                .boolean(try Tests.all[String(name.dropFirst(2))]?(.string(text), arguments) ?? false)
            }
        case "format", "format_map", "encode", "translate", "swapcase", "casefold", "expandtabs", "isidentifier",
            "isprintable", "istitle", "maketrans":
            throw JinjaFailure("the method '\(name)' of strings is not supported")
        default: return nil
        }
    }

    private static func plain(_ name: String, _ body: @escaping () -> JinjaValue) -> Body {
        { arguments in
            _ = try arguments.bound(name, [])
            return body()
        }
    }

    private static func every(_ name: String, _ text: String, _ holds: @escaping (Unicode.Scalar) -> Bool) -> Body {
        plain(name) { .boolean(!text.isEmpty && text.unicodeScalars.allSatisfy(holds)) }
    }

    private static func parted(_ text: String, _ arguments: Arguments, _ name: String) throws -> [JinjaValue] {
        let separator = try arguments.bound(name, ["sep"], required: 1).text(0, "the separator") ?? ""
        guard !separator.isEmpty else { throw JinjaFailure("empty separator") }
        let isRight = name == "rpartition"
        let parts = text.pieces(at: separator, most: 1, fromRight: isRight)
        if parts.count == 2 { return [.string(parts[0]), .string(separator), .string(parts[1])] }
        return isRight ? [.string(""), .string(""), .string(text)] : [.string(text), .string(""), .string("")]
    }

    /// The part of a string between two positions, as in a slice.
    private static func window(
        _ text: String, _ start: Int?, _ end: Int?
    ) -> (scalars: ArraySlice<Unicode.Scalar>, isInside: Bool) {
        let scalars = Array(text.unicodeScalars)
        func bound(_ value: Int) -> Int { value < 0 ? max(0, value + scalars.count) : value }
        let (first, last) = (bound(start ?? 0), min(scalars.count, bound(end ?? scalars.count)))
        guard first <= last else { return ([], false) }
        return (scalars[first..<last], true)
    }

    private static func begins(_ text: String, _ arguments: Arguments, _ name: String) throws -> JinjaValue {
        let given = try arguments.bound(name, ["part", "start", "end"], required: 1)
        let parts: [JinjaValue]
        if case .tuple(let several)? = given[0] { parts = several } else { parts = [given[0] ?? .none] }
        let (scalars, isInside) = window(text, try given.integer(1, "the start"), try given.integer(2, "the end"))
        return .boolean(
            try parts.contains { part in
                let part = Array(try part.text(of: "\(name)'s first argument").unicodeScalars)
                guard isInside else { return false }
                return name == "startswith"
                    ? scalars.starts(with: part) : scalars.suffix(part.count).elementsEqual(part)
            })
    }

    private static func found(_ text: String, _ arguments: Arguments, _ name: String) throws -> JinjaValue {
        let given = try arguments.bound(name, ["part", "start", "end"], required: 1)
        let part = Array(try (given[0] ?? .none).text(of: "\(name)'s first argument").unicodeScalars)
        let (scalars, isInside) = window(text, try given.integer(1, "the start"), try given.integer(2, "the end"))
        var places: [Int] = []
        if isInside, scalars.count >= part.count {
            var place = scalars.startIndex
            while place + part.count <= scalars.endIndex {
                let isHere = scalars[place..<(place + part.count)].elementsEqual(part)
                if isHere {
                    places.append(place)
                    if ["find", "index"].contains(name) { break }
                }
                // `count` counts non-overlapping occurrences.
                place += isHere && name == "count" ? max(1, part.count) : 1
            }
        }
        if name == "count" { return .integer(places.count) }
        let place = name.hasPrefix("r") ? places.last : places.first
        guard place != nil || name.hasSuffix("find") else { throw JinjaFailure("substring not found") }
        return .integer(place ?? -1)
    }

    private static func filled(_ text: String, _ arguments: Arguments, _ name: String) throws -> JinjaValue {
        if name == "zfill" {
            let width = try arguments.bound(name, ["width"], required: 1).integer(0, "the width") ?? 0
            let sign = text.hasPrefix("-") || text.hasPrefix("+") ? String(text.prefix(1)) : ""
            let rest = String(text.dropFirst(sign.count))
            return .string(sign + (try Methods.padded(rest, width - sign.count, "0", .right)))
        }
        let given = try arguments.bound(name, ["width", "fillchar"], required: 1)
        let alignment: Methods.Alignment = name == "center" ? .center : name == "ljust" ? .left : .right
        return .string(
            try Methods.padded(
                text, try given.integer(0, "the width") ?? 0, try given.text(1, "the filling") ?? " ", alignment))
    }
}

extension Unicode.GeneralCategory {
    fileprivate var isLetter: Bool {
        switch self {
        case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: true
        default: false
        }
    }
}
