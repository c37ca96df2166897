import PEFTSupport

/// A value of a template: Python's types, with Python's behavior.
///
/// Values are immutable, as in transformers' sandbox, except for a namespace's attributes and the position of a
/// generator.
package enum JinjaValue {
    /// An undefined name, attribute or item, with the error message for its use.
    case undefined(String)
    case none
    case boolean(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    /// Text that `safe` or `escape` marked as HTML.
    case markup(String)
    case list([JinjaValue])
    case tuple([JinjaValue])
    case dictionary(JinjaDictionary)
    /// A view of a dictionary's keys, values or items.
    case view(DictionaryView)
    case range(PythonRange)
    case generator(Generator)
    case namespace(Namespace)
    case loop(LoopState)
    case function(Function)
}

extension JinjaValue {
    /// Converts a JSON value; the keys of objects are sorted, as ``JSON`` doesn't keep their order.
    package init(_ json: JSON) {
        switch json {
        case .null: self = .none
        case .bool(let value): self = .boolean(value)
        case .integer(let value): self = .integer(value)
        case .number(let value): self = .number(value)
        case .string(let value): self = .string(value)
        case .array(let values): self = .list(values.map { JinjaValue($0) })
        case .object(let fields):
            var dictionary = JinjaDictionary()
            for (key, value) in fields.sorted(by: { $0.key < $1.key }) { dictionary[key] = JinjaValue(value) }
            self = .dictionary(dictionary)
        }
    }

    package init(fields pairs: KeyValuePairs<String, JinjaValue>) {
        var dictionary = JinjaDictionary()
        for (key, value) in pairs { dictionary[key] = value }
        self = .dictionary(dictionary)
    }

    /// The text of a string, marked or not.
    package var text: String? {
        switch self {
        case .string(let text), .markup(let text): text
        default: nil
        }
    }

    package var dictionary: JinjaDictionary? { if case .dictionary(let value) = self { value } else { nil } }

    /// The elements of a list or tuple.
    package var elements: [JinjaValue]? {
        switch self {
        case .list(let values), .tuple(let values): values
        default: nil
        }
    }

    package var isNone: Bool { if case .none = self { true } else { false } }
    var isUndefined: Bool { if case .undefined = self { true } else { false } }

    /// Python's name of the type.
    var typeName: String {
        switch self {
        case .undefined: "Undefined"
        case .none: "NoneType"
        case .boolean: "bool"
        case .integer: "int"
        case .number: "float"
        case .string: "str"
        case .markup: "Markup"
        case .list: "list"
        case .tuple: "tuple"
        case .dictionary: "dict"
        case .view(let view): "dict_\(view.part.rawValue)"
        case .range: "range"
        case .generator: "generator"
        case .namespace: "Namespace"
        case .loop: "LoopContext"
        case .function: "function"
        }
    }

    /// Python's `bool()`.
    var isTrue: Bool {
        switch self {
        case .undefined, .none: false
        case .boolean(let value): value
        case .integer(let value): value != 0
        case .number(let value): value != 0
        case .string(let value), .markup(let value): !value.utf8.isEmpty
        case .list(let values), .tuple(let values): !values.isEmpty
        case .dictionary(let value): !value.isEmpty
        case .view(let view): !view.dictionary.isEmpty
        case .range(let range): !range.isEmpty
        case .generator, .namespace, .loop, .function: true
        }
    }
}

/// The result of `namespace(…)`: attributes that a template may set in any scope.
package final class Namespace {
    var attributes = JinjaDictionary()
}

/// A generator, which can be iterated once, as returned by filters such as `map` and `select`.
public final class Generator {
    private var rest: ArraySlice<JinjaValue>

    init(_ values: [JinjaValue]) { rest = values[...] }

    func next() -> JinjaValue? { rest.popFirst() }
    func takeAll() -> [JinjaValue] {
        defer { rest = [] }
        return Array(rest)
    }
}

/// A callable.
package struct Function {
    let name: String
    let call: (Interpreter, Arguments) throws -> JinjaValue
}

/// Python's `range`.
package struct PythonRange {
    /// Maximum length in Jinja's sandbox.
    static let longest = 100_000
    let start: Int
    let step: Int
    let count: Int

    init(start: Int, stop: Int, step: Int) throws {
        guard step != 0 else { throw JinjaFailure("range() arg 3 must not be zero") }
        let (span, overflow) =
            step > 0 ? stop.subtractingReportingOverflow(start) : start.subtractingReportingOverflow(stop)
        let size = step.magnitude
        count = overflow ? .max : span <= 0 ? 0 : Int((UInt(span) - 1) / size) + 1
        (self.start, self.step) = (start, step)
        guard count <= Self.longest else { throw JinjaFailure("a range has more than \(Self.longest) numbers") }
    }

    var isEmpty: Bool { count == 0 }
    var values: [JinjaValue] { (0..<count).map { .integer(start + $0 * step) } }
}
