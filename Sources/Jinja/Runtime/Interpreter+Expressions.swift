extension Interpreter {
    func evaluate(_ expression: Expression) throws -> JinjaValue {
        at(expression.line)
        try spend(0)
        switch expression.kind {
        case .none: return .none
        case .boolean(let value): return .boolean(value)
        case .integer(let value): return .integer(value)
        case .number(let value): return .number(value)
        case .string(let text): return .string(text)
        case .name(let name): return value(of: name)
        case .list(let values): return try shallow(.list(try values.map { try evaluate($0) }))
        case .tuple(let values): return try shallow(.tuple(try values.map { try evaluate($0) }))
        case .dictionary(let pairs):
            var dictionary = JinjaDictionary()
            for (key, value) in pairs { try dictionary.set(try evaluate(key), to: try evaluate(value)) }
            return try shallow(.dictionary(dictionary))
        case .attribute(let object, let name): return try attribute(name, of: try evaluate(object))
        case .item(let object, let index): return try item(try evaluate(index), of: try evaluate(object))
        case .slice(let object, let start, let stop, let step):
            let value = try evaluate(object)
            func bound(_ part: Expression?) throws -> Int? {
                guard let part else { return nil }
                let value = try evaluate(part)
                return value.isNone ? nil : try value.integer(of: "a slice's bound")
            }
            return try slice(value, try bound(start), try bound(stop), try bound(step))
        case .call(let function, let arguments):
            let (callee, values) = (try evaluate(function), try evaluate(arguments))
            at(expression.line)
            return try call(callee, values)
        case .filter(let value, let name, let arguments):
            guard let value else { return .none }
            let (input, values) = (try evaluate(value), try evaluate(arguments))
            at(expression.line)
            return try filter(name, input, values)
        case .test(let value, let name, let arguments):
            return .boolean(try test(name, try evaluate(value), try evaluate(arguments)))
        case .not(let value): return .boolean(try !evaluate(value).isTrue)
        case .negative(let value): return try Arithmetic.negative(try evaluate(value))
        case .positive(let value): return try Arithmetic.positive(try evaluate(value))
        case .arithmetic(let left, let sign, let right):
            let (a, b) = (try evaluate(left), try evaluate(right))
            at(expression.line)
            let result = try Arithmetic.result(a, sign, b)
            try spend(size(of: result))
            return result
        case .concatenation(let parts):
            let text = try parts.map { try evaluate($0).string() }.joined()
            try spend(text.utf8.count / 16)
            guard text.utf8.count <= JinjaLimits.text else { throw JinjaFailure("a string is too long") }
            return .string(text)
        case .comparison(let first, let rest):
            var left = try evaluate(first)
            for (sign, operand) in rest {
                let right = try evaluate(operand)
                guard try compare(left, sign, right) else { return .boolean(false) }
                left = right
            }
            return .boolean(true)
        case .and(let left, let right):
            let value = try evaluate(left)
            return value.isTrue ? try evaluate(right) : value
        case .or(let left, let right):
            let value = try evaluate(left)
            return value.isTrue ? value : try evaluate(right)
        case .conditional(let test, let then, let otherwise):
            if try evaluate(test).isTrue { return try evaluate(then) }
            return try otherwise.map { try evaluate($0) }
                ?? .undefined("the inline if-expression is false and has no 'else'")
        }
    }

    /// Rejects lists that are nested too deeply.
    func shallow(_ value: JinjaValue) throws -> JinjaValue {
        guard value.depth() <= JinjaLimits.depth else {
            throw JinjaFailure("a value is nested more than \(JinjaLimits.depth) levels deep")
        }
        try spend(size(of: value))
        return value
    }

    private func size(of value: JinjaValue) -> Int {
        switch value {
        case .string(let text), .markup(let text): text.utf8.count / 16
        case .list(let values), .tuple(let values): values.count
        default: 0
        }
    }

    private func compare(_ left: JinjaValue, _ sign: String, _ right: JinjaValue) throws -> Bool {
        switch sign {
        case "==": return left.isEqual(to: right)
        case "!=": return !left.isEqual(to: right)
        case "<": return try left.isLess(than: right)
        case ">": return try right.isLess(than: left, sign: ">")
        case "in": return try right.contains(left)
        case "not in": return try !right.contains(left)
        default:
            // NaN is neither less nor equal.
            let isLess =
                try sign == "<=" ? left.isLess(than: right, sign: sign) : right.isLess(than: left, sign: sign)
            return isLess || left.isEqual(to: right)
        }
    }

    // MARK: Attributes and items

    /// `object.name`: Python's attribute, otherwise the item of that name.
    func attribute(_ name: String, of object: JinjaValue) throws -> JinjaValue {
        switch object {
        case .undefined(let reason): throw JinjaFailure(reason)
        case .namespace(let namespace): return namespace.attributes[name] ?? missing(name, object)
        case .loop(let loop): return loop.attribute(name)
        default: break
        }
        if let method = try Methods.method(name, of: object) { return method }
        if case .dictionary(let dictionary) = object, let value = dictionary[name] { return value }
        if let part = Filters.part(name, ofGroup: object) { return part }
        return missing(name, object)
    }

    /// `object[index]`: the item, otherwise the attribute of that name.
    func item(_ index: JinjaValue, of object: JinjaValue) throws -> JinjaValue {
        switch object {
        case .undefined(let reason): throw JinjaFailure(reason)
        case .dictionary(let dictionary):
            // An unhashable key is absent.
            if let value = try? dictionary.value(for: index) { return value }
        case .list(let values), .tuple(let values):
            if let place = index.wholeNumber { return element(place, of: values) { $0 } ?? missing(index, object) }
        case .string(let text), .markup(let text):
            if let place = index.wholeNumber {
                return element(place, of: Array(text.unicodeScalars)) { .string(String($0)) }
                    ?? missing(index, object)
            }
        case .range(let range):
            if let place = index.wholeNumber {
                return element(place, of: range.values) { $0 } ?? missing(index, object)
            }
        default: break
        }
        if let name = index.text { return try attributeOnly(name, of: object) }
        return missing(index, object)
    }

    /// Python's attribute of that name, not an item.
    func attributeOnly(_ name: String, of object: JinjaValue) throws -> JinjaValue {
        switch object {
        case .namespace, .loop, .undefined: try attribute(name, of: object)
        default: try Filters.part(name, ofGroup: object) ?? Methods.method(name, of: object) ?? missing(name, object)
        }
    }

    private func element<Element>(
        _ place: Int, of values: [Element], _ value: (Element) -> JinjaValue
    ) -> JinjaValue? {
        let index = place < 0 ? place + values.count : place
        return values.indices.contains(index) ? value(values[index]) : nil
    }

    private func missing(_ name: String, _ object: JinjaValue) -> JinjaValue {
        .undefined("'\(object.typeName) object' has no attribute '\(name)'")
    }

    private func missing(_ index: JinjaValue, _ object: JinjaValue) -> JinjaValue {
        if let name = index.text { return missing(name, object) }
        return .undefined("\(object.typeName) object has no element \((try? index.representation()) ?? "")")
    }

    // MARK: Slices

    private func slice(_ value: JinjaValue, _ start: Int?, _ stop: Int?, _ step: Int?) throws -> JinjaValue {
        func part<Element>(_ values: [Element]) throws -> [Element] {
            let step = step ?? 1
            guard step != 0 else { throw JinjaFailure("slice step cannot be zero") }
            let count = values.count
            func clamped(_ bound: Int?, _ fallback: Int) -> Int {
                guard var bound else { return fallback }
                if bound < 0 { bound = bound < -count ? -1 : bound + count }
                return step > 0 ? min(max(bound, 0), count) : min(max(bound, -1), count - 1)
            }
            let first = clamped(start, step > 0 ? 0 : count - 1)
            let end = clamped(stop, step > 0 ? count : -1)
            return Swift.stride(from: first, to: end, by: step).map { values[$0] }
        }
        switch value {
        case .list(let values): return .list(try part(values))
        case .tuple(let values): return .tuple(try part(values))
        case .string(let text):
            var scalars = String.UnicodeScalarView()
            scalars.append(contentsOf: try part(Array(text.unicodeScalars)))
            return .string(String(scalars))
        case .range(let range): return .list(try part(range.values))
        case .undefined(let reason): throw JinjaFailure(reason)
        default: throw JinjaFailure("slicing '\(value.typeName)' is not supported")
        }
    }
}
