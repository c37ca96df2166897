import Foundation
import PEFTSupport

/// Compiles a JSON Schema to a ``Grammar`` whose texts satisfy it.
///
/// Members come in the order of `properties`, and undeclared ones after them. Without `additionalProperties`, an object
/// with `properties` has no others. `oneOf` is read as `anyOf`. Keywords that are not supported are rejected by name.
struct JSONSchemaCompiler {
    /// Place in a grammar under construction: a node, or all alternatives of another value.
    private enum Alternative {
        case node(Grammar.NodeID)
        case value(Grammar.ValueID)
    }

    private let document: OrderedJSON
    private var grammar = Grammar()
    private var alternatives: [[Alternative]] = []
    /// The texts of nodes of literals.
    private var texts: [Grammar.NodeID: [[UInt8]]] = [:]
    private var references: [String: Grammar.ValueID] = [:]
    private var anything: Grammar.ValueID?
    /// The automata of patterns.
    private var automata: [String: ScalarAutomaton?] = [:]
    /// Remaining steps of the compilation of all patterns.
    private var patternBudget = 3_000_000
    /// Remaining parts of `allOf`. References may multiply them at each level.
    private var mergeBudget = 2_000

    private static let mostNodes = 20_000
    private static let mostAlternatives = 128
    private static let mostAmbiguous = 1_000
    private static let longest = 1_000_000_000

    /// Any JSON value, or any object.
    static func grammar(objectsOnly: Bool) throws -> Grammar {
        let schema = OrderedJSON.object(
            objectsOnly ? [.init("type", .scalar("object"))] : [])
        return try grammar(schema)
    }

    /// - Throws: ``PEFTError`` naming a keyword that isn't supported, and for a schema that no text satisfies.
    static func grammar(_ schema: OrderedJSON) throws -> Grammar {
        var compiler = JSONSchemaCompiler(document: schema)
        compiler.grammar.root = try compiler.value(schema, "schema")
        return try compiler.finished()
    }

    private init(document: OrderedJSON) { self.document = document }

    // MARK: Nodes

    private mutating func node(_ node: Grammar.Node) throws -> Alternative {
        guard grammar.nodes.count < Self.mostNodes else {
            throw PEFTError("the schema has more than \(Self.mostNodes) values", remedy: "use a smaller schema")
        }
        grammar.nodes.append(node)
        return .node(grammar.nodes.count - 1)
    }

    private mutating func literals(_ list: [[UInt8]]) throws -> Alternative {
        var strings = ByteStrings()
        for (index, text) in list.enumerated() { strings.insert(text, index: index) }
        let result = try node(.literals(strings))
        if case .node(let id) = result { texts[id] = list }
        return result
    }

    private mutating func value(_ list: [Alternative]) -> Grammar.ValueID {
        alternatives.append(list)
        return alternatives.count - 1
    }

    private mutating func anyValue() throws -> Grammar.ValueID {
        if let anything { return anything }
        let id = value([])
        anything = id
        var array = Grammar.ArrayRule()
        array.items = id
        alternatives[id] = [
            try object([], additional: id), try node(.array(array)), try node(.string(Grammar.StringRule())),
            try node(.number), try literals(["true", "false", "null"].map { Array($0.utf8) }),
        ]
        return id
    }

    private mutating func object(
        _ properties: [(name: String, value: Grammar.ValueID, isRequired: Bool)], additional: Grammar.ValueID?
    ) throws -> Alternative {
        var rule = Grammar.ObjectRule()
        rule.additional = additional
        for (index, property) in properties.enumerated() {
            rule.properties.append(.init(value: property.value, isRequired: property.isRequired))
            rule.names.insert(Self.quoted(property.name).dropFirst(), index: index)
        }
        return try node(.object(rule))
    }

    private static func quoted(_ text: String) -> [UInt8] {
        var quoted = ""
        JSON.quote(text, into: &quoted)
        return Array(quoted.utf8)
    }

    // MARK: Schemas

    /// Keywords that restrict nothing.
    private static let annotations: Set<String> = [
        "title", "description", "default", "examples", "$schema", "$id", "$comment", "$defs", "definitions",
        "deprecated", "readOnly", "writeOnly",
    ]
    private static let objectKeywords: Set<String> = ["properties", "required", "additionalProperties"]
    private static let arrayKeywords: Set<String> = ["items", "prefixItems", "minItems", "maxItems", "uniqueItems"]
    private static let stringKeywords: Set<String> = ["minLength", "maxLength", "pattern", "format"]
    private static let numberKeywords: Set<String> = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]
    private static let otherKeywords: Set<String> = ["type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"]
    private static let types = ["object", "array", "string", "number", "integer", "boolean", "null"]

    /// A schema's keywords by name, without annotations.
    private typealias Keywords = [(name: String, value: OrderedJSON)]

    private func keywords(_ schema: OrderedJSON, _ path: String) throws -> Keywords {
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

    private mutating func value(_ schema: OrderedJSON, _ path: String) throws -> Grammar.ValueID {
        if schema.scalar == true { return try anyValue() }
        if schema.scalar == false { return value([]) }
        return try value(keywords(schema, path), path)
    }

    private mutating func value(_ keywords: Keywords, _ path: String) throws -> Grammar.ValueID {
        let fields = Dictionary(keywords.map { ($0.name, $0.value) }, uniquingKeysWith: { $1 })
        func requireAlone(_ name: String, besides others: Set<String> = []) throws {
            guard let other = keywords.first(where: { $0.name != name && !others.contains($0.name) }) else { return }
            throw PEFTError(
                "\(path): '\(name)' beside '\(other.name)' is not supported", remedy: "move '\(other.name)' into it")
        }
        if let reference = fields["$ref"] {
            try requireAlone("$ref")
            return try self.reference(reference, path)
        }
        if fields["allOf"] != nil { return try value(merged(keywords, path, depth: 0), path) }
        for name in ["anyOf", "oneOf"] {
            guard let list = fields[name] else { continue }
            try requireAlone(name, besides: ["type"])
            guard let members = list.elements, !members.isEmpty else {
                throw PEFTError("\(path).\(name) is no list of schemas", remedy: "use a list with at least one")
            }
            let parts = try members.enumerated().map { index, member -> Alternative in
                let place = "\(path).\(name)[\(index)]"
                guard let type = fields["type"], member.members != nil else {
                    return .value(try value(member, place))
                }
                let own = try self.keywords(member, place)
                return .value(try value(Self.combined(own, [("type", type)], place), place))
            }
            return value(parts)
        }
        let allowed = try fields["type"].map { try types($0, path) }
        for name in ["const", "enum"] {
            guard let content = fields[name] else { continue }
            try requireAlone(name, besides: ["type"])
            guard let values = name == "const" ? [content] : content.elements else {
                throw PEFTError("\(path).enum is no list", remedy: "use a list of values")
            }
            return try constants(values.filter { value in allowed?.contains { Self.isOf($0, value) } ?? true }, path)
        }
        let kinds: [(String, Set<String>)] = [
            ("object", Self.objectKeywords), ("array", Self.arrayKeywords), ("string", Self.stringKeywords),
            ("number", Self.numberKeywords),
        ]
        let inferred = kinds.filter { kind in keywords.contains { kind.1.contains($0.name) } }.map(\.0)
        guard let list = allowed ?? (inferred.isEmpty ? nil : inferred) else { return try anyValue() }
        return value(try list.map { try node(type: $0, fields, path) })
    }

    private func types(_ json: OrderedJSON, _ path: String) throws -> [String] {
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

    // MARK: References and combinations

    private mutating func reference(_ json: OrderedJSON, _ path: String) throws -> Grammar.ValueID {
        let (pointer, target) = try resolved(json, path)
        if let known = references[pointer] { return known }
        let id = value([])
        references[pointer] = id
        alternatives[id] = [.value(try value(target, pointer))]
        return id
    }

    private func resolved(_ json: OrderedJSON, _ path: String) throws -> (pointer: String, schema: OrderedJSON) {
        guard let pointer = json.scalar?.string, pointer == "#" || pointer.hasPrefix("#/") else {
            throw PEFTError(
                "\(path): the reference \(json.json.text(indent: nil)) is not supported",
                remedy: "refer to a place in the same schema, such as #/$defs/name")
        }
        var target = document
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
    private mutating func merged(_ keywords: Keywords, _ path: String, depth: Int) throws -> Keywords {
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
    private static func combined(_ a: Keywords, _ b: Keywords, _ path: String) throws -> Keywords {
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

    // MARK: Constants

    private static func isOf(_ type: String, _ value: OrderedJSON) -> Bool {
        switch value {
        case .object: type == "object"
        case .array: type == "array"
        case .scalar(.null): type == "null"
        case .scalar(.bool): type == "boolean"
        case .scalar(.string): type == "string"
        case .scalar(let number): type == "number" || type == "integer" && number.int != nil
        }
    }

    private mutating func constants(_ values: [OrderedJSON], _ path: String) throws -> Grammar.ValueID {
        var scalars: [[UInt8]] = []
        var parts: [Alternative] = []
        for constant in values {
            switch constant {
            case .scalar(let json):
                if case .string(let text) = json {
                    scalars.append(Self.quoted(text))
                    continue
                }
                if case .number(let number) = json, abs(number) >= 0x1p53 {
                    throw PEFTError("\(path): the number \(number) is too large", remedy: "use a smaller one")
                }
                scalars.append(Array(json.text(indent: nil).utf8))
            case .array(let elements):
                var rule = Grammar.ArrayRule()
                rule.prefix = try elements.map { try constants([$0], path) }
                (rule.least, rule.most) = (elements.count, elements.count)
                parts.append(try node(.array(rule)))
            case .object(let members):
                parts.append(
                    try object(members.map { ($0.name, try constants([$0.value], path), true) }, additional: nil))
            }
        }
        if !scalars.isEmpty { parts.append(try literals(scalars)) }
        return value(parts)
    }

    // MARK: Types

    private mutating func node(type: String, _ fields: [String: OrderedJSON], _ path: String) throws -> Alternative {
        switch type {
        case "object": return try object(fields, path)
        case "array": return try array(fields, path)
        case "string": return try string(fields, path)
        case "number", "integer": return try number(fields, path, isInteger: type == "integer")
        case "boolean": return try literals(["true", "false"].map { Array($0.utf8) })
        default: return try literals([Array("null".utf8)])
        }
    }

    /// A count such as `minItems`.
    private func count(_ name: String, _ fields: [String: OrderedJSON], _ path: String) throws -> Int? {
        guard let value = fields[name] else { return nil }
        guard let count = value.scalar?.int, count >= 0 else {
            throw PEFTError(
                "\(path).\(name) is \(value.json.text(indent: nil))", remedy: "use an integer of at least 0")
        }
        return min(count, Self.longest)
    }

    private mutating func object(_ fields: [String: OrderedJSON], _ path: String) throws -> Alternative {
        var properties: [(name: String, value: Grammar.ValueID, isRequired: Bool)] = []
        let required = try (fields["required"]?.elements ?? []).map { name -> String in
            guard let name = name.scalar?.string else {
                throw PEFTError("\(path).required is no list of names", remedy: "use a list of strings")
            }
            return name
        }
        if let other = fields["required"], other.elements == nil {
            throw PEFTError("\(path).required is no list of names", remedy: "use a list of strings")
        }
        let names = Set(required)
        if let content = fields["properties"] {
            guard let members = content.members else {
                throw PEFTError("\(path).properties is no object", remedy: "use an object of schemas by name")
            }
            for member in members {
                properties.append(
                    (member.name, try value(member.value, "\(path).\(member.name)"), names.contains(member.name)))
            }
        }
        let additional: Grammar.ValueID? =
            switch fields["additionalProperties"] {
            case nil: fields["properties"] == nil ? try anyValue() : nil
            case .scalar(false): nil
            case let schema?: try value(schema, "\(path).additionalProperties")
            }
        let declared = Set(properties.map(\.name))
        var added: Set<String> = []
        for name in required where !declared.contains(name) && added.insert(name).inserted {
            // Without additionalProperties the schema allows it, whatever its value.
            guard let value = try additional ?? (fields["additionalProperties"] == nil ? anyValue() : nil) else {
                throw PEFTError(
                    "\(path): the required property '\(name)' is not allowed", remedy: "add it to 'properties'")
            }
            properties.append((name, value, true))
        }
        return try object(properties, additional: additional)
    }

    private mutating func array(_ fields: [String: OrderedJSON], _ path: String) throws -> Alternative {
        if let unique = fields["uniqueItems"], unique.scalar != false {
            throw PEFTError(
                "\(path): the keyword 'uniqueItems' is not supported", remedy: "remove it from the schema")
        }
        var rule = Grammar.ArrayRule()
        if let list = fields["prefixItems"] {
            guard let elements = list.elements else {
                throw PEFTError("\(path).prefixItems is no list", remedy: "use a list of schemas")
            }
            rule.prefix = try elements.enumerated().map { try value($1, "\(path).prefixItems[\($0)]") }
        }
        switch fields["items"] {
        case nil: rule.items = try anyValue()
        case .array:
            throw PEFTError("\(path): a list as 'items' is not supported", remedy: "use 'prefixItems'")
        case .scalar(false): rule.items = nil
        case let schema?: rule.items = try value(schema, "\(path)[]")
        }
        rule.least = try count("minItems", fields, path) ?? 0
        rule.most = try count("maxItems", fields, path)
        return try node(.array(rule))
    }

    private mutating func string(_ fields: [String: OrderedJSON], _ path: String) throws -> Alternative {
        var rule = Grammar.StringRule()
        rule.least = try count("minLength", fields, path) ?? 0
        rule.most = try count("maxLength", fields, path)
        guard fields["pattern"] != nil || fields["format"] != nil else {
            guard rule.least <= rule.most ?? .max else { return .value(value([])) }
            return try node(.string(rule))
        }
        guard fields["pattern"] == nil || fields["format"] == nil else {
            throw PEFTError("\(path): 'pattern' beside 'format' is not supported", remedy: "remove one of them")
        }
        let pattern: String
        if let format = fields["format"] {
            guard let name = format.scalar?.string, let known = StringFormat.patterns[name] else {
                throw PEFTError(
                    "\(path): the format \(format.json.text(indent: nil)) is not supported",
                    remedy: "use one of \(StringFormat.patterns.keys.sorted().joined(separator: ", "))")
            }
            pattern = known
        } else {
            guard let text = fields["pattern"]?.scalar?.string else {
                throw PEFTError("\(path).pattern is no string", remedy: "use a regular expression")
            }
            pattern = text
        }
        let expression: RegularExpression
        do { expression = try RegularExpression(pattern) } catch let error as PEFTError {
            throw PEFTError("\(path): \(error.problem)", remedy: error.remedy)
        }
        do {
            let known = automata[pattern]
            let all = try known ?? ScalarAutomaton(expression, budget: &patternBudget)
            if known == nil { automata.updateValue(all, forKey: pattern) }
            guard
                let automaton = try all?
                    .limited(least: rule.least, most: rule.most, limit: 20_000, budget: &patternBudget)
            else { return .value(value([])) }
            return try node(.string(.init(automaton: automaton)))
        } catch is ScalarAutomaton.Failure {
            throw PEFTError(
                "\(path): the pattern '\(pattern.prefix(80))' takes too many states",
                remedy: "use a simpler one, or shorter repetitions and lengths")
        }
    }

    // MARK: Numbers

    private mutating func number(
        _ fields: [String: OrderedJSON], _ path: String, isInteger: Bool
    ) throws -> Alternative {
        let digits = isInteger ? 0 : 6
        var (low, high) = (-NumberRange.largest, NumberRange.largest)
        var isBounded = isInteger
        for (name, isLow) in [
            ("minimum", true), ("exclusiveMinimum", true), ("maximum", false), ("exclusiveMaximum", false),
        ] {
            guard let json = fields[name] else { continue }
            isBounded = true
            let bound = try bound(json, digits, up: isLow, "\(path).\(name)")
            // Of an exclusive bound the number itself is out.
            let isExcluded = name.hasPrefix("exclusive") && bound.isExact
            if isLow {
                low = max(low, bound.value + (isExcluded ? 1 : 0))
            } else {
                high = min(high, bound.value - (isExcluded ? 1 : 0))
            }
        }
        guard isBounded else { return try node(.number) }
        guard low <= high else { return .value(value([])) }
        return try node(.range(NumberRange(low: low, high: high, digits: digits)))
    }

    /// A bound in units of the last digit, rounded into the range.
    private func bound(
        _ json: OrderedJSON, _ digits: Int, up: Bool, _ path: String
    ) throws -> (value: Int, isExact: Bool) {
        guard let scalar = json.scalar, scalar.double != nil,
            var exact = Decimal(string: scalar.text(indent: nil), locale: Locale(identifier: "en_US_POSIX"))
        else { throw PEFTError("\(path) is \(json.json.text(indent: nil))", remedy: "use a number") }
        exact *= Decimal(sign: .plus, exponent: digits, significand: 1)
        var rounded = Decimal()
        NSDecimalRound(&rounded, &exact, 0, up ? .up : .down)
        guard abs(rounded) <= Decimal(NumberRange.largest), let value = Int("\(rounded)") else {
            throw PEFTError(
                "\(path) is \(scalar.text(indent: nil))",
                remedy: "use a bound of at most \(18 - digits) digits before the point")
        }
        return (value, rounded == exact)
    }

    // MARK: -

    /// The grammar with flat alternatives, without what has no finite text.
    private mutating func finished() throws -> Grammar {
        try flatten()
        measure()
        for index in grammar.nodes.indices { prune(index) }
        let heights = grammar.nodeHeights
        grammar.values = grammar.values.map { $0.filter { heights[$0] <= Grammar.deepest } }
        guard grammar.valueHeights[grammar.root] <= Grammar.deepest else {
            throw PEFTError(
                "no JSON text of at most \(Grammar.deepest) nested values satisfies the schema",
                remedy:
                    "check for required properties that refer to the schema itself, and for bounds that exclude each other"
            )
        }
        try checkAmbiguity()
        return grammar
    }

    /// Arrays and objects that begin like another one of the same place, all of which an automaton may have to read at
    /// once.
    private func checkAmbiguity() throws {
        var nodes: Set<Grammar.NodeID> = []
        for list in grammar.values {
            let arrays = list.filter { if case .array = grammar.nodes[$0] { true } else { false } }
            let objects = list.filter { if case .object = grammar.nodes[$0] { true } else { false } }
            for alike in [arrays, objects] where alike.count > 1 { nodes.formUnion(alike) }
        }
        guard nodes.count <= Self.mostAmbiguous else {
            throw PEFTError(
                "more than \(Self.mostAmbiguous) arrays and objects of the schema are alternatives of another one",
                remedy: "use fewer schemas in 'anyOf'")
        }
    }

    private mutating func flatten() throws {
        var budget = 2_000_000
        var merged: [[Grammar.NodeID]: Grammar.NodeID] = [:]
        for start in alternatives.indices {
            var found: [Grammar.NodeID] = []
            var seenNodes: Set<Grammar.NodeID> = []
            var seen: Set<Grammar.ValueID> = [start]
            var open = [start]
            while let id = open.popLast() {
                for alternative in alternatives[id].reversed() {
                    budget -= 1
                    switch alternative {
                    case .node(let node): if seenNodes.insert(node).inserted { found.append(node) }
                    case .value(let other): if seen.insert(other).inserted { open.append(other) }
                    }
                }
            }
            // One node of all literals.
            let constants = found.filter { texts[$0] != nil }.sorted()
            if constants.count > 1 {
                found.removeAll { texts[$0] != nil }
                if merged[constants] == nil {
                    let all = constants.flatMap { texts[$0] ?? [] }
                    budget -= all.reduce(0) { $0 + $1.count }
                    if budget > 0, case .node(let id) = try literals(all) { merged[constants] = id }
                }
                if let id = merged[constants] { found.append(id) }
            }
            guard budget > 0, found.count <= Self.mostAlternatives else {
                throw PEFTError(
                    "the schema has too many alternatives in one place",
                    remedy: "use at most \(Self.mostAlternatives) in an 'anyOf'")
            }
            grammar.values.append(found.sorted())
        }
    }

    /// The least nesting of each node, from the innermost outward.
    private mutating func measure() {
        var nodes = [Int](repeating: Grammar.impossible, count: grammar.nodes.count)
        var values = [Int](repeating: Grammar.impossible, count: grammar.values.count)
        for _ in 0...(Grammar.deepest + 1) {
            for (index, list) in grammar.values.enumerated() {
                values[index] = list.map { nodes[$0] }.min() ?? Grammar.impossible
            }
            for (index, node) in grammar.nodes.enumerated() {
                switch node {
                case .literals, .number, .range, .string: nodes[index] = 0
                case .object(let rule):
                    let inner = rule.properties.filter(\.isRequired).map { values[$0.value] }.max() ?? 0
                    nodes[index] = min(Grammar.impossible, inner + 1)
                case .array(let rule):
                    var inner = rule.prefix.prefix(rule.least).map { values[$0] }.max() ?? 0
                    if rule.least > rule.prefix.count {
                        inner = max(inner, rule.items.map { values[$0] } ?? Grammar.impossible)
                    }
                    if let most = rule.most, most < rule.least { inner = Grammar.impossible }
                    nodes[index] = min(Grammar.impossible, inner + 1)
                }
            }
        }
        for (index, list) in grammar.values.enumerated() {
            values[index] = list.map { nodes[$0] }.min() ?? Grammar.impossible
        }
        (grammar.nodeHeights, grammar.valueHeights) = (nodes, values)
    }

    /// Removes parts without finite texts, and prepares the tables of objects.
    private mutating func prune(_ index: Int) {
        let heights = grammar.valueHeights
        switch grammar.nodes[index] {
        case .array(var rule):
            if let items = rule.items, heights[items] > Grammar.deepest { rule.items = nil }
            if let place = rule.prefix.firstIndex(where: { heights[$0] > Grammar.deepest }) {
                rule.most = min(rule.most ?? .max, place)
            }
            if rule.items == nil { rule.most = min(rule.most ?? .max, rule.prefix.count) }
            grammar.nodes[index] = .array(rule)
        case .object(var rule):
            if let value = rule.additional, heights[value] > Grammar.deepest { rule.additional = nil }
            let count = rule.properties.count
            rule.nextRequired = [Int](repeating: count, count: count + 1)
            for place in rule.properties.indices.reversed() {
                rule.nextRequired[place] =
                    rule.properties[place].isRequired ? place : rule.nextRequired[place + 1]
            }
            rule.candidates = rule.names.descendants
            grammar.nodes[index] = .object(rule)
        default: break
        }
    }
}

extension ByteStrings {
    /// The indices of the strings at and below each node, ascending.
    fileprivate var descendants: [[Int32]] {
        var result = [[Int32]](repeating: [], count: children.count)
        // A child has a larger number than its parent.
        for node in children.indices.reversed() {
            var all = children[node].flatMap { result[Int($0.node)] }
            if ends[node] >= 0 { all.append(ends[node]) }
            result[node] = all.sorted()
        }
        return result
    }
}

/// The values of `format` that are supported, as patterns.
enum StringFormat {
    static let patterns: [String: String] = [
        "date": "^\(date)$", "time": "^\(time)$", "date-time": "^\(date)T\(time)$",
        "uuid": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        "email": "^\(word)([._+-]\(word))*@\(label)(\\.\(label))+$",
        "ipv4": "^\(byte)(\\.\(byte)){3}$",
    ]

    private static let word = "[A-Za-z0-9]+"
    private static let label = "[A-Za-z0-9]+(-[A-Za-z0-9]+)*"
    private static let byte = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
    /// RFC 3339, with the days of each month and the leap years of the Gregorian calendar.
    private static let date =
        "((000[1-9]|00[1-9]\\d|0[1-9]\\d\\d|[1-9]\\d{3})-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])"
        + "|(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[0-8]))"
        + "|(\\d\\d(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)-02-29)"
    private static let time =
        "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)"
}
