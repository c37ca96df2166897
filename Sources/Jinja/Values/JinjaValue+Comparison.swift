extension JinjaValue {
    /// A number as Python compares it, where True is 1.
    var numeric: Double? {
        switch self {
        case .boolean(let value): value ? 1 : 0
        case .integer(let value): Double(value)
        case .number(let value): value
        default: nil
        }
    }

    var wholeNumber: Int? {
        switch self {
        case .boolean(let value): value ? 1 : 0
        case .integer(let value): value
        default: nil
        }
    }

    /// Python's `==`.
    func isEqual(to other: JinjaValue) -> Bool {
        if let a = wholeNumber, let b = other.wholeNumber { return a == b }
        if let a = numeric, let b = other.numeric { return a == b }
        if let a = text, let b = other.text { return a.hasSameBytes(as: b) }
        switch (self, other) {
        case (.undefined, .undefined), (.none, .none): return true
        case (.list(let a), .list(let b)), (.tuple(let a), .tuple(let b)):
            return a.count == b.count && zip(a, b).allSatisfy { $0.isEqual(to: $1) }
        case (.dictionary(let a), .dictionary(let b)):
            guard a.count == b.count else { return false }
            return a.entries.allSatisfy { entry in
                guard let value = try? b.value(for: entry.key) else { return false }
                return entry.value.isEqual(to: value)
            }
        case (.range(let a), .range(let b)):
            return a.count == b.count && (a.isEmpty || a.start == b.start && (a.count == 1 || a.step == b.step))
        case (.namespace(let a), .namespace(let b)): return a === b
        case (.generator(let a), .generator(let b)): return a === b
        case (.loop(let a), .loop(let b)): return a === b
        default: return false
        }
    }

    /// Python's `<`.
    func isLess(than other: JinjaValue, sign: String = "<") throws -> Bool {
        if let a = wholeNumber, let b = other.wholeNumber { return a < b }
        if let a = numeric, let b = other.numeric { return a < b }
        if let a = text, let b = other.text { return a.precedes(b) }
        switch (self, other) {
        case (.list(let a), .list(let b)), (.tuple(let a), .tuple(let b)):
            for (x, y) in zip(a, b) where !x.isEqual(to: y) { return try x.isLess(than: y, sign: sign) }
            return a.count < b.count
        case (.undefined(let reason), _), (_, .undefined(let reason)): throw JinjaFailure(reason)
        default:
            throw JinjaFailure(
                "'\(sign)' not supported between instances of '\(typeName)' and '\(other.typeName)'")
        }
    }

    /// Python's `in`.
    func contains(_ element: JinjaValue) throws -> Bool {
        switch self {
        case .string(let text), .markup(let text):
            guard let part = element.text else {
                if case .undefined(let reason) = element { throw JinjaFailure(reason) }
                throw JinjaFailure("'in <string>' requires string as left operand, not \(element.typeName)")
            }
            return text.firstPlace(of: part) != nil
        case .dictionary(let dictionary): return try dictionary.value(for: element) != nil
        case .view(let view) where view.part == .keys: return try view.dictionary.value(for: element) != nil
        default: return try iterated("in").contains { $0.isEqual(to: element) }
        }
    }

    /// The elements that a loop over the value goes through. A generator is read by it.
    func iterated(_ use: String = "iteration") throws -> [JinjaValue] {
        switch self {
        case .undefined: []
        case .string(let text): text.unicodeScalars.map { .string(String($0)) }
        case .list(let values), .tuple(let values): values
        case .dictionary(let dictionary): dictionary.entries.map(\.key)
        case .view(let view): view.values
        case .range(let range): range.values
        case .generator(let generator): generator.takeAll()
        case .markup: throw JinjaFailure("\(use) is not supported on text marked by 'safe' or 'escape'")
        default: throw JinjaFailure("'\(typeName)' object is not iterable")
        }
    }

    /// Python's `len()`.
    func length() throws -> Int {
        switch self {
        case .undefined: 0
        case .string(let text), .markup(let text): text.unicodeScalars.count
        case .list(let values), .tuple(let values): values.count
        case .dictionary(let dictionary): dictionary.count
        case .view(let view): view.dictionary.count
        case .range(let range): range.count
        case .loop(let loop): loop.items.count
        default: throw JinjaFailure("object of type '\(typeName)' has no len()")
        }
    }

    /// How deep lists lie in lists, up to one more than is allowed.
    func depth(_ level: Int = 0) -> Int {
        guard level <= JinjaLimits.depth else { return level }
        switch self {
        case .list(let values), .tuple(let values): return values.reduce(level + 1) { max($0, $1.depth(level + 1)) }
        case .dictionary(let dictionary):
            return dictionary.entries.reduce(level + 1) { max($0, $1.value.depth(level + 1)) }
        case .view(let view): return JinjaValue.dictionary(view.dictionary).depth(level)
        default: return level
        }
    }
}
