extension Filters {
    static let sequences: [String: Filter] = [
        "first": plain("first") { value in
            let empty = JinjaValue.undefined("No first item, sequence was empty.")
            if case .generator(let generator) = value { return generator.next() ?? empty }
            return try value.iterated().first ?? empty
        },
        "last": plain("last") { value in
            if case .generator = value { throw JinjaFailure("'generator' object is not reversible") }
            return try value.iterated().last ?? .undefined("No last item, sequence was empty.")
        },
        "list": plain("list") { .list(try $0.iterated()) },
        "items": plain("items") { value in
            if value.isUndefined { return .generator(Generator([])) }
            guard let dictionary = value.dictionary else {
                throw JinjaFailure("Can only get item pairs from a mapping.")
            }
            return .generator(Generator(DictionaryView(dictionary: dictionary, part: .items).values))
        },
        "reverse": plain("reverse") { value in
            switch value {
            case .string(let text): .string(String(String.UnicodeScalarView(text.unicodeScalars.reversed())))
            case .generator: .list(try value.iterated().reversed())
            default: .generator(Generator(try value.iterated().reversed()))
            }
        },
        "join": { interpreter, value, arguments in
            let given = try arguments.bound("join", ["d", "attribute"])
            var values = try value.iterated()
            if let path = given[1], !path.isNone {
                values = try values.map { try attribute(path, of: $0, interpreter) }
            }
            let text = try values.map { try $0.string() }.joined(separator: try given[0]?.string() ?? "")
            try interpreter.spend(text.utf8.count / 16)
            return .string(text)
        },
        "map": map,
        "select": choosing("select", by: false, keeping: true),
        "reject": choosing("reject", by: false, keeping: false),
        "selectattr": choosing("selectattr", by: true, keeping: true),
        "rejectattr": choosing("rejectattr", by: true, keeping: false),
        "sort": { interpreter, value, arguments in
            let given = try arguments.bound("sort", ["reverse", "case_sensitive", "attribute"])
            let paths = given[2]?.text.map { $0.pieces(at: ",").map { JinjaValue.string($0) } } ?? [given[2]]
            let keyed = try value.iterated().map { value in
                let keys = try paths.map { try key(of: value, $0, isCaseSensitive: given.isTrue(1), interpreter) }
                return (key: keys.count == 1 ? keys[0] : JinjaValue.list(keys), value: value)
            }
            return .list(try sorted(keyed, reverse: given.isTrue(0)))
        },
        "dictsort": { _, value, arguments in
            let given = try arguments.bound("dictsort", ["case_sensitive", "by", "reverse"])
            guard let dictionary = value.dictionary else {
                if case .undefined(let reason) = value { throw JinjaFailure(reason) }
                throw JinjaFailure("dictsort needs a dictionary, not \(value.typeName)")
            }
            let by = try given.text(1, "by") ?? "key"
            guard ["key", "value"].contains(by) else {
                throw JinjaFailure("You can only sort by either \"key\" or \"value\"")
            }
            let keyed = dictionary.entries.map { entry in
                (
                    key: folded(by == "key" ? entry.key : entry.value, isCaseSensitive: given.isTrue(0)),
                    value: JinjaValue.tuple([entry.key, entry.value])
                )
            }
            return .list(try sorted(keyed, reverse: given.isTrue(2)))
        },
        "unique": { interpreter, value, arguments in
            let given = try arguments.bound("unique", ["case_sensitive", "attribute"])
            var seen = JinjaDictionary()
            let values = try value.iterated().filter { value in
                let key = try key(of: value, given[1], isCaseSensitive: given.isTrue(0), interpreter)
                guard try seen.value(for: key) == nil else { return false }
                try seen.set(key, to: .none)
                return true
            }
            return .generator(Generator(values))
        },
        "min": extreme("min") { try $0.isLess(than: $1) },
        "max": extreme("max") { try $1.isLess(than: $0, sign: ">") },
        "sum": { interpreter, value, arguments in
            let given = try arguments.bound("sum", ["attribute", "start"])
            return try value.iterated().reduce(given[1] ?? .integer(0)) { sum, value in
                var value = value
                if let path = given[0], !path.isNone { value = try attribute(path, of: value, interpreter) }
                return try Arithmetic.result(sum, "+", value)
            }
        },
        "batch": { interpreter, value, arguments in
            let given = try arguments.bound("batch", ["linecount", "fill_with"], required: 1)
            let size = try given.integer(0, "the number of items") ?? 1
            guard size > 0 else { throw JinjaFailure("batch needs at least 1 item per list") }
            let values = try value.iterated()
            var batches = stride(from: 0, to: values.count, by: size).map {
                Array(values[$0..<min($0 + size, values.count)])
            }
            if let filling = given[1], !filling.isNone, let last = batches.indices.last {
                try interpreter.spend(size)
                guard size <= PythonRange.longest else {
                    throw JinjaFailure("batch takes at most \(PythonRange.longest) items per list")
                }
                batches[last] += Array(repeating: filling, count: size - batches[last].count)
            }
            return .generator(Generator(try batches.map { try interpreter.shallow(.list($0)) }))
        },
        "slice": { interpreter, value, arguments in
            let given = try arguments.bound("slice", ["slices", "fill_with"], required: 1)
            let count = try given.integer(0, "the number of slices") ?? 1
            guard 1...PythonRange.longest ~= count else {
                throw JinjaFailure("slice needs 1 to \(PythonRange.longest) lists")
            }
            try interpreter.spend(count)
            let values = try value.iterated()
            let (size, extra) = values.count.quotientAndRemainder(dividingBy: count)
            var start = 0
            let slices = try (0..<count).map { index in
                let end = start + size + (index < extra ? 1 : 0)
                var slice = Array(values[start..<end])
                start = end
                if let filling = given[1], !filling.isNone, index >= extra { slice.append(filling) }
                return try interpreter.shallow(.list(slice))
            }
            return .generator(Generator(slices))
        },
    ]

    /// The elements of a truthy value, and none of a falsy one, which need not be iterable.
    private static func elements(_ value: JinjaValue) throws -> [JinjaValue] {
        value.isTrue ? try value.iterated() : []
    }

    private static let map: Filter = { interpreter, value, arguments in
        let values = try elements(value)
        guard let filter = arguments.positional.first else {
            guard let path = arguments.named.first(where: { $0.name == "attribute" })?.value else {
                throw JinjaFailure("map needs a filter's name or an attribute")
            }
            let fallback = arguments.named.first { $0.name == "default" }?.value
            guard arguments.named.allSatisfy({ ["attribute", "default"].contains($0.name) }) else {
                throw JinjaFailure("map takes attribute and default, or a filter's name and its arguments")
            }
            return .generator(
                Generator(
                    try values.map { value in
                        let found = try attribute(path, of: value, interpreter, default: fallback)
                        return found
                    }))
        }
        let name = try filter.text(of: "map's filter")
        let rest = Arguments(positional: Array(arguments.positional.dropFirst()), named: arguments.named)
        return .generator(Generator(try values.map { try interpreter.filter(name, $0, rest) }))
    }

    /// `select`, `reject`, `selectattr` and `rejectattr`: by the value or an attribute, with a test or by truth
    /// value.
    private static func choosing(_ name: String, by attribute: Bool, keeping: Bool) -> Filter {
        { interpreter, value, arguments in
            var rest = arguments
            var path: JinjaValue?
            if attribute {
                guard !rest.positional.isEmpty else { throw JinjaFailure("\(name) needs an attribute's name") }
                path = rest.positional.removeFirst()
            }
            let test = rest.positional.isEmpty ? nil : try rest.positional.removeFirst().text(of: "\(name)'s test")
            let chosen = try elements(value).filter { element in
                let tested = try path.map { try Filters.attribute($0, of: element, interpreter) } ?? element
                let holds = try test.map { try interpreter.test($0, tested, rest) } ?? tested.isTrue
                return holds == keeping
            }
            return .generator(Generator(chosen))
        }
    }

    private static func extreme(
        _ name: String, _ isBetter: @escaping @Sendable (JinjaValue, JinjaValue) throws -> Bool
    ) -> Filter {
        { interpreter, value, arguments in
            let given = try arguments.bound(name, ["case_sensitive", "attribute"])
            var best: (key: JinjaValue, value: JinjaValue)?
            for element in try value.iterated() {
                let key = try key(of: element, given[1], isCaseSensitive: given.isTrue(0), interpreter)
                if let known = best, try !isBetter(key, known.key) { continue }
                best = (key, element)
            }
            return best?.value ?? .undefined("No aggregated item, sequence was empty.")
        }
    }

    // MARK: Sort keys

    /// The attribute at a path such as `function.name` or `0.id`.
    static func attribute(
        _ path: JinjaValue, of value: JinjaValue, _ interpreter: Interpreter, default fallback: JinjaValue? = nil
    ) throws -> JinjaValue {
        var parts = [path]
        if let text = path.text {
            parts = text.pieces(at: ".").map { part in
                part.utf8.allSatisfy { 0x30...0x39 ~= $0 }
                    ? Int(part).map { .integer($0) } ?? .string(part) : .string(part)
            }
        }
        return try parts.reduce(value) { value, part in
            let found = try interpreter.item(part, of: value)
            return found.isUndefined ? fallback ?? found : found
        }
    }

    static func key(
        of value: JinjaValue, _ path: JinjaValue?, isCaseSensitive: Bool, _ interpreter: Interpreter
    ) throws -> JinjaValue {
        guard let path, !path.isNone else { return folded(value, isCaseSensitive: isCaseSensitive) }
        return folded(try attribute(path, of: value, interpreter), isCaseSensitive: isCaseSensitive)
    }

    private static func folded(_ value: JinjaValue, isCaseSensitive: Bool) -> JinjaValue {
        guard !isCaseSensitive, let text = value.text else { return value }
        return .string(text.lowercased())
    }

    /// The values sorted by their keys; stable, also in reverse.
    static func sorted(_ keyed: [(key: JinjaValue, value: JinjaValue)], reverse: Bool) throws -> [JinjaValue] {
        try keyed.enumerated().sorted { a, b in
            let (first, second) = reverse ? (b.element.key, a.element.key) : (a.element.key, b.element.key)
            if try first.isLess(than: second) { return true }
            return try !second.isLess(than: first) && a.offset < b.offset
        }.map(\.element.value)
    }
}
