import Foundation
import PEFTSupport

/// Compiles a JSON Schema to a ``Grammar`` whose texts satisfy it.
///
/// Members come in the order of `properties`, and undeclared ones after them. Without `additionalProperties`, an object
/// with `properties` has no others. `oneOf` is read as `anyOf`. Keywords that are not supported are rejected by name.
struct JSONSchemaCompiler {
    private typealias Alternative = GrammarBuilder.Alternative
    private typealias Keywords = JSONSchemaDocument.Keywords

    private var document: JSONSchemaDocument
    private var builder = GrammarBuilder()
    private var references: [String: Grammar.ValueID] = [:]
    /// The automata of patterns.
    private var automata: [String: ScalarAutomaton?] = [:]
    /// Remaining steps of the compilation of all patterns.
    private var patternBudget = 3_000_000

    private static let longest = 1_000_000_000

    /// Any JSON value, or any object.
    static func grammar(objectsOnly: Bool) throws -> Grammar {
        let schema = OrderedJSON.object(
            objectsOnly ? [.init("type", .scalar("object"))] : [])
        return try grammar(schema)
    }

    /// - Throws: ``PEFTError`` naming a keyword that isn't supported, and for a schema that no text satisfies.
    static func grammar(_ schema: OrderedJSON) throws -> Grammar {
        var compiler = JSONSchemaCompiler(document: JSONSchemaDocument(schema))
        let root = try compiler.value(schema, "schema")
        return try compiler.builder.finished(root: root)
    }

    private init(document: JSONSchemaDocument) { self.document = document }

    // MARK: Schemas

    private mutating func value(_ schema: OrderedJSON, _ path: String) throws -> Grammar.ValueID {
        if schema.scalar == true { return try builder.anyValue() }
        if schema.scalar == false { return builder.value([]) }
        return try value(document.keywords(schema, path), path)
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
        if fields["allOf"] != nil { return try value(document.merged(keywords, path), path) }
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
                let own = try document.keywords(member, place)
                return .value(try value(JSONSchemaDocument.combined(own, [("type", type)], place), place))
            }
            return builder.value(parts)
        }
        let allowed = try fields["type"].map { try document.types($0, path) }
        for name in ["const", "enum"] {
            guard let content = fields[name] else { continue }
            try requireAlone(name, besides: ["type"])
            guard let values = name == "const" ? [content] : content.elements else {
                throw PEFTError("\(path).enum is no list", remedy: "use a list of values")
            }
            return try constants(values.filter { value in allowed?.contains { Self.isOf($0, value) } ?? true }, path)
        }
        let kinds: [(String, Set<String>)] = [
            ("object", JSONSchemaDocument.objectKeywords), ("array", JSONSchemaDocument.arrayKeywords),
            ("string", JSONSchemaDocument.stringKeywords),
            ("number", JSONSchemaDocument.numberKeywords),
        ]
        let inferred = kinds.filter { kind in keywords.contains { kind.1.contains($0.name) } }.map(\.0)
        guard let list = allowed ?? (inferred.isEmpty ? nil : inferred) else { return try builder.anyValue() }
        return builder.value(try list.map { try node(type: $0, fields, path) })
    }

    private mutating func reference(_ json: OrderedJSON, _ path: String) throws -> Grammar.ValueID {
        let (pointer, target) = try document.resolved(json, path)
        if let known = references[pointer] { return known }
        let id = builder.value([])
        references[pointer] = id
        builder.define(id, as: [.value(try value(target, pointer))])
        return id
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
                    scalars.append(GrammarBuilder.quoted(text))
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
                parts.append(try builder.node(.array(rule)))
            case .object(let members):
                parts.append(
                    try builder.object(
                        members.map { ($0.name, try constants([$0.value], path), true) }, additional: nil))
            }
        }
        if !scalars.isEmpty { parts.append(try builder.literals(scalars)) }
        return builder.value(parts)
    }

    // MARK: Types

    private mutating func node(type: String, _ fields: [String: OrderedJSON], _ path: String) throws -> Alternative {
        switch type {
        case "object": return try object(fields, path)
        case "array": return try array(fields, path)
        case "string": return try string(fields, path)
        case "number", "integer": return try number(fields, path, isInteger: type == "integer")
        case "boolean": return try builder.literals(["true", "false"].map { Array($0.utf8) })
        default: return try builder.literals([Array("null".utf8)])
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
            case nil: fields["properties"] == nil ? try builder.anyValue() : nil
            case .scalar(false): nil
            case let schema?: try value(schema, "\(path).additionalProperties")
            }
        let declared = Set(properties.map(\.name))
        var added: Set<String> = []
        for name in required where !declared.contains(name) && added.insert(name).inserted {
            // Without additionalProperties the schema allows it, whatever its value.
            guard let value = try additional ?? (fields["additionalProperties"] == nil ? builder.anyValue() : nil)
            else {
                throw PEFTError(
                    "\(path): the required property '\(name)' is not allowed", remedy: "add it to 'properties'")
            }
            properties.append((name, value, true))
        }
        return try builder.object(properties, additional: additional)
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
        case nil: rule.items = try builder.anyValue()
        case .array:
            throw PEFTError("\(path): a list as 'items' is not supported", remedy: "use 'prefixItems'")
        case .scalar(false): rule.items = nil
        case let schema?: rule.items = try value(schema, "\(path)[]")
        }
        rule.least = try count("minItems", fields, path) ?? 0
        rule.most = try count("maxItems", fields, path)
        return try builder.node(.array(rule))
    }

    private mutating func string(_ fields: [String: OrderedJSON], _ path: String) throws -> Alternative {
        var rule = Grammar.StringRule()
        rule.least = try count("minLength", fields, path) ?? 0
        rule.most = try count("maxLength", fields, path)
        guard fields["pattern"] != nil || fields["format"] != nil else {
            guard rule.least <= rule.most ?? .max else { return .value(builder.value([])) }
            return try builder.node(.string(rule))
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
            else { return .value(builder.value([])) }
            return try builder.node(.string(.init(automaton: automaton)))
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
        guard isBounded else { return try builder.node(.number) }
        guard low <= high else { return .value(builder.value([])) }
        return try builder.node(.range(NumberRange(low: low, high: high, digits: digits)))
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
}
