import PEFTSupport

extension Filters {
    static let groups: [String: Filter] = [
        "attr": { interpreter, value, arguments in
            let name = try arguments.bound("attr", ["name"], required: 1).text(0, "the attribute's name") ?? ""
            return try interpreter.attributeOnly(name, of: value)
        },
        "groupby": { interpreter, value, arguments in
            let given = try arguments.bound("groupby", ["attribute", "default", "case_sensitive"], required: 1)
            let path = given[0] ?? .none
            let fallback = given[1].flatMap { $0.isNone ? nil : $0 }
            let isCaseSensitive = given.isTrue(2)
            let keyed = try value.iterated().map { element in
                let found = try attribute(path, of: element, interpreter, default: fallback)
                return (key: isCaseSensitive ? found : folded(found), value: element)
            }
            var groups: [(key: JinjaValue, values: [JinjaValue])] = []
            for entry in try sorted(
                keyed.map { (key: $0.key, value: JinjaValue.tuple([$0.key, $0.value])) }, reverse: false)
            {
                guard let pair = entry.elements, pair.count == 2 else { continue }
                if let last = groups.indices.last, groups[last].key.isEqual(to: pair[0]) {
                    groups[last].values.append(pair[1])
                } else {
                    groups.append((pair[0], [pair[1]]))
                }
            }
            // A group is named by the key of its first element.
            return .list(
                try groups.map { group in
                    let name = try group.values.first.map {
                        try attribute(path, of: $0, interpreter, default: fallback)
                    }
                    return try interpreter.shallow(.tuple([name ?? group.key, .list(group.values)]))
                })
        },
        // Python picks a random element; here each rendering picks the same one, as all randomness is a function of
        // a seed.
        "random": plain("random") { value in
            if value.isNone || value.numeric != nil {
                throw JinjaFailure("object of type '\(value.typeName)' has no len()")
            }
            if case .generator = value { throw JinjaFailure("object of type 'generator' has no len()") }
            let values = try value.iterated()
            guard !values.isEmpty else { return .undefined("No random item, sequence was empty.") }
            var random = SeededRandom(seed: 0, stream: UInt64(values.count))
            return values[Int(random.next() % UInt64(values.count))]
        },
    ]

    /// `grouper` and `list` of the results of `groupby`.
    static func part(_ name: String, ofGroup value: JinjaValue) -> JinjaValue? {
        guard case .tuple(let values) = value, values.count == 2, case .list = values[1] else { return nil }
        return name == "grouper" ? values[0] : name == "list" ? values[1] : nil
    }

    private static func folded(_ value: JinjaValue) -> JinjaValue {
        value.text.map { .string($0.lowercased()) } ?? value
    }
}
