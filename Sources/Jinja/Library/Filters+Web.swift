import Foundation

extension Filters {
    static let web: [String: Filter] = [
        "striptags": plain("striptags") { .string(try MarkupText.withoutTags(try $0.string())) },
        "urlencode": plain("urlencode") { value in
            func query(_ value: JinjaValue) throws -> String {
                quoted(try value.string(), keeping: "").replacingOccurrences(of: "%20", with: "+")
            }
            switch value {
            case .string, .markup, .none, .boolean, .integer, .number:
                return .string(quoted(try value.string(), keeping: "/"))
            case .function, .namespace: throw JinjaFailure("urlencode does not support a \(value.typeName)")
            default:
                let pairs =
                    try value.dictionary?.entries.map { [$0.key, $0.value] }
                    ?? value.iterated().map { try $0.iterated() }
                guard pairs.allSatisfy({ $0.count == 2 }) else { throw JinjaFailure("urlencode needs pairs") }
                return .string(try pairs.map { "\(try query($0[0]))=\(try query($0[1]))" }.joined(separator: "&"))
            }
        },
        "xmlattr": { _, value, arguments in
            let given = try arguments.bound("xmlattr", ["autospace"])
            guard let dictionary = value.dictionary else {
                if case .undefined(let reason) = value { throw JinjaFailure(reason) }
                throw JinjaFailure("'\(value.typeName)' object has no attribute 'items'")
            }
            var attributes: [String] = []
            for (key, value) in dictionary.entries where !value.isNone && !value.isUndefined {
                let name = try key.text(of: "an attribute's name")
                if name.unicodeScalars.contains(where: { $0.isPythonSpace || "/>=".unicodeScalars.contains($0) }) {
                    throw JinjaFailure("Invalid character in attribute name: \(JinjaValue.quoted(name))")
                }
                attributes.append("\(try escaped(key))=\"\(try escaped(value))\"")
            }
            let text = attributes.joined(separator: " ")
            return .string(given.isTrue(0, default: true) && !text.isEmpty ? " " + text : text)
        },
        "urlize": { _, value, arguments in
            let given = try arguments.bound(
                "urlize", ["trim_url_limit", "nofollow", "target", "rel", "extra_schemes"])
            var relations = Set((try given.text(3, "rel") ?? "").words())
            if given.isTrue(1) { relations.insert("nofollow") }
            relations.insert("noopener")
            var links = Links()
            links.limit = try given.integer(0, "the limit")
            links.relation = relations.sorted { $0.precedes($1) }.joined(separator: " ")
            links.target = try given.text(2, "the target")
            if let schemes = given[4], !schemes.isNone {
                links.schemes = try schemes.iterated().map { try $0.text(of: "a scheme") }
                for scheme in links.schemes where !Links.isScheme(scheme) {
                    throw JinjaFailure("\(JinjaValue.quoted(scheme)) is not a valid URI scheme prefix.")
                }
            }
            return .string(try links.text(escaped(value)))
        },
    ]

    private static func escaped(_ value: JinjaValue) throws -> String {
        if case .markup(let text) = value { return text }
        return Arithmetic.escaped(try value.string())
    }

    /// The text percent-encoded as a part of a URL, in UTF-8.
    private static func quoted(_ text: String, keeping safe: String) -> String {
        var out = ""
        for byte in text.utf8 {
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: out.unicodeScalars.append(Unicode.Scalar(byte))
            case _ where "_.-~".utf8.contains(byte) || safe.utf8.contains(byte):
                out.unicodeScalars.append(Unicode.Scalar(byte))
            default: out += String(format: "%%%02X", Int(byte))
            }
        }
        return out
    }
}

extension String {
    fileprivate func words() -> [String] {
        unicodeScalars.split(whereSeparator: \.isPythonSpace).map { String($0) }
    }
}

/// HTML as text.
enum MarkupText {
    /// MarkupSafe's `striptags`: removes tags and comments, collapses whitespace, decodes entities.
    static func withoutTags(_ text: String) throws -> String {
        let bytes = Array(text.utf8)
        var kept: [UInt8] = []
        var place = 0
        while let start = bytes.firstPlace(of: [UInt8(ascii: "<")], from: place) {
            let isComment = bytes[start...].starts(with: Array("<!--".utf8))
            let closing = Array((isComment ? "-->" : ">").utf8)
            guard let end = bytes.firstPlace(of: closing, from: isComment ? start + 4 : start) else { break }
            kept += bytes[place..<start]
            place = end + closing.count
        }
        return try withoutEntities(String(bytes: kept + bytes[place...]).words().joined(separator: " "))
    }

    /// The entities that HTML requires; of the thousands of others, each is an error.
    private static let entities = ["amp": "&", "lt": "<", "gt": ">", "quot": "\"", "apos": "'", "nbsp": "\u{A0}"]

    private static func withoutEntities(_ text: String) throws -> String {
        var out = ""
        var rest = Substring(text)
        while let sign = rest.firstIndex(of: "&") {
            out += rest[..<sign]
            rest = rest[rest.index(after: sign)...]
            let name = rest.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "#") }
            let isClosed = rest.dropFirst(name.count).first == ";"
            if name.first == "#" {
                let digits = name.dropFirst()
                let isHex = digits.first == "x" || digits.first == "X"
                let code = isHex ? UInt32(digits.dropFirst(), radix: 16) : UInt32(digits)
                guard let code, code >= 0xA0 || 0x20...0x7E ~= code || code == 0x0A || code == 0x09,
                    let scalar = Unicode.Scalar(code), isClosed
                else { throw JinjaFailure("the entity '&\(name)' is not supported") }
                out.unicodeScalars.append(scalar)
                rest = rest.dropFirst(name.count + 1)
            } else if isClosed, let character = entities[String(name)] {
                out += character
                rest = rest.dropFirst(name.count + 1)
            } else {
                guard !isClosed, !entities.keys.contains(where: { name.lowercased().hasPrefix($0) }) else {
                    throw JinjaFailure("the entity '&\(name)' is not supported")
                }
                out += "&"
            }
        }
        return out + rest
    }
}

/// Adds links to the addresses in a text, as Jinja's `urlize` finds them.
struct Links {
    /// Maximum characters shown of an address.
    var limit: Int?
    var relation = ""
    var target: String?
    /// Additional URI schemes, such as `tel:`.
    var schemes: [String] = []

    static func isScheme(_ text: String) -> Bool { matches(text, #"^[\w.+\-]{2,}:/{0,2}$"#) }

    private static let address: String = {
        let host = #"(https?://|www\.)(([\w%\-]+\.)+)?([a-z]{2,63}|xn--[\w%]{2,59})"#
        let bare = #"([\w%\-]{2,63}\.)+(com|net|int|edu|gov|org|info|mil)"#
        let number = #"https?://(\d{1,3}(\.\d{1,3}){3}|\[([\da-f]{0,4}:){2}([\da-f]{0,4}:?){1,6}\])"#
        return "^(\(host)|\(bare)|\(number))" + #"(:\d{1,5})?([/?#]\S*)?$"#
    }()
    private static let mail = #"^\S+@\w[\w.\-]*\.\w+$"#

    private static func matches(_ text: String, _ pattern: String) -> Bool {
        text.range(of: pattern, options: [.regularExpression, .caseInsensitive]) != nil
    }

    /// - Parameter text: HTML with its special characters escaped.
    func text(_ text: String) -> String {
        var out = ""
        var word = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            if scalar.isPythonSpace {
                out += linked(String(word))
                word = .init()
                out.unicodeScalars.append(scalar)
            } else {
                word.append(scalar)
            }
        }
        return out + linked(String(word))
    }

    private func linked(_ word: String) -> String {
        var middle = Substring(word)
        let head = Self.taken(&middle, ["(", "<", "&lt;"], atEnd: false)
        var tail = Substring(Self.taken(&middle, [")", ">", ".", ",", "&gt;"], atEnd: true))
        var inner = String(middle)
        // Closing brackets that balance one in the address are moved back to it.
        for (open, close) in [("(", ")"), ("<", ">"), ("&lt;", "&gt;")] {
            let (opened, closed) = (Self.count(open, in: inner), Self.count(close, in: inner))
            guard opened > closed else { continue }
            for _ in 0..<min(opened, Self.count(close, in: String(tail))) {
                guard let place = tail.range(of: close) else { break }
                inner += tail[..<place.upperBound]
                tail = tail[place.upperBound...]
            }
        }
        return head + link(inner) + tail
    }

    private func link(_ text: String) -> String {
        let attributes =
            (relation.isEmpty ? "" : " rel=\"\(Arithmetic.escaped(relation))\"")
            + (target.map { $0.isEmpty ? "" : " target=\"\(Arithmetic.escaped($0))\"" } ?? "")
        if Self.matches(text, Self.address) {
            let address = text.hasPrefix("https://") || text.hasPrefix("http://") ? text : "https://\(text)"
            var shown = text
            if let limit, text.unicodeScalars.count > limit {
                let end = limit < 0 ? max(0, text.unicodeScalars.count + limit) : limit
                shown = String(String.UnicodeScalarView(text.unicodeScalars.prefix(end))) + "..."
            }
            return "<a href=\"\(address)\"\(attributes)>\(shown)</a>"
        }
        if text.hasPrefix("mailto:"), Self.matches(String(text.dropFirst(7)), Self.mail) {
            return "<a href=\"\(text)\">\(text.dropFirst(7))</a>"
        }
        if text.contains("@"), !text.hasPrefix("www."), !text.hasPrefix("@"), !text.contains(":"),
            Self.matches(text, Self.mail)
        {
            return "<a href=\"mailto:\(text)\">\(text)</a>"
        }
        var result = text
        for scheme in schemes where result != scheme && result.hasPrefix(scheme) {
            result = "<a href=\"\(result)\"\(attributes)>\(result)</a>"
        }
        return result
    }

    /// Strips as many of the parts as there are from one end of a text.
    private static func taken(_ text: inout Substring, _ parts: [String], atEnd: Bool) -> String {
        var result = ""
        while let part = parts.first(where: { atEnd ? text.hasSuffix($0) : text.hasPrefix($0) }) {
            if atEnd { text.removeLast(part.count) } else { text.removeFirst(part.count) }
            result = atEnd ? part + result : result + part
        }
        return result
    }

    private static func count(_ part: String, in text: String) -> Int { text.components(separatedBy: part).count - 1 }
}
