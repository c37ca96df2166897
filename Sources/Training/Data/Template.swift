import PEFTSupport

/// Text with placeholders for a row's fields, such as `"Summarize.\n\n{dialogue}\n\nSummary: "`.
///
/// - `{field}` is replaced by the field's value; `{a.b}` by `b` of the object in `a`, unless a field is itself
///   named `a.b`.
/// - `{?field}…{/field}` is included only if the row has the field and it isn't empty.
/// - `{{` and `}}` stand for single braces.
/// - Nothing else is interpreted: a backslash is a backslash.
///
/// A string is inserted as is, a number or Boolean as JSON, an array of strings joined by
/// newlines.
package struct Template: Sendable, Hashable, CustomStringConvertible {
    /// The template as it was written.
    package let text: String
    /// The placeholders' names in order of first use, without those inside `{?field}…{/field}`.
    package let fields: [String]
    private let parts: [Part]

    private indirect enum Part: Sendable, Hashable {
        case literal(String)
        case field(String)
        /// Included only if the field isn't empty.
        case section(String, [Part])
    }

    /// A section that isn't closed yet, and the parts before it.
    private struct OpenSection {
        var name: String
        var start: String.Index
        var before: [Part]
    }

    /// Rendering recurses into sections, so their nesting is limited.
    private static let deepest = 100

    package var description: String { text }

    /// - Throws: ``PEFTError`` with the position (in characters, from 1) of an unbalanced brace or an empty
    ///   placeholder.
    package init(_ text: String) throws {
        func failure(_ problem: String, at index: String.Index) -> PEFTError {
            let position = text.distance(from: text.startIndex, to: index) + 1
            return PEFTError(
                "\(problem) at position \(position) of the template",
                remedy: "write {field} for a field's value and {{ or }} for a brace")
        }
        var parts: [Part] = []
        var fields: [String] = []
        var open: [OpenSection] = []
        var literal = ""
        var index = text.startIndex
        while index < text.endIndex {
            let character = text[index]
            let next = text.index(after: index)
            let isDoubled = next < text.endIndex && text[next] == character
            switch character {
            case "{" where isDoubled, "}" where isDoubled:
                literal.append(character)
                index = text.index(after: next)
            case "}":
                throw failure("unmatched '}'", at: index)
            case "{":
                // A name ends on its line, which distinguishes placeholders from the braces of code or JSON.
                guard let end = text[next...].firstIndex(where: { $0 == "}" || $0 == "{" || $0.isNewline }),
                    text[end] == "}"
                else { throw failure("unmatched '{'", at: index) }
                let name = String(text[next..<end])
                guard !name.allSatisfy(\.isWhitespace) else { throw failure("empty placeholder", at: index) }
                if !literal.isEmpty { parts.append(.literal(literal)) }
                literal = ""
                if name.count > 1, name.hasPrefix("?") {
                    guard open.count < Self.deepest else {
                        throw failure("sections are nested more than \(Self.deepest) levels deep", at: index)
                    }
                    open.append(OpenSection(name: String(name.dropFirst()), start: index, before: parts))
                    parts = []
                } else if name.count > 1, name.hasPrefix("/") {
                    guard let section = open.popLast(), section.name == name.dropFirst() else {
                        throw failure("'{\(name)}' without a matching '{?\(name.dropFirst())}'", at: index)
                    }
                    parts = section.before + [.section(section.name, parts)]
                } else {
                    parts.append(.field(name))
                    if open.isEmpty, !fields.contains(name) { fields.append(name) }
                }
                index = text.index(after: end)
            default:
                literal.append(character)
                index = next
            }
        }
        if let section = open.last {
            throw failure("'{?\(section.name)}' without a matching '{/\(section.name)}'", at: section.start)
        }
        if !literal.isEmpty { parts.append(.literal(literal)) }
        (self.text, self.fields, self.parts) = (text, fields, parts)
    }

    /// Renders the template with the values of `row`.
    /// - Throws: ``PEFTError`` naming the row's location, for an unknown field (with the row's fields and the
    ///   nearest name), a null, or a value that is not text.
    package func render(_ row: Row) throws -> String { try Template.render(parts, row) }

    private static func render(_ parts: [Part], _ row: Row) throws -> String {
        var out = ""
        for part in parts {
            switch part {
            case .literal(let text): out += text
            case .field(let name): out += try Template.text(of: name, in: row)
            case .section(let name, let parts): if isFilled(name, in: row) { out += try render(parts, row) }
            }
        }
        return out
    }

    private static func isFilled(_ field: String, in row: Row) -> Bool {
        switch try? value(of: field, in: row) {
        case nil, .null?: false
        case .string(let text)?: !text.allSatisfy(\.isWhitespace)
        case .array(let elements)?: !elements.isEmpty
        default: true
        }
    }

    /// A rendered text without the template's literal text before the first and after the last placeholder.
    package func withoutFrame(_ rendered: String) -> Substring {
        var text = rendered[...]
        if case .literal(let opening)? = parts.first, text.hasPrefix(opening) { text = text.dropFirst(opening.count) }
        if parts.count > 1, case .literal(let closing)? = parts.last, text.hasSuffix(closing) {
            text = text.dropLast(closing.count)
        }
        return text
    }

    /// Whether `row` can fill every placeholder, without building the text.
    /// - Throws: as ``render(_:)``.
    package func check(against row: Row) throws {
        for field in fields { _ = try Template.text(of: field, in: row) }
    }

    private static func text(of field: String, in row: Row) throws -> String {
        let value = try value(of: field, in: row)
        switch value {
        case .string(let text): return text
        case .integer, .number, .bool: return value.text()
        case .null:
            throw PEFTError("'\(field)' is null in \(row.location)", remedy: "fill it in or remove the row")
        case .array(let elements):
            let lines = elements.compactMap(\.string)
            guard lines.count == elements.count else {
                throw PEFTError(
                    "'\(field)' in \(row.location) is an array with values that are not strings",
                    remedy: "only an array of strings can be joined to text")
            }
            return lines.joined(separator: "\n")
        case .object(let object):
            let example = object.keys.min().map { "{\(field).\($0)}" } ?? "another field"
            throw PEFTError("'\(field)' in \(row.location) is an object", remedy: "use one of its fields: \(example)")
        }
    }

    private static func value(of field: String, in row: Row) throws -> JSON {
        if let value = row.fields[field] { return value }
        var object = row.fields
        var path: [Substring] = []
        for (position, key) in field.split(separator: ".", omittingEmptySubsequences: false).enumerated() {
            guard let value = object[String(key)] else {
                throw unknown(field, key: String(key), under: path, names: object.keys.sorted(), row)
            }
            path.append(key)
            if position == field.count(where: { $0 == "." }) { return value }
            guard case .object(let inner) = value else {
                throw PEFTError(
                    "'\(path.joined(separator: "."))' in \(row.location) is not an object",
                    remedy: "it has no field '\(field.dropFirst(path.joined(separator: ".").count + 1))'")
            }
            object = inner
        }
        throw unknown(field, key: field, under: [], names: row.fields.keys.sorted(), row)
    }

    private static func unknown(
        _ field: String, key: String, under path: [Substring], names: [String], _ row: Row
    ) -> PEFTError {
        let prefix = path.map { $0 + "." }.joined()
        let listed = names.map { prefix + $0 }
        let has = listed.isEmpty ? "it has none" : "it has \(listed.joined(separator: ", "))"
        // Without a nested match, the whole name may be close to a field with a dot in its name.
        let nearest = nearestName(to: prefix + key, in: listed) ?? nearestName(to: field, in: listed)
        let hint = nearest.map { " — did you mean {\($0)}?" } ?? ""
        return PEFTError("\(row.location) has no field '\(field)'", remedy: has + hint)
    }
}
