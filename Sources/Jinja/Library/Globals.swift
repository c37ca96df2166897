import Foundation

/// The global functions of every template.
enum Globals {
    static var functions: [String: JinjaValue] {
        [
            "range": .function(Function(name: "range", call: range)),
            "namespace": .function(Function(name: "namespace", call: namespace)),
            "dict": .function(
                Function(name: "dict") { interpreter, arguments in
                    .dictionary(try dictionary(interpreter, arguments))
                }),
            "raise_exception": .function(Function(name: "raise_exception", call: raise)),
            "strftime_now": .function(Function(name: "strftime_now", call: time)),
            "joiner": .function(Function(name: "joiner", call: joiner)),
            "cycler": unsupported("cycler"), "lipsum": unsupported("lipsum"),
        ]
    }

    private static func unsupported(_ name: String) -> JinjaValue {
        .function(Function(name: name) { _, _ in throw JinjaFailure("the function '\(name)' is not supported") })
    }

    private static func range(_ interpreter: Interpreter, _ arguments: Arguments) throws -> JinjaValue {
        guard arguments.named.isEmpty, 1...3 ~= arguments.positional.count else {
            throw JinjaFailure("range() takes 1 to 3 arguments")
        }
        let numbers = try arguments.positional.map { try $0.integer(of: "an argument of range()") }
        let result = try PythonRange(
            start: numbers.count == 1 ? 0 : numbers[0], stop: numbers[numbers.count == 1 ? 0 : 1],
            step: numbers.count == 3 ? numbers[2] : 1)
        try interpreter.spend(result.count)
        return .range(result)
    }

    private static func namespace(_ interpreter: Interpreter, _ arguments: Arguments) throws -> JinjaValue {
        interpreter.namespaces += 1
        guard interpreter.namespaces <= JinjaLimits.namespaces else {
            throw JinjaFailure("more than \(JinjaLimits.namespaces) namespaces")
        }
        let result = Namespace()
        result.attributes = try dictionary(interpreter, arguments)
        for (key, _) in result.attributes.entries where key.text?.hasPrefix("_") ?? true {
            throw JinjaFailure("a namespace's attribute can't begin with an underscore")
        }
        return .namespace(result)
    }

    private static func dictionary(_ interpreter: Interpreter, _ arguments: Arguments) throws -> JinjaDictionary {
        guard arguments.positional.count <= 1 else { throw JinjaFailure("dict expected at most 1 argument") }
        var result = JinjaDictionary()
        switch arguments.positional.first {
        case nil: break
        case .dictionary(let dictionary)?: result = dictionary
        case .namespace(let namespace)?: result = namespace.attributes
        case let pairs?:
            for pair in try pairs.iterated() {
                let values = try pair.iterated()
                guard values.count == 2 else { throw JinjaFailure("dict needs pairs of keys and values") }
                try result.set(values[0], to: values[1])
            }
        }
        for (name, value) in arguments.named { result[name] = value }
        _ = try interpreter.shallow(.dictionary(result))
        return result
    }

    private static func raise(_ interpreter: Interpreter, _ arguments: Arguments) throws -> JinjaValue {
        let message = try arguments.bound("raise_exception", ["message"], required: 1)[0]
        throw JinjaFailure("the template raised an exception: \(try message?.string() ?? "")")
    }

    /// The local time formatted with C's `strftime`, as in Python.
    private static func time(_ interpreter: Interpreter, _ arguments: Arguments) throws -> JinjaValue {
        let format = try arguments.bound("strftime_now", ["format"], required: 1).text(0, "the format") ?? ""
        guard !format.isEmpty else { return .string("") }
        var seconds = time_t(interpreter.now.timeIntervalSince1970)
        var parts = tm()
        localtime_r(&seconds, &parts)
        var buffer = [CChar](repeating: 0, count: 1024)
        let count = strftime(&buffer, buffer.count, format, &parts)
        guard count > 0 else { throw JinjaFailure("strftime_now() cannot format '\(format)'") }
        return .string(String(bytes: buffer[..<count].map { UInt8(bitPattern: $0) }))
    }

    private static func joiner(_ interpreter: Interpreter, _ arguments: Arguments) throws -> JinjaValue {
        let separator = try arguments.bound("joiner", ["sep"]).text(0, "the separator") ?? ", "
        var isUsed = false
        return .function(
            Function(name: "joiner") { _, _ in
                defer { isUsed = true }
                return .string(isUsed ? separator : "")
            })
    }
}
