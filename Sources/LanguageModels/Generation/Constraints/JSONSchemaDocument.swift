import Foundation
import PEFTSupport

/// A JSON Schema as a document: the keywords of its places, what they refer to, and what holds with their `allOf`.
struct JSONSchemaDocument {
    /// A schema's keywords by name, without annotations.
    typealias Keywords = [(name: String, value: OrderedJSON)]

    private let root: OrderedJSON
    /// Remaining parts of `allOf`. References may multiply them at each level.
    private var mergeBudget = 2_000

    init(_ root: OrderedJSON) { self.root = root }

    /// Keywords that restrict nothing.
    private static let annotations: Set<String> = [
        "title", "description", "default", "examples", "$schema", "$id", "$comment", "$defs", "definitions",
        "deprecated", "readOnly", "writeOnly",
    ]
    static let objectKeywords: Set<String> = ["properties", "required", "additionalProperties"]
    static let arrayKeywords: Set<String> = ["items", "prefixItems", "minItems", "maxItems", "uniqueItems"]
    static let stringKeywords: Set<String> = ["minLength", "maxLength", "pattern", "format"]
    static let numberKeywords: Set<String> = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]
    private static let otherKeywords: Set<String> = ["type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"]
    private static let types = ["object", "array", "string", "number", "integer", "boolean", "null"]

    func keywords(_ schema: OrderedJSON, _ path: String) throws -> Keywords {
        guard let members = schema.members else {
            throw PEFTError("\(path) is no schema", remedy: "use an object, true or false")
        }
        let known = Self.objectKeywords.union(Self.arrayKeywords).union(Self.stringKeywords)
            .union(Self.numberKeywords).union(Self.otherKeywords)
        return try members.filter { !Self.annotations.contains($0.name) }.map { member in
            guard known.contains(member.name) else {
                throw PEFTError(
                    "\(path): the keyword '\(member.name)' is not supported", remedy: "remove it from the schema")
            }
            return (member.name, member.value)
        }
    }

    func types(_ json: OrderedJSON, _ path: String) throws -> [String] {
        let names = json.scalar?.string.map { [$0] } ?? (json.elements ?? []).compactMap { $0.scalar?.string }
        guard !names.isEmpty, names.count == json.elements?.count ?? 1 else {
            throw PEFTError("\(path).type is no type", remedy: "use a name such as string, or a list of names")
        }
        if let unknown = names.first(where: { !Self.types.contains($0) }) {
            throw PEFTError(
                "\(path): unknown type '\(unknown)'", remedy: "use one of \(Self.types.joined(separator: ", "))")
        }
        // Integers are numbers.
        return names.enumerated().filter { index, name in
            !names[..<index].contains(name) && !(name == "integer" && names.contains("number"))
        }.map(\.element)
    }

    func resolved(_ json: OrderedJSON, _ path: String) throws -> (pointer: String, schema: OrderedJSON) {
        guard let pointer = json.scalar?.string, pointer == "#" || pointer.hasPrefix("#/") else {
            throw PEFTError(
                "\(path): the reference \(json.json.text(indent: nil)) is not supported",
                remedy: "refer to a place in the same schema, such as #/$defs/name")
        }
        var target = root
        for part in pointer.split(separator: "/", omittingEmptySubsequences: false).dropFirst() {
            let name = (part.removingPercentEncoding ?? String(part)).replacingOccurrences(of: "~1", with: "/")
                .replacingOccurrences(of: "~0", with: "~")
            let next =
                target[name]
                ?? Int(name).flatMap { index in
                    target.elements.flatMap { $0.indices.contains(index) ? $0[index] : nil }
                }
            guard let next else {
                throw PEFTError(
                    "\(path): the reference '\(pointer)' leads nowhere", remedy: "define it, such as in $defs")
            }
            target = next
        }
        return (pointer, target)
    }

    /// The keywords of a schema together with those of its `allOf`.
    mutating func merged(_ keywords: Keywords, _ path: String, depth: Int = 0) throws -> Keywords {
        guard depth < 32 else {
            throw PEFTError("\(path): 'allOf' refers to itself", remedy: "remove the cycle")
        }
        var result = keywords.filter { $0.name != "allOf" }
        for (index, member) in (keywords.first { $0.name == "allOf" }?.value.elements ?? []).enumerated() {
            let place = "\(path).allOf[\(index)]"
            mergeBudget -= 1
            guard mergeBudget > 0 else {
                throw PEFTError("\(path): 'allOf' has too many parts", remedy: "merge them into one schema")
            }
            var part = try self.keywords(member, place)
            var steps = 0
            while part.count == 1, part[0].name == "$ref" {
                steps += 1
                guard steps < 32 else { throw PEFTError("\(place) refers to itself", remedy: "remove the cycle") }
                let target = try resolved(part[0].value, place)
                part = try self.keywords(target.schema, target.pointer)
            }
            if part.contains(where: { $0.name == "allOf" }) { part = try merged(part, place, depth: depth + 1) }
            result = try Self.combined(result, part, place)
        }
        return result
    }

    /// The keywords of two schemas that both hold.
    static func combined(_ a: Keywords, _ b: Keywords, _ path: String) throws -> Keywords {
        var result = a
        let bothHaveProperties = a.contains { $0.name == "properties" } && b.contains { $0.name == "properties" }
        for (name, value) in b {
            guard let index = result.firstIndex(where: { $0.name == name }) else {
                result.append((name, value))
                continue
            }
            let other = result[index].value
            if other == value, name != "additionalProperties" || !bothHaveProperties { continue }
            switch name {
            case "properties":
                var members = other.members ?? []
                var places = Dictionary(
                    members.enumerated().map { ($1.name, $0) }, uniquingKeysWith: { first, _ in first })
                for member in value.members ?? [] {
                    guard let known = places[member.name] else {
                        places[member.name] = members.count
                        members.append(member)
                        continue
                    }
                    guard members[known].value == member.value else {
                        throw PEFTError(
                            "\(path): the property '\(member.name)' has two schemas", remedy: "merge them into one")
                    }
                }
                result[index].value = .object(members)
            case "required":
                let names = other.elements ?? []
                let known = Set(names.compactMap { $0.scalar?.string })
                let added = (value.elements ?? []).filter { !($0.scalar?.string.map { known.contains($0) } ?? false) }
                result[index].value = .array(names + added)
            case "type":
                func names(_ json: OrderedJSON) -> [String] {
                    json.scalar?.string.map { [$0] } ?? (json.elements ?? []).compactMap { $0.scalar?.string }
                }
                let (left, right) = (names(other), names(value))
                let both = types.filter { name in
                    let isInteger = name == "integer"
                    return (left.contains(name) || isInteger && left.contains("number"))
                        && (right.contains(name) || isInteger && right.contains("number"))
                        && !(isInteger && left.contains("number") && right.contains("number"))
                }
                guard !both.isEmpty else {
                    throw PEFTError(
                        "\(path): the types exclude each other", remedy: "use types that have values in common")
                }
                result[index].value = .array(both.map { .scalar(.string($0)) })
            default:
                throw PEFTError("\(path): two values of '\(name)' are not supported", remedy: "merge them into one")
            }
        }
        // Each schema's additionalProperties means its own properties.
        if bothHaveProperties, let limit = (a + b).first(where: { $0.name == "additionalProperties" }),
            limit.value.scalar != true
        {
            throw PEFTError(
                "\(path): 'additionalProperties' in a part of 'allOf' is not supported",
                remedy: "merge the parts into one schema")
        }
        return result
    }
}
