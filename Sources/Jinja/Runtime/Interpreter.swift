import Foundation

/// A scope: the names of the template, a macro, or one iteration of a loop, with their values.
final class Scope {
    var values: [String: JinjaValue] = [:]
    let parent: Scope?

    init(parent: Scope?) { self.parent = parent }

    func value(of name: String) -> JinjaValue? {
        var scope: Scope? = self
        while let here = scope {
            if let value = here.values[name] { return value }
            scope = here.parent
        }
        return nil
    }
}

/// Executes a template's statements once.
final class Interpreter {
    private(set) var output = ""
    private(set) var generated: [Range<Int>] = []
    let now: Date
    private var scope: Scope
    /// Output captured for macros, calls and blocks, nested within the output.
    private var captures = 0
    private var calls = 0
    private var work = 0
    var namespaces = 0
    /// The line that is being evaluated.
    private var line = 0

    private enum Flow { case onward, leaveLoop, nextRound }

    init(_ variables: [String: JinjaValue], now: Date) {
        self.now = now
        let globals = Scope(parent: nil)
        globals.values = variables.merging(Globals.functions) { own, _ in own }
        scope = Scope(parent: globals)
    }

    func run(_ body: [Statement]) throws {
        do { _ = try execute(body) } catch var failure as JinjaFailure {
            failure.line = failure.line ?? line
            throw failure
        }
    }

    /// Counts steps, to stop a template that never ends.
    func spend(_ amount: Int) throws {
        work += 1 + amount
        guard work <= JinjaLimits.work else {
            throw JinjaFailure("the template exceeds the limit of computation steps")
        }
    }

    // MARK: Statements

    private func execute(_ statements: [Statement]) throws -> Flow {
        for statement in statements {
            line = statement.line
            let flow = try execute(statement)
            if flow != .onward { return flow }
        }
        return .onward
    }

    private func execute(_ statement: Statement) throws -> Flow {
        switch statement.kind {
        case .data(let text): try write(text)
        case .output(let expression): try write(try evaluate(expression).string())
        case .set(let target, let expression): try assign(try evaluate(expression), to: target)
        case .capture(let target, let filter, let body):
            let (text, flow) = try captured(body)
            guard flow == .onward else { return flow }
            try assign(try filtered(.string(text), by: filter), to: target)
        case .conditional(let branches, let otherwise):
            for branch in branches where try evaluate(branch.test).isTrue { return try execute(branch.body) }
            return try execute(otherwise)
        case .loop(let target, let values, let filter, let body, let otherwise):
            return try loop(target, values, filter, body, otherwise)
        case .macro(let macro): scope.values[macro.name] = function(macro)
        case .call(let call, let caller):
            guard case .call(let callee, let arguments) = call.kind else { break }
            var values = try evaluate(arguments)
            values.named.append(("caller", function(caller)))
            try write(try self.call(try evaluate(callee), values).string())
        case .filter(let filter, let body):
            let (text, flow) = try inScope { try captured(body) }
            guard flow == .onward else { return flow }
            try write(try filtered(.string(text), by: filter).string())
        case .with(let values, let body):
            // The values are evaluated before any of the names is set.
            let computed = try values.map { ($0.target, try evaluate($0.value)) }
            return try inScope {
                for (target, value) in computed { try assign(value, to: target) }
                return try execute(body)
            }
        case .generation(let body):
            guard captures == 0 else {
                throw JinjaFailure("a generation block inside a macro, a call or a captured block is not supported")
            }
            let start = output.utf8.count
            _ = try inScope { try execute(body) }
            generated.append(start..<output.utf8.count)
        case .leaveLoop: return .leaveLoop
        case .nextRound: return .nextRound
        }
        return .onward
    }

    private func loop(
        _ target: Target, _ values: Expression, _ filter: Expression?, _ body: [Statement], _ otherwise: [Statement]
    ) throws -> Flow {
        var items = try evaluate(values).iterated()
        if let filter {
            items = try items.filter { item in
                try inScope {
                    try assign(item, to: target)
                    return try evaluate(filter).isTrue
                }
            }
        }
        let state = LoopState(items)
        for index in items.indices {
            state.index = index
            try spend(0)
            let flow = try inScope {
                scope.values["loop"] = .loop(state)
                try assign(items[index], to: target)
                return try execute(body)
            }
            if flow == .leaveLoop { break }
        }
        return items.isEmpty ? try inScope { try execute(otherwise) } : .onward
    }

    private func inScope<Result>(_ parent: Scope? = nil, _ body: () throws -> Result) throws -> Result {
        let outer = scope
        scope = Scope(parent: parent ?? outer)
        defer { scope = outer }
        return try body()
    }

    private func write(_ text: String) throws {
        output += text
        try spend(text.utf8.count / 16)
        guard output.utf8.count <= JinjaLimits.text else { throw JinjaFailure("the output is too long") }
    }

    /// Captures what statements write, instead of sending it to the output.
    private func captured(_ body: [Statement]) throws -> (text: String, flow: Flow) {
        let outer = output
        output = ""
        captures += 1
        defer { (output, captures) = (outer, captures - 1) }
        let flow = try inScope { try execute(body) }
        return (output, flow)
    }

    private func filtered(_ value: JinjaValue, by chain: Expression?) throws -> JinjaValue {
        guard let chain, case .filter(let inner, let name, let arguments) = chain.kind else { return value }
        return try filter(name, try filtered(value, by: inner), try evaluate(arguments))
    }

    private func assign(_ value: JinjaValue, to target: Target) throws {
        switch target {
        case .name(let name): scope.values[name] = value
        case .attribute(let name, let attribute):
            guard case .namespace(let namespace)? = scope.value(of: name) else {
                throw JinjaFailure("'\(name).\(attribute)' can't be set: '\(name)' is not a namespace")
            }
            guard !attribute.hasPrefix("_") else {
                throw JinjaFailure("'\(attribute)' can't be set on a namespace: it begins with an underscore")
            }
            namespace.attributes[attribute] = value
        case .tuple(let targets):
            let values = try value.iterated()
            guard values.count == targets.count else {
                throw JinjaFailure("\(values.count) values can't be unpacked to \(targets.count) names")
            }
            for (target, value) in zip(targets, values) { try assign(value, to: target) }
        }
    }

    // MARK: Macros

    /// A macro sees the scope where it is defined, with the values at the time of the call.
    private func function(_ macro: Macro) -> JinjaValue {
        let home = scope
        return .function(
            Function(name: macro.name) { interpreter, arguments in
                try interpreter.run(macro, in: home, arguments)
            })
    }

    private func run(_ macro: Macro, in home: Scope, _ arguments: Arguments) throws -> JinjaValue {
        calls += 1
        defer { calls -= 1 }
        guard calls <= JinjaLimits.calls else {
            throw JinjaFailure("macro calls are nested more than \(JinjaLimits.calls) levels deep")
        }
        var named = arguments.named
        let caller = named.firstIndex { $0.name == "caller" }.map { named.remove(at: $0).value }
        let text = try inScope(home) {
            for (index, parameter) in macro.parameters.enumerated() {
                let given = named.firstIndex { $0.name == parameter.name }.map { named.remove(at: $0).value }
                if index < arguments.positional.count {
                    guard given == nil else {
                        throw JinjaFailure("macro '\(macro.name)' got '\(parameter.name)' twice")
                    }
                    scope.values[parameter.name] = arguments.positional[index]
                } else if let given {
                    scope.values[parameter.name] = given
                } else if let fallback = parameter.fallback {
                    scope.values[parameter.name] = try evaluate(fallback)
                } else {
                    scope.values[parameter.name] = .undefined("parameter '\(parameter.name)' was not provided")
                }
            }
            let extra = Array(arguments.positional.dropFirst(macro.parameters.count))
            guard extra.isEmpty || macro.uses.contains("varargs") else {
                throw JinjaFailure("macro '\(macro.name)' takes at most \(macro.parameters.count) arguments")
            }
            if let unknown = named.first, !macro.uses.contains("kwargs") {
                throw JinjaFailure("macro '\(macro.name)' takes no argument '\(unknown.name)'")
            }
            guard caller == nil || macro.uses.contains("caller") else {
                throw JinjaFailure("macro '\(macro.name)' was used with 'call' but never uses its caller")
            }
            if macro.uses.contains("varargs") { scope.values["varargs"] = .tuple(extra) }
            if macro.uses.contains("kwargs") {
                var dictionary = JinjaDictionary()
                for (name, value) in named { dictionary[name] = value }
                scope.values["kwargs"] = .dictionary(dictionary)
            }
            if macro.uses.contains("caller") {
                scope.values["caller"] = caller ?? .undefined("no caller defined")
            }
            return try captured(macro.body).text
        }
        return .string(text)
    }

    // MARK: Calls, filters and tests

    func value(of name: String) -> JinjaValue { scope.value(of: name) ?? .undefined("'\(name)' is undefined") }

    func at(_ line: Int) { self.line = line }

    func call(_ function: JinjaValue, _ arguments: Arguments) throws -> JinjaValue {
        switch function {
        case .function(let function):
            let place = line
            do {
                let result = try function.call(self, arguments)
                line = place
                return result
            } catch var failure as JinjaFailure {
                // The line inside a macro.
                failure.line = failure.line ?? line
                throw failure
            }
        case .undefined(let reason): throw JinjaFailure(reason)
        default: throw JinjaFailure("'\(function.typeName)' object is not callable")
        }
    }

    func filter(_ name: String, _ value: JinjaValue, _ arguments: Arguments) throws -> JinjaValue {
        guard let filter = Filters.all[name] else {
            throw JinjaFailure("the filter '\(name)' is not supported")
        }
        return try filter(self, value, arguments)
    }

    func test(_ name: String, _ value: JinjaValue, _ arguments: Arguments) throws -> Bool {
        guard let test = Tests.all[name] else { throw JinjaFailure("the test '\(name)' is not supported") }
        return try test(value, arguments)
    }

    func evaluate(_ arguments: CallArguments) throws -> Arguments {
        var result = Arguments(positional: try arguments.positional.map { try evaluate($0) })
        if let more = arguments.unpacked { result.positional += try evaluate(more).iterated() }
        result.named = try arguments.named.map { ($0.name, try evaluate($0.value)) }
        if let more = arguments.unpackedNames {
            guard let dictionary = try evaluate(more).dictionary else {
                throw JinjaFailure("'**' needs a dictionary")
            }
            result.named += try dictionary.entries.map { (try $0.key.text(of: "an argument's name"), $0.value) }
        }
        return result
    }
}
