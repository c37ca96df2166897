/// The arguments of a function call.
struct Arguments {
    var positional: [JinjaValue] = []
    var named: [(name: String, value: JinjaValue)] = []

    /// The arguments matched to the function's parameters, `nil` for omitted ones.
    func bound(_ function: String, _ parameters: [String], required: Int = 0) throws -> [JinjaValue?] {
        guard positional.count <= parameters.count else {
            throw JinjaFailure(
                "\(function)() takes \(parameters.count) arguments but \(positional.count) were given")
        }
        var result: [JinjaValue?] = positional + Array(repeating: nil, count: parameters.count - positional.count)
        for (name, value) in named {
            guard let index = parameters.firstIndex(of: name) else {
                throw JinjaFailure("\(function)() has no supported argument '\(name)'")
            }
            guard result[index] == nil else { throw JinjaFailure("\(function)() got '\(name)' twice") }
            result[index] = value
        }
        if let missing = parameters.indices.prefix(required).first(where: { result[$0] == nil }) {
            throw JinjaFailure("\(function)() is missing its argument '\(parameters[missing])'")
        }
        return result
    }
}

extension JinjaValue {
    /// The value as a string argument.
    func text(of argument: String) throws -> String {
        if let text { return text }
        if case .undefined(let reason) = self { throw JinjaFailure(reason) }
        throw JinjaFailure("\(argument) must be a string, not \(typeName)")
    }

    func integer(of argument: String) throws -> Int {
        if let value = wholeNumber { return value }
        if case .undefined(let reason) = self { throw JinjaFailure(reason) }
        throw JinjaFailure("\(argument) must be an integer, not \(typeName)")
    }
}

extension [JinjaValue?] {
    func text(_ index: Int, _ argument: String) throws -> String? {
        guard let value = self[index], !value.isNone else { return nil }
        return try value.text(of: argument)
    }

    func integer(_ index: Int, _ argument: String) throws -> Int? {
        guard let value = self[index], !value.isNone else { return nil }
        return try value.integer(of: argument)
    }

    func isTrue(_ index: Int, default fallback: Bool = false) -> Bool { self[index]?.isTrue ?? fallback }
}
