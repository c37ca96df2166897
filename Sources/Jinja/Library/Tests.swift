/// The tests, which follow `is`.
enum Tests {
    typealias Test = @Sendable (JinjaValue, Arguments) throws -> Bool

    static let all: [String: Test] = {
        var tests: [String: Test] = [
            "defined": { value, _ in !value.isUndefined },
            "undefined": { value, _ in value.isUndefined },
            "none": { value, _ in value.isNone },
            "boolean": { value, _ in if case .boolean = value { true } else { false } },
            "true": { value, _ in if case .boolean(true) = value { true } else { false } },
            "false": { value, _ in if case .boolean(false) = value { true } else { false } },
            "string": { value, _ in value.text != nil },
            "mapping": { value, _ in value.dictionary != nil },
            "number": { value, _ in value.numeric != nil },
            "integer": { value, _ in if case .integer = value { true } else { false } },
            "float": { value, _ in if case .number = value { true } else { false } },
            "sequence": { value, _ in isSequence(value) },
            "iterable": { value, _ in isIterable(value) },
            "callable": { value, _ in if case .function = value { true } else { false } },
            "escaped": { value, _ in if case .markup = value { true } else { false } },
            "odd": { value, _ in try remainder(value, 2) == 1 },
            "even": { value, _ in try remainder(value, 2) == 0 },
            "divisibleby": { value, arguments in
                let divisor = try argument(arguments, "divisibleby").integer(of: "the divisor")
                return try remainder(value, divisor) == 0
            },
            "in": { value, arguments in try argument(arguments, "in").contains(value) },
            "lower": { value, _ in try isCase(value.string(), \.isUppercase, but: \.isLowercase) },
            "upper": { value, _ in try isCase(value.string(), \.isLowercase, but: \.isUppercase) },
            "sameas": { value, arguments in
                let other = try argument(arguments, "sameas")
                switch (value, other) {
                case (.none, .none): return true
                case (.boolean(let a), .boolean(let b)): return a == b
                case (.none, _), (.boolean, _), (_, .none), (_, .boolean): return false
                default: throw JinjaFailure("'sameas' is supported for none, true and false only")
                }
            },
            "filter": { value, _ in Filters.all[try value.text(of: "a filter's name")] != nil },
            "test": { value, _ in Tests.all[try value.text(of: "a test's name")] != nil },
        ]
        let comparisons: [([String], Test)] = [
            (["eq", "equalto", "=="], { $0.isEqual(to: try argument($1, "eq")) }),
            (["ne", "!="], { !$0.isEqual(to: try argument($1, "ne")) }),
            (["lt", "lessthan", "<"], { try $0.isLess(than: argument($1, "lt")) }),
            (["gt", "greaterthan", ">"], { try argument($1, "gt").isLess(than: $0, sign: ">") }),
            (
                ["le", "<="],
                { try $0.isLess(than: argument($1, "le"), sign: "<=") || $0.isEqual(to: argument($1, "le")) }
            ),
            (
                ["ge", ">="],
                { try argument($1, "ge").isLess(than: $0, sign: ">=") || $0.isEqual(to: argument($1, "ge")) }
            ),
        ]
        for (names, test) in comparisons { for name in names { tests[name] = test } }
        return tests
    }()

    private static func argument(_ arguments: Arguments, _ test: String) throws -> JinjaValue {
        guard arguments.positional.count == 1, arguments.named.isEmpty else {
            throw JinjaFailure("the test '\(test)' takes one argument")
        }
        return arguments.positional[0]
    }

    private static func remainder(_ value: JinjaValue, _ divisor: Int) throws -> Double {
        try Arithmetic.result(value, "%", .integer(divisor)).numeric ?? .nan
    }

    /// Python requires a length and items by index.
    private static func isSequence(_ value: JinjaValue) -> Bool {
        switch value {
        case .string, .markup, .list, .tuple, .dictionary, .range, .undefined: true
        default: false
        }
    }

    private static func isIterable(_ value: JinjaValue) -> Bool {
        switch value {
        case .none, .boolean, .integer, .number, .function, .namespace: false
        default: true
        }
    }

    /// Python's `islower` and `isupper`: at least one cased letter, and none of the other case.
    private static func isCase(
        _ text: String, _ other: KeyPath<Unicode.Scalar.Properties, Bool>,
        but own: KeyPath<Unicode.Scalar.Properties, Bool>
    ) throws -> Bool {
        let scalars = text.unicodeScalars
        return scalars.contains { $0.properties[keyPath: own] }
            && !scalars.contains {
                $0.properties[keyPath: other] || $0.properties.generalCategory == .titlecaseLetter
            }
    }
}
