import Foundation
import PEFTSupport

/// A small validator of JSON Schema, written apart from the compiler that it checks.
struct SchemaValidator {
    let root: JSON

    /// Why a value doesn't satisfy the schema; `nil` if it does.
    func problem(_ value: JSON) -> String? { problem(value, root, "$") }

    private func problem(_ value: JSON, _ schema: JSON, _ path: String) -> String? {
        if let isAllowed = schema.bool { return isAllowed ? nil : "\(path): nothing is allowed" }
        if let reference = schema["$ref"]?.string {
            var target: JSON? = root
            for part in reference.split(separator: "/").dropFirst() { target = target?[String(part)] }
            guard let target else { return "\(path): \(reference) leads nowhere" }
            if let found = problem(value, target, path) { return found }
        }
        if let list = schema["anyOf"]?.array ?? schema["oneOf"]?.array,
            list.allSatisfy({ problem(value, $0, path) != nil })
        {
            return "\(path): none of the alternatives"
        }
        for part in schema["allOf"]?.array ?? [] { if let found = problem(value, part, path) { return found } }
        if let constant = schema["const"], constant != value { return "\(path): not the constant" }
        if let list = schema["enum"]?.array, !list.contains(value) { return "\(path): not in the enumeration" }
        let types = schema["type"]?.string.map { [$0] } ?? schema["type"]?.array?.compactMap(\.string)
        if let types, !types.contains(where: { isOf($0, value) }) { return "\(path): not of \(types)" }
        switch value {
        case .string(let text): return string(text, schema, path)
        case .integer, .number: return number(value.double ?? .nan, schema, path)
        case .array(let elements): return array(elements, schema, path)
        case .object(let members): return object(members, schema, path)
        default: return nil
        }
    }

    private func isOf(_ type: String, _ value: JSON) -> Bool {
        switch value {
        case .null: type == "null"
        case .bool: type == "boolean"
        case .string: type == "string"
        case .array: type == "array"
        case .object: type == "object"
        case .integer: type == "integer" || type == "number"
        case .number: type == "number" || type == "integer" && value.int != nil
        }
    }

    private func string(_ text: String, _ schema: JSON, _ path: String) -> String? {
        let length = text.unicodeScalars.count
        if let least = schema["minLength"]?.int, length < least { return "\(path): shorter than \(least)" }
        if let most = schema["maxLength"]?.int, length > most { return "\(path): longer than \(most)" }
        if let pattern = schema["pattern"]?.string {
            let expression = try? NSRegularExpression(pattern: pattern)
            let range = NSRange(location: 0, length: text.utf16.count)
            if expression?.firstMatch(in: text, range: range) == nil { return "\(path): not \(pattern)" }
        }
        if schema["format"]?.string == "date" {
            let parts = text.split(separator: "-").compactMap { Int($0) }
            var calendar = Calendar(identifier: .gregorian)
            calendar.timeZone = .gmt
            let components =
                parts.count == 3 ? DateComponents(year: parts[0], month: parts[1], day: parts[2]) : .init()
            let isDate = text.utf8.count == 10 && components.isValidDate(in: calendar)
            if !isDate { return "\(path): no date" }
        }
        if schema["format"]?.string == "uuid", UUID(uuidString: text) == nil { return "\(path): no UUID" }
        return nil
    }

    private func number(_ value: Double, _ schema: JSON, _ path: String) -> String? {
        if let bound = schema["minimum"]?.double, value < bound { return "\(path): below \(bound)" }
        if let bound = schema["maximum"]?.double, value > bound { return "\(path): above \(bound)" }
        if let bound = schema["exclusiveMinimum"]?.double, value <= bound { return "\(path): not above \(bound)" }
        if let bound = schema["exclusiveMaximum"]?.double, value >= bound { return "\(path): not below \(bound)" }
        return nil
    }

    private func array(_ elements: [JSON], _ schema: JSON, _ path: String) -> String? {
        if let least = schema["minItems"]?.int, elements.count < least { return "\(path): fewer than \(least)" }
        if let most = schema["maxItems"]?.int, elements.count > most { return "\(path): more than \(most)" }
        let prefix = schema["prefixItems"]?.array ?? []
        for (index, element) in elements.enumerated() {
            let part = index < prefix.count ? prefix[index] : schema["items"] ?? true
            if let found = problem(element, part, "\(path)[\(index)]") { return found }
        }
        return nil
    }

    private func object(_ members: [String: JSON], _ schema: JSON, _ path: String) -> String? {
        for name in schema["required"]?.array ?? [] where members[name.string ?? ""] == nil {
            return "\(path): without \(name.string ?? "")"
        }
        for (name, value) in members {
            let part = schema["properties"]?[name] ?? schema["additionalProperties"] ?? true
            if let found = problem(value, part, "\(path).\(name)") { return found }
        }
        return nil
    }
}
